//! Filters: the same answer on every backend.

use serde_json::{Value, json};
use storage_core::{ColumnType, ErrorKind, Filter, KeyType, TableSchema};

use super::table::{Table, open_schema};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A table with a declared and an undeclared copy of the same values: `c` and `free`. A row without a value has neither field.
async fn both_ways<'h>(h: &'h dyn Harness, kind: ColumnType, rows: &[(&str, Value)]) -> storage_core::Result<Table<'h>> {
    let t = Table::new(h, open_schema().column("c", kind)).await?;
    let fields = |value: &Value| if value.is_null() { json!({"other": 1}) } else { json!({"c": value, "free": value}) };
    t.put_all(rows.iter().map(|(key, value)| (*key, fields(value)))).await?;
    Ok(t)
}

/// A filter by column and literal.
type Make = fn(&'static str, Value) -> storage_core::Result<Filter>;

/// Holds the filters against the keys that they mean, for the declared and the undeclared column, and their opposites against all others.
async fn hold(t: &Table<'_>, cases: Vec<(Make, Value, &str)>) -> CaseResult {
    let everything = t.matching(Filter::All).await?;
    for (filter, literal, expected) in cases {
        for column in ["c", "free"] {
            let filter = filter(column, literal.clone())?;
            let expected: Vec<String> = expected.chars().map(String::from).collect();
            assert_eq!(t.matching(filter.clone()).await?, expected, "{filter:?}");
            let others: Vec<String> = everything.iter().filter(|key| !expected.contains(key)).cloned().collect();
            assert_eq!(t.matching(!filter.clone()).await?, others, "not {filter:?}");
        }
    }
    Ok(())
}

fn starts_with(column: &'static str, text: Value) -> storage_core::Result<Filter> {
    Filter::starts_with(column, text.as_str().unwrap_or_default())
}

fn contains(column: &'static str, text: Value) -> storage_core::Result<Filter> {
    Filter::contains(column, text.as_str().unwrap_or_default())
}

fn is_in(column: &'static str, values: Value) -> storage_core::Result<Filter> {
    Filter::is_in(column, values.as_array().cloned().unwrap_or_default())
}

/// Null and missing in every operator: a missing field is null, `ne` is exactly not-`eq`, an ordering against null is false.
pub async fn null_in_every_operator(h: &dyn Harness) -> CaseResult {
    let rows = [("a", json!(1)), ("b", json!(2)), ("c", json!(3)), ("n", Value::Null)];
    let t = both_ways(h, ColumnType::Integer, &rows).await?;
    hold(
        &t,
        vec![
            (Filter::eq, json!(2), "b"),
            (Filter::ne, json!(2), "acn"),
            (Filter::lt, json!(2), "a"),
            (Filter::le, json!(2), "ab"),
            (Filter::gt, json!(2), "c"),
            (Filter::ge, json!(2), "bc"),
            (Filter::eq, Value::Null, "n"),
            (Filter::ne, Value::Null, "abc"),
            (Filter::lt, Value::Null, ""),
            (Filter::le, Value::Null, ""),
            (Filter::gt, Value::Null, ""),
            (Filter::ge, Value::Null, ""),
            (is_in, json!([1, 3]), "ac"),
            (is_in, json!([1, null]), "an"),
            (is_in, json!([null]), "n"),
            (is_in, json!([]), ""),
            (|column, _| Filter::is_null(column), Value::Null, "n"),
        ],
    )
    .await
}

/// A put with an explicit null stores nothing: the field is missing, as if it had not been named.
pub async fn an_explicit_null_is_missing(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("c", ColumnType::Text)).await?;
    t.put("a", json!({"c": null, "free": null})).await?;
    assert_eq!(t.value("a").await?, json!({}));
    for column in ["c", "free"] {
        assert_eq!(t.matching(Filter::is_null(column)?).await?, ["a"]);
        assert_eq!(t.matching(Filter::ne(column, "x")?).await?, ["a"]);
    }
    Ok(())
}

/// Text compares bytewise and with regard to case; `%`, `_`, `*`, `?`, quotes and backslashes are ordinary characters.
pub async fn text_is_literal(h: &dyn Harness) -> CaseResult {
    let rows = [
        ("a", json!("50% off")),
        ("b", json!("500 off")),
        ("c", json!("a_b")),
        ("d", json!("axb")),
        ("e", json!("A_B")),
        ("f", json!("it's [a-z]*?")),
        ("g", json!("back\\slash")),
        ("h", json!("")),
        ("n", Value::Null),
    ];
    let t = both_ways(h, ColumnType::Text, &rows).await?;
    hold(
        &t,
        vec![
            (contains, json!("50%"), "a"),
            (contains, json!("0 "), "b"),
            (contains, json!("a_b"), "c"),
            (contains, json!("_"), "ce"),
            (contains, json!("%"), "a"),
            (contains, json!("\\"), "g"),
            (contains, json!("'s [a-z]*?"), "f"),
            (contains, json!("?"), "f"),
            (contains, json!("OFF"), ""),
            (contains, json!(""), "abcdefgh"),
            (starts_with, json!("50%"), "a"),
            (starts_with, json!("50"), "ab"),
            (starts_with, json!("a_"), "c"),
            (starts_with, json!("a"), "cd"),
            (starts_with, json!("A"), "e"),
            (starts_with, json!("%"), ""),
            (starts_with, json!("back\\"), "g"),
            (starts_with, json!(""), "abcdefgh"),
            (Filter::eq, json!("a_b"), "c"),
            (Filter::eq, json!("A_b"), ""),
            (Filter::eq, json!(""), "h"),
            (Filter::ne, json!("a_b"), "abdefghn"),
        ],
    )
    .await
}

/// Text sorts and compares by its bytes in UTF-8, not by any language's order.
pub async fn text_order_is_bytewise(h: &dyn Harness) -> CaseResult {
    // In bytewise order. A language's order would mix the cases and put `é` behind `e`; UTF-16 would put the last before the one before it.
    let texts =
        ["", " ", "-", "0", "10", "9", "A", "Z", "_", "a", "aa", "ab", "b", "e", "z", "ß", "é", "中", "\u{ffee}", "\u{1F600}"];
    let keys: Vec<String> = (0..texts.len()).map(|n| format!("{n:02}")).collect();
    let t = Table::new(h, open_schema().column("c", ColumnType::Text)).await?;
    t.put_all(keys.iter().zip(texts).map(|(key, text)| (key.as_str(), json!({"c": text, "free": text})))).await?;
    assert_eq!(t.keys(t.query().ascending("c")?).await?, keys);
    for (n, text) in texts.iter().enumerate() {
        for column in ["c", "free"] {
            assert_eq!(t.matching(Filter::lt(column, *text)?).await?, keys[..n], "{column} < {text:?}");
            assert_eq!(t.matching(Filter::ge(column, *text)?).await?, keys[n..], "{column} >= {text:?}");
            assert_eq!(t.matching(Filter::eq(column, *text)?).await?, [keys[n].clone()], "{column} = {text:?}");
        }
    }
    Ok(())
}

/// Booleans compare: false before true.
pub async fn booleans(h: &dyn Harness) -> CaseResult {
    let t = both_ways(h, ColumnType::Boolean, &[("f", json!(false)), ("n", Value::Null), ("t", json!(true))]).await?;
    hold(
        &t,
        vec![
            (Filter::eq, json!(true), "t"),
            (Filter::eq, json!(false), "f"),
            (Filter::ne, json!(true), "fn"),
            (Filter::lt, json!(true), "f"),
            (Filter::ge, json!(false), "ft"),
            (is_in, json!([true, false]), "ft"),
        ],
    )
    .await
}

/// Timestamps are moments: the same one written with another offset or precision is equal, and order is time.
pub async fn timestamps(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("at", ColumnType::Timestamp)).await?;
    t.put("a", json!({"at": "2026-01-01T00:30:00+02:00"})).await?;
    t.put("b", json!({"at": "2025-12-31T22:30:00.000001Z"})).await?;
    t.put("c", json!({"at": "0001-01-01T00:00:00Z"})).await?;
    t.put("d", json!({"at": "9999-12-31T23:59:59.999999Z"})).await?;
    t.put("n", json!({})).await?;
    assert_eq!(t.value("a").await?, json!({"at": "2025-12-31T22:30:00.000000Z"}));
    assert_eq!(t.value("d").await?, json!({"at": "9999-12-31T23:59:59.999999Z"}));
    assert_eq!(t.matching(Filter::eq("at", "2025-12-31T17:30:00-05:00")?).await?, ["a"]);
    assert_eq!(t.matching(Filter::gt("at", "2025-12-31T22:30:00Z")?).await?, ["b", "d"]);
    assert_eq!(t.matching(Filter::lt("at", "2025-12-31")?).await?, ["c"]);
    assert_eq!(t.keys(t.query().ascending("at")?).await?, ["n", "c", "a", "b", "d"]);
    Ok(())
}

/// Bytes compare for equality.
pub async fn bytes(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, TableSchema::builder("t").column("b", ColumnType::Bytes)).await?;
    t.put("a", json!({"b": "AAEC/w=="})).await?;
    t.put("b", json!({"b": ""})).await?;
    t.put("n", json!({})).await?;
    assert_eq!(t.value("a").await?, json!({"b": "AAEC/w=="}));
    assert_eq!(t.matching(Filter::eq("b", "AAEC/w==")?).await?, ["a"]);
    assert_eq!(t.matching(Filter::eq("b", "")?).await?, ["b"]);
    assert_eq!(t.matching(Filter::ne("b", "AAEC/w==")?).await?, ["b", "n"]);
    assert_eq!(t.matching(Filter::is_in("b", ["", "AAEC/w=="])?).await?, ["a", "b"]);
    Ok(())
}

/// And, or, not, nested, and of nothing: `and` of none is everything, `or` of none is nothing.
pub async fn combinations(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put_all((0..8).map(|n| (format!("{n}"), json!({"n": n, "even": n % 2 == 0})))).await?;
    let (even, small, large) = (Filter::eq("even", true)?, Filter::lt("n", 3)?, Filter::gt("n", 5)?);
    let cases = [
        (even.clone() & small.clone(), "02"),
        (even.clone() & (small.clone() | large.clone()), "026"),
        (!even.clone() & !(small.clone() | large.clone()), "35"),
        ((even.clone() & small.clone()) | (!even.clone() & large.clone()), "027"),
        (!!even.clone(), "0246"),
        (Filter::And(vec![]), "01234567"),
        (Filter::Or(vec![]), ""),
        (!Filter::All, ""),
        (even.clone() & Filter::Or(vec![]), ""),
        (Filter::Or(vec![Filter::All, small.clone()]), "01234567"),
        (small & large, ""),
        (even & Filter::is_in("n", 2..=5)?, "24"),
    ];
    for (filter, expected) in cases {
        assert_eq!(t.matching(filter.clone()).await?.concat(), expected, "{filter:?}");
    }
    Ok(())
}

/// Values of different types are neither equal nor ordered: text is no number, a number no boolean.
pub async fn types_do_not_mix(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("i", json!({"v": 1})).await?;
    t.put("s", json!({"v": "1"})).await?;
    t.put("t", json!({"v": true})).await?;
    t.put("l", json!({"v": [1]})).await?;
    t.put("o", json!({"v": {"v": 1}})).await?;
    t.put("z", json!({})).await?;
    assert_eq!(t.matching(Filter::eq("v", 1)?).await?, ["i"]);
    assert_eq!(t.matching(Filter::eq("v", "1")?).await?, ["s"]);
    assert_eq!(t.matching(Filter::eq("v", true)?).await?, ["t"]);
    assert_eq!(t.matching(Filter::ne("v", 1)?).await?, ["l", "o", "s", "t", "z"]);
    assert_eq!(t.matching(Filter::ge("v", 0)?).await?, ["i"]);
    assert_eq!(t.matching(Filter::ge("v", "")?).await?, ["s"]);
    assert_eq!(t.matching(Filter::le("v", true)?).await?, ["t"]);
    assert_eq!(t.matching(Filter::contains("v", "1")?).await?, ["s"]);
    assert_eq!(t.matching(Filter::is_null("v")?).await?, ["z"]);
    Ok(())
}

/// Key columns can be filtered as any other, each part by itself.
pub async fn key_columns(h: &dyn Harness) -> CaseResult {
    let schema = TableSchema::builder("t").partition("tenant", KeyType::Text).key_of("n", KeyType::Integer).keep_undeclared();
    let t = Table::new(h, schema).await?;
    t.put_all(["acme", "Acme", "acme%"].iter().flat_map(|tenant| (1..=3).map(move |n| ((*tenant, n), json!({"v": n}))))).await?;
    assert_eq!(t.matching(Filter::eq("tenant", "acme")?).await?, ["acme/1", "acme/2", "acme/3"]);
    assert_eq!(t.matching(Filter::starts_with("tenant", "acme%")? & Filter::ge("n", 3)?).await?, ["acme%/3"]);
    assert_eq!(
        t.matching(Filter::ne("n", 2)? & Filter::ne("tenant", "acme")?).await?,
        ["Acme/1", "Acme/3", "acme%/1", "acme%/3"]
    );
    assert_eq!(t.matching(Filter::lt("n", 1.5)? & Filter::eq("v", 1)?).await?, ["Acme/1", "acme/1", "acme%/1"]);
    assert!(t.matching(Filter::is_null("tenant")? | Filter::is_null("n")?).await?.is_empty());
    Ok(())
}

/// Filters that don't fit the schema are refused, with the column in the message.
pub async fn bad_filters_are_refused(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, TableSchema::builder("t").column("n", ColumnType::Integer).column("j", ColumnType::Json)).await?;
    for (filter, column) in [
        (Filter::eq("m", 1)?, "m"),
        (Filter::eq("n", "x")?, "n"),
        (Filter::contains("n", "1")?, "n"),
        (Filter::eq("j", 1)?, "j"),
        (Filter::lt("j", 1)?, "j"),
        (Filter::eq("id", 1)?, "id"),
    ] {
        let query = t.query().filter(filter);
        for error in [
            refused(ErrorKind::InvalidInput, t.store.scan(&query).await),
            refused(ErrorKind::InvalidInput, t.store.count(&query).await),
        ] {
            assert!(
                error.message().contains(&format!("`{column}`")) || error.message().contains(&format!("\"{column}\"")),
                "{error}"
            );
        }
    }
    Ok(())
}
