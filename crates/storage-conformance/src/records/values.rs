//! Values of every type, large and nested ones, and their limits.

use serde_json::{Value, json};
use storage_core::{ColumnType, ErrorKind, Expect, Filter, fields};

use super::table::{Table, open_schema};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// Every column type keeps its values, in canonical form; an empty text is not null.
pub async fn every_type_comes_back(h: &dyn Harness) -> CaseResult {
    let mut schema = storage_core::TableSchema::builder("t");
    let values = [
        ("text", ColumnType::Text, json!("line\nbreak\ttab \u{7f} \u{1F600} é")),
        ("empty", ColumnType::Text, json!("")),
        ("integer", ColumnType::Integer, json!(-42)),
        ("real", ColumnType::Real, json!(-0.75)),
        ("boolean", ColumnType::Boolean, json!(false)),
        ("timestamp", ColumnType::Timestamp, json!("2026-11-21T09:30:00.123456Z")),
        ("json", ColumnType::Json, json!({"a": [1, 2.5, null, {"b": ""}], "z": false})),
        ("scalar", ColumnType::Json, json!("text in JSON")),
        ("bytes", ColumnType::Bytes, json!("AP8Q")),
    ];
    for (name, kind, _) in &values {
        schema = schema.column(*name, *kind);
    }
    let t = Table::new(h, schema).await?;
    let record: Value = values.iter().map(|(name, _, value)| ((*name).to_owned(), value.clone())).collect();
    t.put("a", record.clone()).await?;
    assert_eq!(t.value("a").await?, record);
    assert_eq!(Value::Object(t.all(t.query()).await?[0].fields.clone()), record);
    assert!(t.matching(Filter::is_null("empty")? | Filter::is_null("boolean")? | Filter::is_null("json")?).await?.is_empty());
    // One after the other is removed, and the others stay.
    for (name, _, _) in &values {
        t.store.update(&t.name, "a", fields(json!({ *name: null })), Expect::Present).await?;
        assert_eq!(t.matching(Filter::is_null(*name)?).await?, ["a"], "{name}");
    }
    assert_eq!(t.value("a").await?, json!({}));
    Ok(())
}

/// A record without fields is a record.
pub async fn an_empty_record(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({})).await?;
    assert_eq!(t.value("a").await?, json!({}));
    assert_eq!(t.matching(Filter::All).await?, ["a"]);
    Ok(())
}

/// A JSON column may hold null inside, an empty array and an empty object; its own null is a missing value.
pub async fn json_nulls(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("j", ColumnType::Json)).await?;
    for (key, value) in [("a", json!([null])), ("b", json!({"x": null})), ("c", json!([])), ("d", json!({})), ("e", json!(""))] {
        let record = json!({"j": value, "free": value});
        t.put(key, record.clone()).await?;
        assert_eq!(t.value(key).await?, record);
    }
    t.put("n", json!({"j": null})).await?;
    assert_eq!(t.matching(Filter::is_null("j")?).await?, ["n"]);
    assert_eq!(t.matching(Filter::is_null("free")?).await?, ["n"]);
    Ok(())
}

/// Values as large as is declared (1 MiB of them are tried) come back whole; what is larger than declared is refused.
pub async fn large_records(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("c", ColumnType::Text)).await?;
    let max = t.capabilities().max_record_bytes;
    let large = "é\"\\".repeat((max.min(1 << 20) - 100) / 6);
    // Quotes and backslashes are two bytes each as JSON.
    t.put("a", json!({"c": large})).await?;
    assert!(t.value("a").await?["c"].as_str() == Some(large.as_str()), "another text came back");
    assert_eq!(t.matching(Filter::contains("c", "é\"\\é")?).await?, ["a"]);
    if max <= 128 << 20 {
        let too_large = "x".repeat(max);
        refused(ErrorKind::InvalidInput, t.put("b", json!({"c": too_large})).await);
        assert_eq!(t.count().await?, 1);
    }
    Ok(())
}

/// JSON of the depth that is allowed comes back; deeper is refused, and does not end the process.
pub async fn deep_json(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("j", ColumnType::Json)).await?;
    let nest = |levels: usize| {
        (1..levels).fold(json!(1), |inner, level| match level % 2 {
            0 => Value::Array(vec![inner]),
            _ => Value::Object([("a".to_owned(), inner)].into_iter().collect()),
        })
    };
    let deep = nest(storage_core::value::MAX_DEPTH);
    t.put("a", json!({"j": deep, "free": deep})).await?;
    assert_eq!(t.value("a").await?, json!({"j": deep, "free": deep}));
    for levels in [storage_core::value::MAX_DEPTH + 1, 1_000] {
        refused(ErrorKind::InvalidInput, t.put("b", json!({"j": nest(levels)})).await);
        refused(ErrorKind::InvalidInput, t.put("b", json!({"free": nest(levels)})).await);
    }
    assert_eq!(t.count().await?, 1);
    Ok(())
}

/// Many fields in one record, declared and not.
pub async fn many_fields(h: &dyn Harness) -> CaseResult {
    let mut schema = open_schema();
    for n in 0..100 {
        schema = schema.column(format!("c{n}"), ColumnType::Integer);
    }
    let t = Table::new(h, schema).await?;
    let record: Value = (0..100).flat_map(|n| [(format!("c{n}"), json!(n)), (format!("f{n}"), json!(n))]).collect();
    t.put("a", record.clone()).await?;
    assert_eq!(t.value("a").await?, record);
    assert_eq!(t.matching(Filter::eq("c99", 99)? & Filter::eq("f0", 0)?).await?, ["a"]);
    Ok(())
}
