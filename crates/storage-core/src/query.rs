//! Queries, and the pages they are answered in.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema::ColumnRef;
use crate::value::compare;
use crate::{ColumnName, Error, Filter, Key, Record, Result, TableName, TableSchema};

/// The most records that one page holds.
pub const MAX_PAGE: u32 = 10_000;
/// How many columns an order may name.
pub const MAX_ORDER: usize = 8;

/// Which way a column is sorted. Records that lack it come first in ascending order, last in descending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Smallest first.
    #[default]
    Ascending,
    /// Largest first.
    Descending,
}

/// One column of a sort order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// A declared or key column with an order.
    pub column: ColumnName,
    /// Which way.
    pub direction: Direction,
}

/// Which records of a table, in which order, how many at a time.
///
/// ```
/// use storage_core::{Filter, Query};
/// let query = Query::table("jobs")?
///     .filter(Filter::eq("status", "ready")?)
///     .descending("priority")?
///     .limit(50);
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The table.
    pub table: TableName,
    /// Which records.
    pub filter: Filter,
    /// The order; the key, ascending, breaks ties and orders alone where this is empty.
    pub order: Vec<Order>,
    /// How many records a page holds, 1 to [`MAX_PAGE`].
    pub limit: u32,
    /// Where the page before ended.
    pub after: Option<PageToken>,
    /// True where the answer may be of a while ago, as a replica has it.
    pub stale: bool,
}

impl Query {
    /// All records of a table, by key, 100 a page.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad name.
    pub fn table<T>(table: T) -> Result<Self>
    where
        T: TryInto<TableName>,
        Error: From<T::Error>,
    {
        Ok(Self { table: table.try_into()?, filter: Filter::All, order: Vec::new(), limit: 100, after: None, stale: false })
    }

    /// Adds a filter to those there are.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = self.filter & filter;
        self
    }

    /// Sorts by `column`, smallest first, within the order so far.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad name.
    pub fn ascending(mut self, column: &str) -> Result<Self> {
        self.order.push(Order { column: ColumnName::new(column)?, direction: Direction::Ascending });
        Ok(self)
    }

    /// Sorts by `column`, largest first, within the order so far.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad name.
    pub fn descending(mut self, column: &str) -> Result<Self> {
        self.order.push(Order { column: ColumnName::new(column)?, direction: Direction::Descending });
        Ok(self)
    }

    /// How many records a page holds.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Goes on where the page before ended.
    #[must_use]
    pub fn after(mut self, token: Option<PageToken>) -> Self {
        self.after = token;
        self
    }

    /// Lets the answer be of a while ago: see [`RecordStore::stale`](crate::RecordStore::stale).
    #[must_use]
    pub fn stale(mut self) -> Self {
        self.stale = true;
        self
    }

    /// The query checked against the schema, with its literals in canonical form: what backends are given.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad filter, order, limit or token.
    pub fn canonical(&self, schema: &TableSchema) -> Result<Self> {
        if self.limit == 0 || self.limit > MAX_PAGE {
            return Err(Error::invalid(format!("a page holds 1 to {MAX_PAGE} records, not {}", self.limit)));
        }
        if self.order.len() > MAX_ORDER {
            return Err(Error::invalid(format!("an order names {MAX_ORDER} columns at most, not {}", self.order.len())));
        }
        for order in &self.order {
            match schema.resolve(&order.column)? {
                ColumnRef::Undeclared => {
                    return Err(Error::invalid(format!(
                        "can't sort by `{}`: the schema of table `{}` does not declare it",
                        order.column, schema.name
                    )));
                }
                column if column.column_type().is_some_and(|kind| !kind.is_ordered()) => {
                    return Err(Error::invalid(format!(
                        "can't sort by `{}` of table `{}`: its type has no order",
                        order.column, schema.name
                    )));
                }
                _ => {}
            }
        }
        let canonical = Self { filter: self.filter.canonical(schema)?, ..self.clone() };
        canonical.cursor(schema)?;
        Ok(canonical)
    }

    /// Where the page before ended, read from [`after`](Self::after).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a token that is damaged or belongs to another query.
    pub fn cursor(&self, schema: &TableSchema) -> Result<Option<Cursor>> {
        let Some(token) = &self.after else { return Ok(None) };
        let bad = || Error::invalid("the page token is damaged: use it as it was returned");
        let bytes = BASE64.decode(&token.0).map_err(|_| bad())?;
        let cursor: Cursor = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if cursor.query != self.fingerprint() || cursor.values.len() != self.order.len() {
            return Err(Error::invalid(
                "the page token belongs to another query: table, filter and order must stay the same from page to page",
            ));
        }
        schema.check_key(&cursor.key).map_err(|_| bad())?;
        Ok(Some(cursor))
    }

    /// The token of a page that ends with `record`.
    #[must_use]
    pub fn token_after(&self, schema: &TableSchema, record: &Record) -> PageToken {
        let values = self.order.iter().map(|o| record.value(schema, o.column.as_str()).unwrap_or_default()).collect();
        let cursor = Cursor { query: self.fingerprint(), values, key: record.key.clone() };
        // A struct of numbers, JSON values and text keys always serializes.
        PageToken(BASE64.encode(serde_json::to_vec(&cursor).unwrap_or_default()))
    }

    /// True where the order is that of the keys, so that a backend that reads by key can stop at the end of the page.
    #[must_use]
    pub fn is_key_order(&self, schema: &TableSchema) -> bool {
        self.order.len() <= schema.key_columns().count()
            && self
                .order
                .iter()
                .zip(schema.key_columns())
                .all(|(order, key)| order.direction == Direction::Ascending && order.column == key.name)
    }

    /// How two records of this query are ordered.
    #[must_use]
    pub fn compare(&self, schema: &TableSchema, a: &Record, b: &Record) -> Ordering {
        let by_columns = self.order.iter().map(|order| {
            let (a, b) = (a.value(schema, order.column.as_str()), b.value(schema, order.column.as_str()));
            directed(order.direction, compare_nullable(a.as_ref(), b.as_ref()))
        });
        by_columns.fold(Ordering::Equal, Ordering::then).then_with(|| a.key.cmp(&b.key))
    }

    // Over table, filter and order: catches a token used with another query; not a defence against forgery, which
    // could do no more than start at another place.
    fn fingerprint(&self) -> u64 {
        let text = serde_json::to_string(&(&self.table, &self.filter, &self.order)).unwrap_or_default();
        crate::fnv1a(&[text.as_bytes()])
    }
}

fn directed(direction: Direction, ordering: Ordering) -> Ordering {
    match direction {
        Direction::Ascending => ordering,
        Direction::Descending => ordering.reverse(),
    }
}

fn compare_nullable(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => compare(a, b).unwrap_or(Ordering::Equal),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// The place after which a page starts: the last record's values of the sort columns, and its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    #[serde(rename = "q")]
    query: u64,
    /// The sort columns' values, null where the record lacked one.
    #[serde(rename = "v")]
    pub values: Vec<Value>,
    /// The record's key.
    #[serde(rename = "k")]
    pub key: Key,
}

impl Cursor {
    /// True where `record` comes after this place in the order of `query`.
    #[must_use]
    pub fn is_before(&self, query: &Query, schema: &TableSchema, record: &Record) -> bool {
        let by_columns = query.order.iter().zip(&self.values).map(|(order, mine)| {
            let theirs = record.value(schema, order.column.as_str());
            directed(order.direction, compare_nullable(Some(mine).filter(|v| !v.is_null()), theirs.as_ref()))
        });
        by_columns.fold(Ordering::Equal, Ordering::then).then_with(|| self.key.cmp(&record.key)).is_lt()
    }
}

/// An opaque mark of where a page ended. Text that can be kept and sent; it stays good while others write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageToken(String);

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PageToken {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(Self(text.to_owned()))
    }
}

/// One page of records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The records, in the query's order.
    pub records: Vec<Record>,
    /// Where the next page starts; `None` after the last. A page that happens to end at the last record may still have one.
    pub next: Option<PageToken>,
}

impl Page {
    /// The page of `query` out of all candidates, for backends that filter and sort in memory.
    ///
    /// # Errors
    /// See [`Query::cursor`].
    pub fn select(query: &Query, schema: &TableSchema, candidates: impl IntoIterator<Item = Record>) -> Result<Self> {
        let mut builder = PageBuilder::new(query, schema)?;
        candidates.into_iter().for_each(|record| builder.push(record));
        Ok(builder.finish())
    }
}

/// How many candidates a [`PageBuilder`] takes in before it drops those beyond the page.
const SLACK: usize = 1024;

/// Makes the page of a query out of candidates that come one by one, in whatever order: holds the page and 1,024 records more at most.
#[derive(Debug)]
pub struct PageBuilder<'a> {
    query: &'a Query,
    schema: &'a TableSchema,
    cursor: Option<Cursor>,
    limit: usize,
    best: Vec<Record>,
    more: bool,
}

impl<'a> PageBuilder<'a> {
    /// An empty page of `query`.
    ///
    /// # Errors
    /// See [`Query::cursor`].
    pub fn new(query: &'a Query, schema: &'a TableSchema) -> Result<Self> {
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        Ok(Self { query, schema, cursor: query.cursor(schema)?, limit, best: Vec::new(), more: false })
    }

    /// Takes a candidate in, if the query is about it.
    pub fn push(&mut self, record: Record) {
        let behind = self.cursor.as_ref().is_none_or(|cursor| cursor.is_before(self.query, self.schema, &record));
        if behind && self.query.filter.matches(self.schema, &record) {
            self.best.push(record);
        }
        if self.best.len() >= self.limit.saturating_add(SLACK) {
            self.cut();
        }
    }

    /// True where there are more records than the page holds: candidates that sort behind all of these need not be pushed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.more || self.best.len() > self.limit
    }

    fn cut(&mut self) {
        if self.best.len() > self.limit {
            self.best.select_nth_unstable_by(self.limit - 1, |a, b| self.query.compare(self.schema, a, b));
            self.best.truncate(self.limit);
            self.more = true;
        }
    }

    /// The page.
    #[must_use]
    pub fn finish(mut self) -> Page {
        self.cut();
        self.best.sort_unstable_by(|a, b| self.query.compare(self.schema, a, b));
        let next = self.best.last().filter(|_| self.more).map(|last| self.query.token_after(self.schema, last));
        Page { records: self.best, next }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ColumnType, Version, fields};

    fn schema() -> TableSchema {
        TableSchema::builder("t").column("n", ColumnType::Integer).column("j", ColumnType::Json).build().unwrap()
    }

    fn record(key: &str, n: Value) -> Record {
        Record {
            key: key.into(),
            version: Version::FIRST,
            updated_at: chrono::Utc::now(),
            expires_at: None,
            fields: fields(json!({"n": n})),
        }
    }

    fn all_pages(query: &Query) -> Vec<String> {
        let records = || {
            ["a", "b", "c", "d"].into_iter().zip([json!(2), Value::Null, json!(1), json!(2)]).map(|(k, n)| {
                let mut r = record(k, n);
                r.fields.retain(|_, v| !v.is_null());
                r
            })
        };
        let (mut keys, mut query) = (Vec::new(), query.clone());
        loop {
            let page = Page::select(&query, &schema(), records()).unwrap();
            keys.extend(page.records.iter().map(|r| r.key.to_string()));
            let Some(next) = page.next else { return keys };
            query.after = Some(next);
        }
    }

    #[test]
    fn pages_follow_the_order_with_nulls_first_and_the_key_as_tie_break() {
        for limit in 1..=5 {
            let query = Query::table("t").unwrap().limit(limit);
            assert_eq!(all_pages(&query), ["a", "b", "c", "d"]);
            assert_eq!(all_pages(&query.clone().ascending("n").unwrap()), ["b", "c", "a", "d"]);
            assert_eq!(all_pages(&query.descending("n").unwrap()), ["a", "d", "c", "b"]);
        }
    }

    #[test]
    fn a_page_of_many_candidates_holds_few() {
        let schema = schema();
        let query = Query::table("t").unwrap().descending("n").unwrap().limit(3);
        let mut builder = PageBuilder::new(&query, &schema).unwrap();
        for n in 0..10_000 {
            builder.push(record(&n.to_string(), json!(n * 7_919 % 10_000)));
            assert!(builder.best.len() < 3 + SLACK);
            assert_eq!(builder.is_full(), n >= 3);
        }
        let page = builder.finish();
        assert_eq!(
            page.records.iter().map(|r| r.fields["n"].clone()).collect::<Vec<_>>(),
            [json!(9999), json!(9998), json!(9997)]
        );
        assert!(page.next.is_some());
    }

    #[test]
    fn tokens_of_other_queries_are_refused() {
        let query = Query::table("t").unwrap().limit(1);
        let token = query.token_after(&schema(), &record("a", json!(1)));
        assert!(query.clone().after(Some(token.clone())).canonical(&schema()).is_ok());
        let other = query.clone().ascending("n").unwrap().after(Some(token));
        assert!(other.canonical(&schema()).is_err());
        assert!(query.after(Some("garbage".parse().unwrap())).canonical(&schema()).is_err());
    }

    #[test]
    fn bad_queries_are_refused() {
        let query = Query::table("t").unwrap();
        assert!(query.clone().limit(0).canonical(&schema()).is_err());
        assert!(query.clone().ascending("nope").unwrap().canonical(&schema()).is_err());
        assert!(query.ascending("j").unwrap().canonical(&schema()).is_err());
    }
}
