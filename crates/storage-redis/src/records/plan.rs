//! Which sorted set a query goes through, and which part of it.

use serde_json::Value;
use storage_core::{ColumnName, ColumnType, Cursor, Direction, Filter, KeyColumn, Order, Query, TableSchema};

use super::encode::{self, LAST};
use super::table::Table;

/// More values of an `in` are looked for one by one in what the rest of the filter leaves.
const MAX_RANGES: usize = 256;

/// A part of a sorted set, as `ZRANGEBYLEX` takes its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

/// How a query is answered.
#[derive(Debug)]
pub(super) struct Plan {
    /// The number of the index; `None`: by the keys.
    pub(super) index: Option<usize>,
    /// In ascending order; nothing is in two of them.
    pub(super) ranges: Vec<Range>,
    pub(super) down: bool,
    /// How far records come in the query's order.
    pub(super) order: Sorted,
}

/// How far the records of a way come in a query's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sorted {
    /// Not at all: all have to be looked at.
    No,
    /// By the query's columns, upwards (true: downwards); those that are alike in them come in any order.
    Groups(bool),
    /// Each, upwards (true: downwards).
    Each(bool),
}

/// Values of a column that are looked for, encoded.
enum Part {
    /// These alone.
    Points(Vec<Vec<u8>>),
    /// From what on, up to what; both are looked at.
    Between(Option<Vec<u8>>, Option<Vec<u8>>),
}

fn inclusive(bytes: &[u8]) -> Vec<u8> {
    [b"[", bytes].concat()
}

fn exclusive(bytes: &[u8]) -> Vec<u8> {
    [b"(", bytes].concat()
}

/// All that begin so.
fn prefix(bytes: &[u8]) -> Range {
    if bytes.is_empty() {
        return Range { from: b"-".to_vec(), to: b"+".to_vec() };
    }
    Range { from: inclusive(bytes), to: exclusive(&[bytes, &[LAST]].concat()) }
}

/// What `filters` ask of a column.
fn part(filters: &[&Filter], column: &ColumnName, kind: ColumnType) -> Option<Part> {
    let about = || filters.iter().filter(|filter| filter.columns() == [column]);
    let point = |literal: &Value| {
        // A literal of the other kind of number may be none of the column's: between the two that are next to it nothing is.
        let (least, most) = (encode::least(kind, literal), encode::most(kind, literal));
        if least == most { vec![least] } else { vec![least, most] }
    };
    for filter in about() {
        match filter {
            Filter::Eq(_, value) => return Some(Part::Points(point(value))),
            Filter::IsNull(_) => return Some(Part::Points(vec![encode::value(kind, None)])),
            Filter::In(_, values) if values.len() <= MAX_RANGES => {
                let mut points: Vec<_> = values.iter().flat_map(point).collect();
                points.sort_unstable();
                points.dedup();
                return Some(Part::Points(points));
            }
            _ => {}
        }
    }
    let (mut from, mut to): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
    let mut narrow = |least: Option<Vec<u8>>, most: Option<Vec<u8>>| {
        from = from.take().max(least);
        to = match (to.take(), most) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    };
    for filter in about() {
        match filter {
            Filter::Gt(_, value) | Filter::Ge(_, value) => narrow(Some(encode::least(kind, value)), None),
            Filter::Lt(_, value) | Filter::Le(_, value) => narrow(Some(encode::some().into()), Some(encode::most(kind, value))),
            Filter::StartsWith(_, text) if kind == ColumnType::Text => {
                narrow(Some(encode::beginning(text)), Some(encode::beginning(text)));
            }
            _ => {}
        }
    }
    if from.is_none() && to.is_none() { None } else { Some(Part::Between(from, to)) }
}

/// One way to go: what the filter leaves of a sorted set.
struct Way {
    index: Option<usize>,
    /// What all that is wanted begins with, by the columns that can have one value only.
    fixed: Vec<u8>,
    /// How many columns that are.
    depth: usize,
    ranges: Vec<Range>,
    /// How much the filter leaves out here: more is better.
    score: usize,
    order: Sorted,
}

impl Plan {
    pub(super) fn new(table: &Table, query: &Query, cursor: Option<&Cursor>) -> Self {
        let filters = query.filter.conjuncts();
        let mut best = by_key(&table.schema, &filters, query);
        for (number, path) in table.indexes.iter().enumerate() {
            let way = by_index(&table.schema, number, &path.columns, &filters, query);
            // Where nothing is left out, an index is worth it for the order alone.
            if (way.score, way.order != Sorted::No) > (best.score, best.order != Sorted::No) {
                best = way;
            }
        }
        if let (Some(cursor), [range]) = (cursor, best.ranges.as_mut_slice()) {
            match (best.index, best.order) {
                (_, Sorted::No) => {}
                (None, Sorted::Each(down) | Sorted::Groups(down)) => {
                    begin_behind(range, down, encode::key(&cursor.key).as_bytes());
                }
                (Some(_), Sorted::Each(down)) => {
                    begin_behind(range, down, &[&best.fixed[..], encode::key(&cursor.key).as_bytes()].concat());
                }
                (Some(number), Sorted::Groups(down)) => {
                    let group = group_of(&best.fixed, &table.indexes[number].columns[best.depth..], cursor, query);
                    begin_with(range, down, &group);
                }
            }
        }
        let down = matches!(best.order, Sorted::Groups(true) | Sorted::Each(true));
        Self { index: best.index, ranges: best.ranges, down, order: best.order }
    }
}

/// What the members of an index begin with that are like the cursor in the query's columns.
fn group_of(fixed: &[u8], columns: &[(ColumnName, ColumnType)], cursor: &Cursor, query: &Query) -> Vec<u8> {
    let mut group = fixed.to_vec();
    for (column, kind) in columns {
        let Some(at) = query.order.iter().position(|order| order.column == *column) else { break };
        group.extend(encode::value(*kind, cursor.values.get(at)));
    }
    group
}

/// Leaves out what comes before the last that was answered, and that one.
fn begin_behind(range: &mut Range, down: bool, last: &[u8]) {
    if down { range.to = earlier(&range.to, &exclusive(last)) } else { range.from = later(&range.from, &exclusive(last)) }
}

/// Leaves out what comes before the group of the last that was answered.
fn begin_with(range: &mut Range, down: bool, group: &[u8]) {
    if down {
        range.to = earlier(&range.to, &exclusive(&[group, &[LAST]].concat()));
    } else {
        range.from = later(&range.from, &inclusive(group));
    }
}

fn later(a: &[u8], b: &[u8]) -> Vec<u8> {
    if a == b"-" || a[1..] <= b[1..] { b.to_vec() } else { a.to_vec() }
}

fn earlier(a: &[u8], b: &[u8]) -> Vec<u8> {
    if a == b"+" || a[1..] >= b[1..] { b.to_vec() } else { a.to_vec() }
}

/// The ranges behind what is fixed, and how much they leave out. `last`: nothing comes behind the values.
fn ranges(fixed: &[u8], part: Option<Part>, last: bool) -> (Vec<Range>, usize) {
    match part {
        None => (vec![prefix(fixed)], 0),
        Some(Part::Points(points)) => {
            let one = |point: &Vec<u8>| match [fixed, point].concat() {
                whole if last => Range { from: inclusive(&whole), to: inclusive(&whole) },
                whole => prefix(&whole),
            };
            (points.iter().map(one).collect(), 2)
        }
        Some(Part::Between(from, to)) => {
            let all = prefix(fixed);
            let from = from.map_or(all.from, |from| inclusive(&[fixed, &from].concat()));
            // All that begin with the last that is wanted are looked at.
            let to = to.map_or(all.to, |to| exclusive(&[fixed, &to, &[LAST]].concat()));
            (vec![Range { from, to }], 1)
        }
    }
}

fn by_index(
    schema: &TableSchema,
    number: usize,
    columns: &[(ColumnName, ColumnType)],
    filters: &[&Filter],
    query: &Query,
) -> Way {
    let (mut fixed, mut depth, mut rest) = (Vec::new(), 0, None);
    for (column, kind) in columns {
        match part(filters, column, *kind) {
            Some(Part::Points(points)) if points.len() == 1 => {
                fixed.extend(&points[0]);
                depth += 1;
            }
            found => {
                rest = found;
                break;
            }
        }
    }
    let (ranges, more) = ranges(&fixed, rest, false);
    let names: Vec<_> = columns.iter().map(|(name, _)| name).collect();
    let order = if ranges.len() == 1 { index_order(schema, query, &names[..depth], &names[depth..]) } else { Sorted::No };
    Way { index: Some(number), fixed, depth, ranges, score: 2 * depth + more, order }
}

/// The query's columns but for those that have one value.
fn wanted<'q>(query: &'q Query, fixed: &[&ColumnName]) -> Vec<&'q Order> {
    query.order.iter().filter(|order| !fixed.contains(&&order.column)).collect()
}

fn directed(order: &[&Order], columns: &[&ColumnName], direction: Direction) -> bool {
    order.len() <= columns.len()
        && order.iter().zip(columns).all(|(order, column)| order.direction == direction && order.column == **column)
}

/// How an index gives the query's order, behind columns that have one value.
fn index_order(schema: &TableSchema, query: &Query, fixed: &[&ColumnName], rest: &[&ColumnName]) -> Sorted {
    let wanted = wanted(query, fixed);
    let keys: Vec<_> = schema.key_columns().map(|key| &key.name).collect();
    match (rest.is_empty(), wanted.is_empty()) {
        (true, _) if directed(&wanted, &keys, Direction::Ascending) => Sorted::Each(false),
        (false, false) if directed(&wanted, rest, Direction::Ascending) => Sorted::Groups(false),
        (false, false) if directed(&wanted, rest, Direction::Descending) => Sorted::Groups(true),
        _ => Sorted::No,
    }
}

fn by_key(schema: &TableSchema, filters: &[&Filter], query: &Query) -> Way {
    let of = |column: &KeyColumn| part(filters, &column.name, column.kind.column_type()).map(bare);
    let (mut fixed, mut columns, mut score) = (Vec::new(), Vec::new(), 0);
    let (rest, last) = match &schema.partition {
        None => (of(&schema.id), true),
        Some(partition) => match of(partition) {
            Some(Part::Points(points)) if points.len() == 1 => {
                fixed = within(&points[0]);
                columns.push(&partition.name);
                score = 2;
                (of(&schema.id), true)
            }
            Some(Part::Points(points)) => (Some(Part::Points(points.iter().map(|point| within(point)).collect())), false),
            found => (found, false),
        },
    };
    let (ranges, more) = ranges(&fixed, rest, last);
    let order = if ranges.len() == 1 { key_order(schema, query, &columns) } else { Sorted::No };
    Way { index: None, fixed, depth: columns.len(), ranges, score: score + more, order }
}

/// What the keys of a partition begin with.
fn within(partition: &[u8]) -> Vec<u8> {
    [partition, &[encode::BETWEEN]].concat()
}

fn key_order(schema: &TableSchema, query: &Query, fixed: &[&ColumnName]) -> Sorted {
    let rest: Vec<_> = schema.key_columns().map(|key| &key.name).filter(|name| !fixed.contains(name)).collect();
    let wanted = wanted(query, fixed);
    if directed(&wanted, &rest, Direction::Ascending) {
        return Sorted::Each(false);
    }
    let down = wanted.len() == rest.len() && directed(&wanted, &rest, Direction::Descending);
    if down { Sorted::Each(true) } else { Sorted::No }
}

/// Key parts stand in the set without what goes around values.
fn bare(part: Part) -> Part {
    let strip = |value: Vec<u8>| {
        let inner = value.strip_prefix(&encode::some()).unwrap_or(&value);
        inner.strip_suffix(b"\0").unwrap_or(inner).to_vec()
    };
    match part {
        Part::Points(points) => Part::Points(points.into_iter().map(strip).collect()),
        Part::Between(from, to) => Part::Between(from.map(strip), to.map(strip)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use storage_core::KeyType;

    use super::*;
    use crate::layout::Layout;

    fn jobs(two: bool) -> Table {
        let builder = TableSchema::builder("t");
        let builder = if two { builder.partition("p", KeyType::Text) } else { builder };
        let schema = builder
            .column("status", ColumnType::Text)
            .column("n", ColumnType::Integer)
            .column("mail", ColumnType::Text)
            .unique()
            .index("by_status", ["status", "n"])
            .build()
            .unwrap();
        Table::new(&Layout::new("x").unwrap(), schema, String::new(), "1".into(), "1.0".into()).unwrap()
    }

    fn plan(table: &Table, filter: Filter, order: &[(&str, Direction)]) -> Plan {
        let mut query = Query::table("t").unwrap().filter(filter);
        for (column, direction) in order {
            query.order.push(Order { column: (*column).try_into().unwrap(), direction: *direction });
        }
        Plan::new(table, &query.canonical(&table.schema).unwrap(), None)
    }

    #[test]
    fn the_way_that_leaves_out_most_is_taken() {
        let table = jobs(false);
        let eq = |column: &str, value: Value| Filter::eq(column, value).unwrap();
        let all = plan(&table, Filter::All, &[]);
        assert_eq!((all.index, all.order), (None, Sorted::Each(false)));
        // Unique columns come before the indexes.
        assert_eq!(plan(&table, eq("mail", json!("a")), &[]).index, Some(0));
        let status = plan(&table, eq("status", json!("a")), &[("n", Direction::Descending)]);
        assert_eq!((status.index, status.order, status.down), (Some(1), Sorted::Groups(true), true));
        assert_eq!(status.ranges, [prefix(b"=a\0")]);
        let id = plan(&table, eq("id", json!("k")) & eq("n", json!(1)), &[]);
        assert_eq!((id.index, &*id.ranges), (None, &[Range { from: b"[k".into(), to: b"[k".into() }][..]));
        assert_eq!(plan(&table, eq("n", json!(1)), &[]).index, None, "not the first column of the index");
        let by_order = plan(&table, Filter::All, &[("status", Direction::Ascending)]);
        assert_eq!((by_order.index, by_order.order), (Some(1), Sorted::Groups(false)));
        let both = plan(&table, eq("status", json!("a")) & eq("n", json!(1)), &[("id", Direction::Ascending)]);
        assert_eq!((both.index, both.order), (Some(1), Sorted::Each(false)));
    }

    #[test]
    fn partitions_are_ranges() {
        let table = jobs(true);
        let p = plan(&table, Filter::eq("p", "a").unwrap(), &[("id", Direction::Descending)]);
        assert_eq!((p.index, p.order, &*p.ranges), (None, Sorted::Each(true), &[prefix(b"a\x01")][..]));
        let two = plan(&table, Filter::is_in("p", ["b", "a"]).unwrap(), &[]);
        assert_eq!((&*two.ranges, two.order), (&[prefix(b"a\x01"), prefix(b"b\x01")][..], Sorted::No));
        let beginning = plan(&table, Filter::starts_with("p", "a").unwrap(), &[]);
        assert_eq!((&*beginning.ranges, beginning.order), (&[prefix(b"a")][..], Sorted::Each(false)));
    }
}
