//! Odd keys, tables, columns and fields.

use std::collections::BTreeSet;

use serde_json::json;
use storage_core::{ColumnType, ErrorKind, Filter, KeyType, TableName, TableSchema, fields};

use super::table::{Table, open_schema};
use crate::check::refused;
use crate::opened::Opened;
use crate::{CaseResult, Flavor, Harness, names};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// Odd keys, with slashes and dots too.
fn keys() -> Vec<String> {
    let mut keys = names::odd();
    keys.extend(
        ["/", "a/b", "/a", "a/", "a//b", ".", "..", "../x", "../../etc/passwd", "a/../b", "C:\\x", "\\\\server\\x", "~", "."]
            .map(str::to_owned),
    );
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Of so many values, one is asked for where queries are dear.
const SOME: usize = 32;

/// Every key is a record of its own, whatever characters it has: it is written, read, found, changed and removed under it, and no other.
pub async fn odd_keys(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let keys = keys();
    for (n, key) in keys.iter().enumerate() {
        t.put_if(key.as_str(), json!({"n": n}), storage_core::Expect::Absent).await?;
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(t.value(key.as_str()).await?, json!({"n": n}), "{key:?}");
        if asks(h, n) {
            assert_eq!(t.matching(Filter::eq("id", key.as_str())?).await?, std::slice::from_ref(key));
        }
    }
    assert_eq!(t.keys(t.query().limit(7)).await?, keys, "in bytewise order");
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
        assert!(t.delete(key.as_str()).await?, "{key:?}");
        if asks(h, n) {
            assert_eq!(t.count().await?, (keys.len() - n / 2 - 1) as u64, "after the delete of {key:?}");
        }
    }
    assert_eq!(t.count().await?, (keys.len() / 2) as u64);
    Ok(())
}

fn asks(h: &dyn Harness, n: usize) -> bool {
    !h.few_queries() || n.is_multiple_of(SOME)
}

/// Keys that differ in letter case alone are different, and come in bytewise order.
pub async fn keys_that_differ_in_case(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    for key in ["a", "A", "ab", "aB", "Ab", "AB"] {
        t.put(key, json!({"is": key})).await?;
    }
    assert_eq!(t.value("aB").await?, json!({"is": "aB"}));
    assert!(t.delete("A").await?);
    assert_eq!(t.keys(t.query()).await?, ["AB", "Ab", "a", "aB", "ab"]);
    assert_eq!(t.matching(Filter::starts_with("id", "A")?).await?, ["AB", "Ab"]);
    Ok(())
}

/// Keys of up to 512 bytes, in one part and in two, that differ in the last byte alone.
pub async fn long_keys(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let long = |end: char| format!("{}{end}", "k".repeat(storage_core::MAX_KEY_LEN - 1));
    let wide = "é".repeat(storage_core::MAX_KEY_LEN / 2);
    for key in [long('a'), long('b'), wide.clone(), "k".repeat(500)] {
        t.put(key.as_str(), json!({"is": &key})).await?;
    }
    assert_eq!(t.value(long('b')).await?, json!({"is": long('b')}));
    assert_eq!(t.keys(t.query().limit(1)).await?, ["k".repeat(500), long('a'), long('b'), wide]);
    for bad in ["x".repeat(513), String::new(), "a\nb".to_owned(), "a\u{0}".to_owned(), "\u{7f}".to_owned()] {
        refused(ErrorKind::InvalidInput, t.put(bad.as_str(), json!({})).await);
        refused(ErrorKind::InvalidInput, t.get(bad.as_str()).await);
    }
    let two = TableSchema::builder("two").partition("p", KeyType::Text).keep_undeclared().build()?;
    t.store.create_table(&two).await?;
    t.store.upsert(&two.name, (long('p'), long('i')), fields(json!({"n": 1}))).await?;
    t.store.upsert(&two.name, (long('p'), long('j')), fields(json!({"n": 2}))).await?;
    assert_eq!(t.store.get(&two.name, (long('p'), long('i'))).await?.expect("a record").fields, fields(json!({"n": 1})));
    Ok(())
}

/// Integer keys at the edges of 64 bits are keys, and no text that looks the same is one of them.
pub async fn integer_keys(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, TableSchema::builder("t").key_of("n", KeyType::Integer).keep_undeclared()).await?;
    for key in [i64::MIN, -1, 0, 1, (1 << 53) + 1, i64::MAX] {
        t.put(key, json!({"is": key})).await?;
    }
    assert_eq!(t.value(i64::MAX).await?, json!({"is": i64::MAX}));
    assert_eq!(t.value((1 << 53) + 1).await?, json!({"is": (1_i64 << 53) + 1}));
    assert_eq!(t.get(1 << 53).await?, None);
    assert_eq!(t.matching(Filter::lt("n", 0)?).await?, [i64::MIN.to_string(), "-1".to_owned()]);
    refused(ErrorKind::InvalidInput, t.get("1").await);
    Ok(())
}

/// Tables and columns may be named like words of SQL, have dashes and 63 characters, and differ in nothing but a dash.
pub async fn odd_tables_and_columns(h: &dyn Harness) -> CaseResult {
    let opened = Opened::fresh(h).await?;
    let store = opened.records();
    let long = "t".repeat(63);
    let names = ["select", "Order", "group", "a-b", "a_b", "ab", "_x", "user", "index", "CON", "null", long.as_str()];
    for (n, name) in names.iter().enumerate() {
        let schema = TableSchema::builder(*name)
            .key("primary")
            .column("from", ColumnType::Text)
            .column("where-to", ColumnType::Integer)
            .column("where_to", ColumnType::Integer)
            .column("version", ColumnType::Text)
            .column("fields", ColumnType::Integer)
            .column("rowid", ColumnType::Integer)
            .column(long.as_str(), ColumnType::Boolean)
            .index("select", ["from", "where-to"])
            .build()?;
        assert!(store.create_table(&schema).await?, "{name}");
        let value =
            json!({"from": name, "where-to": n, "where_to": -1, "version": "v", "fields": 2, "rowid": 3, long.as_str(): true});
        store.upsert(&schema.name, "k", fields(value)).await?;
    }
    for (n, name) in names.iter().enumerate() {
        let table: TableName = name.parse()?;
        let record = store.get(&table, "k").await?.expect("a record");
        assert_eq!((&record.fields["from"], &record.fields["rowid"], record.version.0), (&json!(name), &json!(3), 1));
        let filter =
            Filter::eq("where-to", n)? & Filter::eq("version", "v")? & Filter::eq(long.as_str(), true)? & Filter::eq("rowid", 3)?;
        let query = storage_core::Query::table(table)?.filter(filter).descending("where_to")?.ascending("primary")?;
        assert_eq!(store.scan(&query).await?.records.len(), 1, "{name}");
    }
    let found: BTreeSet<String> = store.tables().await?.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(found, names.iter().map(ToString::to_string).collect());
    Ok(())
}

/// Fields outside the schema may have any names, and can be filtered on where the name is one of a column.
pub async fn odd_fields(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("declared", ColumnType::Integer)).await?;
    let odd: Vec<String> = keys().into_iter().filter(|name| name.len() <= 255).collect();
    let all: serde_json::Map<_, _> = odd.iter().enumerate().map(|(n, name)| (name.clone(), json!(n))).collect();
    t.store.upsert(&t.name, "a", all.clone()).await?;
    assert_eq!(t.get("a").await?.expect("a record").fields, all);
    for name in ["plain", "UPPER", "upper", "under_score", "_", "null"] {
        let n = odd.iter().position(|odd| odd == name).expect("one of them");
        assert_eq!(t.matching(Filter::eq(name, n)?).await?, ["a"], "{name}");
        assert!(t.matching(Filter::is_null(name)?).await?.is_empty());
    }
    // Nothing is merged into what merely looks alike.
    t.store.update(&t.name, "a", fields(json!({"UPPER": null})), storage_core::Expect::Present).await?;
    assert_eq!(t.matching(Filter::is_null("UPPER")? & !Filter::is_null("upper")? & !Filter::is_null("Upper")?).await?, ["a"]);
    refused(ErrorKind::InvalidInput, t.put("b", json!({"a\nb": 1})).await);
    refused(ErrorKind::InvalidInput, t.put("b", json!({"": 1})).await);
    Ok(())
}

/// Values are values: nothing in them is taken for SQL, a path, a format or a wildcard.
pub async fn odd_values(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("c", ColumnType::Text)).await?;
    let values = keys();
    t.put_all(values.iter().enumerate().map(|(n, value)| (format!("{n:03}"), json!({"c": value, "free": value})))).await?;
    for (n, value) in values.iter().enumerate().filter(|(n, _)| asks(h, *n)) {
        for column in ["c", "free"] {
            assert_eq!(t.matching(Filter::eq(column, value.as_str())?).await?, [format!("{n:03}")], "{column} = {value:?}");
        }
        let contains = t.matching(Filter::contains("c", value.as_str())?).await?;
        let expected = values.iter().enumerate().filter(|(_, other)| other.contains(value.as_str()));
        assert_eq!(contains, expected.map(|(n, _)| format!("{n:03}")).collect::<Vec<_>>(), "contains {value:?}");
    }
    assert_eq!(t.count().await?, values.len() as u64);
    Ok(())
}
