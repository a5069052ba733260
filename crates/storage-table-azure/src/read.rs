//! Reading records: by key, and by queries.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use storage_core::{Clock, Error, Filter, Key, Page, PageBuilder, Query, Record, Result, TableSchema};

use crate::client::{Change, Client, MOST, Search};
use crate::entity::{self, EXPIRES, Entity};
use crate::error::{Refusal, code};
use crate::keys::{self, Place};
use crate::odata::{Pushed, quoted};
use crate::table::Table;

/// How many requests one call makes at once.
pub(crate) const AT_ONCE: usize = 16;
/// How many keys one query names: the service takes 15 comparisons, and three say where to look.
const NAMED: usize = 12;
/// The longest that they may be together: queries travel in addresses.
const NAMED_BYTES: usize = 2_048;
/// How often the records of one partition are read again because others wrote meanwhile.
const MAX_ROUNDS: u32 = 50;

/// The records with these keys: those of one partition as of one moment.
pub(crate) async fn get(client: &Client, table: &Table, clock: &Clock, keys: &[Key]) -> Result<Vec<Option<Record>>, Refusal> {
    let places: Vec<Place> = keys.iter().map(keys::place).collect::<Result<_>>()?;
    let mut partitions: BTreeMap<&str, BTreeSet<&Place>> = BTreeMap::new();
    for place in &places {
        partitions.entry(&place.partition).or_default().insert(place);
    }
    let read = |rows: BTreeSet<&Place>| {
        let rows: Vec<Place> = rows.into_iter().cloned().collect();
        async move { of_one_moment(client, &table.there, &rows).await }
    };
    let reads: Vec<_> = partitions.into_values().map(read).collect();
    let found: Vec<Vec<Entity>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
    let mut records = HashMap::new();
    let now = clock.now();
    for entity in found.into_iter().flatten() {
        let place = entity.place.clone();
        let (record, _) = entity.into_record(table)?;
        if !record.is_expired(now) {
            records.insert(place, record);
        }
    }
    Ok(places.iter().map(|place| records.get(place).cloned()).collect())
}

/// The entities of these rows of one partition.
async fn of_one_moment(client: &Client, table: &str, rows: &[Place]) -> Result<Vec<Entity>, Refusal> {
    if let [only] = rows {
        return Ok(client.get(table, only).await?.into_iter().collect());
    }
    if let Some(found) = by_query(client, table, rows).await? {
        return Ok(found);
    }
    let mut before = each(client, table, rows).await?;
    for _ in 0..MAX_ROUNDS {
        let after = each(client, table, rows).await?;
        // All were so when the first round ended.
        if marks(&before) == marks(&after) {
            return Ok(after);
        }
        before = after;
    }
    Err(Error::unavailable("others write these records all the time: read fewer of them at once").into())
}

fn marks(entities: &[Entity]) -> Vec<(&Place, &str)> {
    entities.iter().map(|entity| (&entity.place, entity.etag.as_str())).collect()
}

/// By one query, whose answer is of one moment if it is one. `None`: they are too many for that.
async fn by_query(client: &Client, table: &str, rows: &[Place]) -> Result<Option<Vec<Entity>>, Refusal> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Some(Vec::new())) };
    if rows.len() > NAMED || rows.iter().map(|place| place.row.len()).sum::<usize>() > NAMED_BYTES {
        return Ok(None);
    }
    let named: Vec<String> = rows.iter().map(|place| format!("RowKey eq {}", quoted(&place.row))).collect();
    // The service reads all rows from the first to the last: without these two, the whole partition.
    let terms = vec![
        format!("PartitionKey eq {}", quoted(&first.partition)),
        format!("RowKey ge {}", quoted(&first.row)),
        format!("RowKey le {}", quoted(&last.row)),
        format!("({})", named.join(" or ")),
    ];
    let mut search = Search::new(terms, MOST);
    let found = client.find(table, &mut search).await?;
    Ok(Some(found).filter(|_| search.is_over()))
}

/// One by one, each as of a moment of its own.
pub(crate) async fn each(client: &Client, table: &str, places: &[Place]) -> Result<Vec<Entity>, Refusal> {
    let reads: Vec<_> = places.iter().map(|place| client.get(table, place)).collect();
    let found: Vec<Option<Entity>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// What comes after `key`, range by range: one `or` would have the service look through the whole table.
fn behind(schema: &TableSchema, key: &Key, pushed: &Pushed) -> Result<Vec<Vec<String>>> {
    let place = keys::place(key)?;
    let partition = quoted(&place.partition);
    let mut ranges = Vec::new();
    if schema.partition.is_some() {
        ranges.push(vec![format!("PartitionKey eq {partition}"), format!("RowKey gt {}", quoted(&place.row))]);
        if pushed.one_partition {
            return Ok(ranges);
        }
    }
    ranges.push(vec![format!("PartitionKey gt {partition}")]);
    Ok(ranges)
}

/// One page.
pub(crate) async fn scan(client: &Client, table: &Table, clock: &Clock, query: &Query) -> Result<Page, Refusal> {
    let (schema, now) = (&table.schema, clock.now());
    let pushed = Pushed::of(table, &query.filter);
    let in_order = query.is_key_order(schema);
    let ranges = match query.cursor(schema)?.filter(|_| in_order) {
        Some(cursor) => behind(schema, &cursor.key, &pushed)?,
        None => vec![Vec::new()],
    };
    let most = if in_order && pushed.exact { usize::try_from(query.limit).unwrap_or(MOST).saturating_add(1) } else { MOST };
    let mut page = PageBuilder::new(query, schema)?;
    for range in ranges {
        let mut search = Search::new([range, pushed.terms.clone()].concat(), most);
        while !search.is_over() {
            for entity in client.find(&table.there, &mut search).await? {
                let (record, _) = entity.into_record(table)?;
                if !record.is_expired(now) {
                    page.push(record);
                }
            }
            if in_order && page.is_full() {
                return Ok(page.finish());
            }
        }
    }
    Ok(page.finish())
}

/// How many match.
pub(crate) async fn count(client: &Client, table: &Table, clock: &Clock, filter: &Filter) -> Result<u64, Refusal> {
    let (schema, now) = (&table.schema, clock.now());
    let pushed = Pushed::of(table, filter);
    let mut search = Search::new(pushed.terms, MOST);
    if pushed.exact {
        search = search.select(&["PartitionKey", "RowKey", EXPIRES]);
    }
    let mut count = 0;
    while !search.is_over() {
        for entity in client.find(&table.there, &mut search).await? {
            let counts = if pushed.exact {
                !entity.is_expired(now)?
            } else {
                let (record, _) = entity.into_record(table)?;
                !record.is_expired(now) && filter.matches(schema, &record)
            };
            count += u64::from(counts);
        }
    }
    Ok(count)
}

/// Looks at every record.
pub(crate) async fn all(
    client: &Client,
    table: &Table,
    clock: &Clock,
    mut look: impl FnMut(Record) -> Result<()>,
) -> Result<(), Refusal> {
    let mut search = Search::new(Vec::new(), MOST);
    while !search.is_over() {
        for entity in client.find(&table.there, &mut search).await? {
            let (record, _) = entity.into_record(table)?;
            if !record.is_expired(clock.now()) {
                look(record)?;
            }
        }
    }
    Ok(())
}

/// Removes what has expired, of what the service finds by the filter.
pub(crate) async fn sweep(client: &Client, table: &Table, clock: &Clock, filter: &Filter) -> Result<u64, Refusal> {
    let now = clock.now();
    // The emulator compares milliseconds.
    let until = entity::moment(now + chrono::TimeDelta::milliseconds(1));
    let mut terms = Pushed::of(table, filter).terms;
    terms.push(format!("{EXPIRES} le datetime'{until}'"));
    let mut search = Search::new(terms, MOST);
    let mut swept = 0;
    while !search.is_over() {
        let mut removals = Vec::new();
        for entity in client.find(&table.there, &mut search).await? {
            if entity.is_expired(now)? {
                removals.push(remove(client, &table.there, entity));
            }
        }
        let removed: Vec<bool> = stream::iter(removals).buffer_unordered(AT_ONCE).try_collect().await?;
        swept += removed.into_iter().map(u64::from).sum::<u64>();
    }
    Ok(swept)
}

/// `false`: it was gone, or is another by now.
pub(crate) async fn remove(client: &Client, table: &str, entity: Entity) -> Result<bool, Refusal> {
    match client.change(table, &entity.place, &Change::Delete(entity.etag.clone())).await {
        Ok(_) => Ok(true),
        Err(refusal) if refusal.is(code::NO_ENTITY) || refusal.is(code::NOT_THIS_STATE) => Ok(false),
        Err(refusal) => Err(refusal),
    }
}
