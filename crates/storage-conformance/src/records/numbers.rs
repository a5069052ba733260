//! Numbers: kept exactly, compared by value.

use serde_json::{Value, json};
use storage_core::{ColumnType, ErrorKind, Filter, fields};

use super::table::{Table, open_schema};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// Integers at the edges of 64 bits, declared and not, come back exactly.
pub async fn integers_are_exact(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("n", ColumnType::Integer)).await?;
    let edges = [0, 1, -1, i64::MAX, i64::MIN, i64::MAX - 1, (1 << 53) + 1, -(1 << 53) - 1];
    for (at, n) in edges.into_iter().enumerate() {
        let value = json!({"n": n, "free": n});
        t.put(format!("{at}"), value.clone()).await?;
        assert_eq!(t.value(format!("{at}")).await?, value);
        for column in ["n", "free"] {
            assert_eq!(t.matching(Filter::eq(column, n)?).await?, [format!("{at}")], "{column} = {n}");
        }
    }
    Ok(())
}

/// Reals come back bit for bit, declared and not: the smallest, the largest, those that no decimal writes short.
pub async fn reals_are_exact(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("x", ColumnType::Real)).await?;
    let reals = [
        0.1,
        -0.5,
        1.0 / 3.0,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        1e21,
        123_456_789.123_456_79,
        9_007_199_254_740_993.0,
        1.5e-7,
    ];
    for (at, x) in reals.into_iter().enumerate() {
        let key = format!("{at}");
        t.put(key.as_str(), json!({"x": x, "free": x})).await?;
        let read = t.value(key.as_str()).await?;
        for column in ["x", "free"] {
            let back = read[column].as_f64().expect("a number");
            assert_eq!(back.to_bits(), x.to_bits(), "{column}: {x} came back as {back}");
            assert_eq!(t.matching(Filter::eq(column, x)?).await?, std::slice::from_ref(&key), "{column} = {x}");
        }
    }
    Ok(())
}

/// In a real column an integer is a real, and in an integer column a whole real is an integer; what can't be kept exactly is refused.
pub async fn numbers_take_the_columns_kind(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("n", ColumnType::Integer).column("x", ColumnType::Real)).await?;
    t.put("a", json!({"n": 5.0, "x": 5})).await?;
    let read = t.value("a").await?;
    assert!(read["n"].is_i64() && read["x"].is_f64(), "{read}");
    t.put("b", json!({"x": -0.0})).await?;
    assert_eq!(t.value("b").await?["x"].as_f64().map(f64::to_bits), Some(0), "minus zero is zero");
    for bad in [
        json!({"n": 1.5}),
        json!({"n": u64::MAX}),
        json!({"n": 1e300}),
        json!({"x": 9_007_199_254_740_993_i64}),
        json!({"n": "1"}),
        json!({"x": "1"}),
    ] {
        refused(ErrorKind::InvalidInput, t.store.upsert(&t.name, "c", fields(bad)).await);
    }
    assert_eq!(t.count().await?, 2);
    Ok(())
}

/// Integers and reals compare by value, whichever is stored and whichever is asked for, also where a float can't tell them apart.
pub async fn integers_and_reals_compare_by_value(h: &dyn Harness) -> CaseResult {
    const BIG: i64 = 9_007_199_254_740_993; // 2^53 + 1, which no f64 is.
    const BIG_REAL: f64 = 9_007_199_254_740_992.0;
    let t = Table::new(h, open_schema().column("n", ColumnType::Integer).column("x", ColumnType::Real)).await?;
    t.put("1-small", json!({"n": 2, "x": 2.0, "free": 2})).await?;
    t.put("2-half", json!({"x": 2.5, "free": 2.5})).await?;
    t.put("3-three", json!({"n": 3, "x": 3.0, "free": 3.0})).await?;
    t.put("4-below", json!({"n": BIG - 1, "x": BIG_REAL, "free": BIG_REAL})).await?;
    t.put("5-big", json!({"n": BIG, "free": BIG})).await?;
    t.put("6-max", json!({"n": i64::MAX, "free": i64::MAX})).await?;
    t.put("7-huge", json!({"x": 9_223_372_036_854_775_808.0, "free": 9_223_372_036_854_775_808.0})).await?;
    let cases: Vec<(Filter, &[&str])> = vec![
        (Filter::gt("n", 2.5)?, &["3-three", "4-below", "5-big", "6-max"]),
        (Filter::eq("n", 3.0)?, &["3-three"]),
        (Filter::eq("n", 2.5)?, &[]),
        (Filter::eq("x", 3)?, &["3-three"]),
        (Filter::lt("x", 3)?, &["1-small", "2-half"]),
        (Filter::eq("n", BIG_REAL)?, &["4-below"]),
        (Filter::gt("n", BIG_REAL)?, &["5-big", "6-max"]),
        (Filter::eq("x", BIG)?, &[]),
        (Filter::lt("x", BIG)?, &["1-small", "2-half", "3-three", "4-below"]),
        (Filter::ge("x", BIG)?, &["7-huge"]),
        (Filter::lt("n", 9_223_372_036_854_775_808.0)?, &["1-small", "3-three", "4-below", "5-big", "6-max"]),
        (Filter::eq("n", 9_223_372_036_854_775_808.0)?, &[]),
        (Filter::ge("n", -1e300)?, &["1-small", "3-three", "4-below", "5-big", "6-max"]),
        (Filter::gt("x", i64::MAX)?, &["7-huge"]),
        (Filter::eq("free", 3)?, &["3-three"]),
        (Filter::eq("free", 2.0)?, &["1-small"]),
        (Filter::eq("free", BIG)?, &["5-big"]),
        (Filter::eq("free", BIG_REAL)?, &["4-below"]),
        (Filter::gt("free", BIG_REAL)?, &["5-big", "6-max", "7-huge"]),
        (Filter::gt("free", i64::MAX)?, &["7-huge"]),
        (Filter::is_in("n", [json!(2.0), json!(BIG_REAL), json!(2.5)])?, &["1-small", "4-below"]),
        (Filter::is_in("free", [json!(2.0), json!(BIG), json!(2.5)])?, &["1-small", "2-half", "5-big"]),
        (Filter::ne("n", 3.0)? & Filter::ge("n", 0)?, &["1-small", "4-below", "5-big", "6-max"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(t.matching(filter.clone()).await?, expected, "{filter:?}");
    }
    Ok(())
}

/// Numbers inside JSON columns and undeclared fields keep their kind: 1 stays 1 and 1.0 stays 1.0.
pub async fn json_keeps_the_kind_of_numbers(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("j", ColumnType::Json)).await?;
    let value = json!({"j": [1, 1.0, -0.5, 1e300, u64::MAX, i64::MIN], "free": {"a": 1.0, "b": 1}});
    t.put("a", value.clone()).await?;
    let read = t.value("a").await?;
    assert_eq!(read, value);
    assert!(read["j"][0].is_i64() && read["j"][1].is_f64() && read["free"]["a"].is_f64(), "{read}");
    assert_eq!(t.store.update(&t.name, "a", fields(json!({"j": null})), storage_core::Expect::Present).await?.0, 2);
    assert_eq!(t.value("a").await?.get("j"), None::<&Value>);
    Ok(())
}
