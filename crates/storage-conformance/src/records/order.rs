//! Orders.

use serde_json::{Value, json};
use storage_core::{ColumnType, ErrorKind, Filter, KeyType, TableSchema};

use super::table::{Table, open_schema};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// Without an order, records come by key: text bytewise, integers by value.
pub async fn by_key_without_an_order(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let keys = ["-", "1", "10", "2", "A", "B", "_", "a", "b", "é", "中", "\u{ffee}", "\u{1F600}"];
    t.put_all(keys.iter().rev().map(|key| (*key, json!({})))).await?;
    assert_eq!(t.keys(t.query()).await?, keys);
    assert_eq!(t.keys(t.query().descending("id")?).await?, keys.iter().rev().map(ToString::to_string).collect::<Vec<_>>());
    Ok(())
}

/// Integer keys sort by value, negative ones first.
pub async fn integer_keys_sort_by_value(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, TableSchema::builder("t").key_of("n", KeyType::Integer).keep_undeclared()).await?;
    let keys = [i64::MIN, -10, -9, -1, 0, 1, 9, 10, 1_000_000_007, i64::MAX];
    t.put_all(keys.iter().rev().map(|key| (*key, json!({})))).await?;
    assert_eq!(t.keys(t.query()).await?, keys.map(|n| n.to_string()));
    let back: Vec<String> = keys.iter().rev().map(ToString::to_string).collect();
    assert_eq!(t.keys(t.query().limit(3).descending("n")?).await?, back);
    Ok(())
}

/// Two-part keys sort by partition, then id.
pub async fn two_part_keys_sort_by_both(h: &dyn Harness) -> CaseResult {
    let schema = TableSchema::builder("t").partition("p", KeyType::Text).key_of("n", KeyType::Integer).keep_undeclared();
    let t = Table::new(h, schema).await?;
    let keys = [("a", -1), ("a", 2), ("a", 10), ("a!", 1), ("b", 0)];
    t.put_all(keys.iter().rev().map(|key| (*key, json!({})))).await?;
    let shown = keys.map(|(p, n)| format!("{p}/{n}"));
    for limit in [1, 2, 10] {
        assert_eq!(t.keys(t.query().limit(limit)).await?, shown);
        assert_eq!(t.keys(t.query().limit(limit).ascending("p")?.ascending("n")?).await?, shown);
    }
    let by_n = ["a/-1", "b/0", "a!/1", "a/2", "a/10"];
    assert_eq!(t.keys(t.query().limit(2).ascending("n")?).await?, by_n);
    Ok(())
}

/// An order by columns, each in its direction; records without a value come first going up and last going down; the key breaks ties.
pub async fn by_columns_with_nulls_and_ties(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("a", ColumnType::Integer).column("b", ColumnType::Text)).await?;
    let rows = [
        ("1", json!(2), json!("x")),
        ("2", Value::Null, json!("x")),
        ("3", json!(1), Value::Null),
        ("4", json!(2), json!("X")),
        ("5", json!(1), json!("x")),
        ("6", Value::Null, Value::Null),
    ];
    t.put_all(rows.iter().map(|(key, a, b)| (*key, json!({"a": a, "b": b})))).await?;
    let cases = [
        (t.query().ascending("a")?, "263514"),
        (t.query().descending("a")?, "143526"),
        (t.query().ascending("a")?.ascending("b")?, "623541"),
        (t.query().descending("a")?.ascending("b")?, "413562"),
        (t.query().ascending("a")?.descending("b")?, "265314"),
        (t.query().descending("b")?.descending("a")?, "152436"),
        (t.query().ascending("b")?.descending("id")?, "634521"),
    ];
    for (query, expected) in cases {
        for limit in [1, 2, 4, 100] {
            assert_eq!(t.keys(query.clone().limit(limit)).await?.concat(), expected, "{:?}, pages of {limit}", query.order);
        }
    }
    Ok(())
}

/// Every type with an order sorts by it, in pages of any size, both ways.
pub async fn every_ordered_type_sorts(h: &dyn Harness) -> CaseResult {
    let columns = [
        (ColumnType::Text, vec![json!("A"), json!("a"), json!("b"), json!("é")]),
        (ColumnType::Integer, vec![json!(i64::MIN), json!(-1), json!(9), json!(10), json!(i64::MAX)]),
        (ColumnType::Real, vec![json!(-1e300), json!(-0.5), json!(0.0), json!(1e-300), json!(1e300)]),
        (ColumnType::Boolean, vec![json!(false), json!(true)]),
        (
            ColumnType::Timestamp,
            vec![json!("0001-01-01T00:00:00Z"), json!("2026-01-01T00:00:00Z"), json!("2026-01-01T00:00:00.000001Z")],
        ),
    ];
    let mut schema = TableSchema::builder("t");
    for (n, (kind, _)) in columns.iter().enumerate() {
        schema = schema.column(format!("c{n}"), *kind);
    }
    let t = Table::new(h, schema).await?;
    for (n, (kind, values)) in columns.iter().enumerate() {
        let column = format!("c{n}");
        let keys: Vec<String> = (0..values.len()).map(|at| format!("{n}-{at}")).collect();
        // Written in another order than they sort in.
        for (key, value) in keys.iter().zip(values).rev() {
            t.put(key.as_str(), json!({ column.as_str(): value })).await?;
        }
        let there = t.query().filter(!Filter::is_null(column.as_str())?).limit(2);
        assert_eq!(t.keys(there.clone().ascending(&column)?).await?, keys, "{kind:?}");
        let back: Vec<String> = keys.into_iter().rev().collect();
        assert_eq!(t.keys(there.descending(&column)?).await?, back, "{kind:?}, descending");
    }
    Ok(())
}

/// An order by a column that is unknown, undeclared or without an order is refused.
pub async fn bad_orders_are_refused(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("j", ColumnType::Json).column("b", ColumnType::Bytes)).await?;
    for column in ["free", "j", "b"] {
        refused(ErrorKind::InvalidInput, t.store.scan(&t.query().ascending(column)?).await);
    }
    Ok(())
}
