//! Random filters over random records, answered by a backend and by the memory backend.

use futures::TryStreamExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use storage_core::{
    ColumnName, ColumnType, Direction, Fields, Filter, Key, KeyType, Order, Query, RecordStore, Result, TableSchema,
};
use storage_memory::MemoryStore;

use super::side::words;
use crate::Harness;

/// How many records there are.
const RECORDS: usize = 240;

/// The columns, and a field outside the schema.
const COLUMNS: [&str; 8] = ["n", "x", "s", "b", "at", "free", "id", "p"];

fn schema() -> Result<TableSchema> {
    TableSchema::builder("filtered")
        .partition("p", KeyType::Text)
        .column("n", ColumnType::Integer)
        .column("x", ColumnType::Real)
        .column("s", ColumnType::Text)
        .column("b", ColumnType::Boolean)
        .column("at", ColumnType::Timestamp)
        .keep_undeclared()
        .build()
}

fn text() -> impl Strategy<Value = String> {
    let parts =
        vec!["", "a", "A", "b", "ab", "%", "_", "'", "''", "/", "\\", "#", "?", ".", "~", " ", "ä", "1", "\u{ffee}", "\u{1F600}"];
    vec(prop::sample::select(parts), 0..4).prop_map(|parts| parts.concat())
}

fn key() -> impl Strategy<Value = String> {
    text().prop_map(|text| if text.is_empty() { "k".to_owned() } else { text })
}

fn integer() -> impl Strategy<Value = Value> {
    let edges = vec![i64::MIN, -9_007_199_254_740_993, -10, -9, 99, 100, 9_007_199_254_740_993, i64::MAX];
    prop_oneof![3 => -3..4_i64, 1 => prop::sample::select(edges)].prop_map(Value::from)
}

fn real() -> impl Strategy<Value = Value> {
    let edges = vec![-1e300, -1e-7, 1e-7, 9_007_199_254_740_992.0, 9_223_372_036_854_775_808.0, 1e300];
    prop_oneof![3 => (-6..7_i32).prop_map(|n| f64::from(n) / 2.0), 1 => prop::sample::select(edges)].prop_map(Value::from)
}

fn time() -> impl Strategy<Value = Value> {
    let edges = vec![
        "0001-01-01T00:00:00Z",
        "1600-12-31T23:59:59.999999Z",
        "1601-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
    ];
    let close = (0..3_000_u32).prop_map(|micros| format!("2026-11-27T12:00:00.{micros:06}Z"));
    prop_oneof![3 => close, 2 => prop::sample::select(edges).prop_map(str::to_owned)].prop_map(Value::from)
}

/// A value for a column; one of another type now and then where `odd`.
fn value(column: &'static str, odd: bool) -> BoxedStrategy<Value> {
    let fitting = match column {
        "n" => integer().boxed(),
        "x" => real().boxed(),
        "b" => any::<bool>().prop_map(Value::from).boxed(),
        "at" => time().boxed(),
        "free" => prop_oneof![integer(), real(), text().prop_map(Value::from), any::<bool>().prop_map(Value::from)].boxed(),
        "id" | "p" => key().prop_map(Value::from).boxed(),
        _ => text().prop_map(Value::from).boxed(),
    };
    let another = prop_oneof![integer(), real(), text().prop_map(Value::from), Just(Value::Null)];
    if odd { prop_oneof![12 => fitting, 1 => another].boxed() } else { fitting }
}

fn record() -> impl Strategy<Value = (Key, Fields)> {
    let field = |name: &'static str| {
        proptest::option::weighted(0.75, value(name, false)).prop_map(move |v| v.map(|v| (name.to_owned(), v)))
    };
    let fields = (field("n"), field("x"), field("s"), field("b"), field("at"), field("free"));
    let partition = prop::sample::select(vec!["p", "P", "a/b", "ü", "\u{ffee}", "\u{1F600}"]);
    (partition, key(), fields).prop_map(|(partition, id, (n, x, s, b, at, free))| {
        (Key::partitioned(partition, id), [n, x, s, b, at, free].into_iter().flatten().collect())
    })
}

fn leaf() -> impl Strategy<Value = Filter> {
    prop::sample::select(COLUMNS.to_vec()).prop_flat_map(|column| {
        let name = move || ColumnName::new(column).expect("a good name");
        let value = move || value(column, true);
        prop_oneof![
            3 => value().prop_map(move |v| Filter::Eq(name(), v)),
            1 => value().prop_map(move |v| Filter::Ne(name(), v)),
            2 => value().prop_map(move |v| Filter::Lt(name(), v)),
            2 => value().prop_map(move |v| Filter::Le(name(), v)),
            2 => value().prop_map(move |v| Filter::Gt(name(), v)),
            2 => value().prop_map(move |v| Filter::Ge(name(), v)),
            2 => vec(value(), 0..5).prop_map(move |v| Filter::In(name(), v)),
            1 => text().prop_map(move |t| Filter::StartsWith(name(), t)),
            1 => text().prop_map(move |t| Filter::Contains(name(), t)),
            1 => Just(Filter::IsNull(name())),
        ]
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    leaf().prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            2 => vec(inner.clone(), 0..4).prop_map(Filter::And),
            2 => vec(inner.clone(), 0..4).prop_map(Filter::Or),
            1 => inner.prop_map(|filter| !filter),
        ]
    })
}

fn query() -> impl Strategy<Value = Query> {
    let direction = prop_oneof![Just(Direction::Ascending), Just(Direction::Descending)];
    let column =
        prop::sample::select(vec!["n", "x", "s", "b", "at", "id", "p"]).prop_map(|c| ColumnName::new(c).expect("a good name"));
    let order = (column, direction).prop_map(|(column, direction)| Order { column, direction });
    let orders = prop_oneof![3 => Just(Vec::new()), 1 => vec(order, 1..3)];
    (filter(), orders, prop_oneof![2 => Just(1_000_u32), 1 => 7..90_u32]).prop_map(|(filter, order, limit)| Query {
        table: "filtered".parse().expect("a good name"),
        filter,
        order,
        limit,
        after: None,
        stale: false,
    })
}

/// What a store answers, and how many records those are.
async fn answer(store: &RecordStore, query: &Query) -> (String, usize) {
    let count = words(store.count(query).await.map(|n| n.to_string()));
    let records: Result<Vec<_>> = store.stream(query.clone()).try_collect().await;
    let found = records.as_ref().map_or(0, Vec::len);
    let listed =
        |records: Vec<storage_core::Record>| records.iter().map(|r| format!("{} {}; ", r.key, json!(r.fields))).collect();
    (format!("{count}: {}", words(records.map(listed))), found)
}

/// Fills both with the same records.
async fn fill(stores: [&RecordStore; 2], runner: &mut TestRunner) -> Result<()> {
    let schema = schema()?;
    for store in stores {
        store.create_table(&schema).await?;
    }
    for _ in 0..RECORDS {
        let (key, fields) = record().new_tree(runner).expect("a record").current();
        for store in stores {
            store.upsert(&schema.name, key.clone(), fields.clone()).await?;
        }
    }
    Ok(())
}

/// As many random queries as `filters` says, derived from `seed`.
pub(super) async fn compare(harness: &dyn Harness, filters: usize, runner: &mut TestRunner) -> Result<(), String> {
    let place = harness.place().await.map_err(|e| e.to_string())?;
    let backends = harness.open(&place.config).await.map_err(|e| e.to_string())?;
    let theirs = crate::opened::records(&backends);
    let model = crate::opened::records(&MemoryStore::new().backends());
    fill([&theirs, &model], runner).await.map_err(|e| e.to_string())?;
    let (mut refused, mut some) = (0, 0);
    for n in 0..filters {
        let query = query().new_tree(runner).expect("a query").current();
        let (expected, found) = answer(&model, &query).await;
        let (theirs, _) = answer(&theirs, &query).await;
        if theirs != expected {
            return Err(format!("query {n}, {query:?}\n  model:   {expected}\n  backend: {theirs}"));
        }
        refused += usize::from(expected.starts_with("InvalidInput"));
        some += usize::from(found > 0 && found < RECORDS / 2);
    }
    // Else it would compare refusals, or all with all.
    if refused > filters / 2 || some < filters / 5 {
        return Err(format!(
            "of {filters} queries {refused} were refused, and {some} found some of the records: they say little"
        ));
    }
    Ok(())
}
