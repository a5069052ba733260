use serde_json::json;

use super::*;
use crate::ErrorKind;

fn parse(text: &str) -> Filter {
    Filter::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn message(text: &str) -> String {
    let error = match Filter::parse(text) {
        Err(error) => error,
        Ok(filter) => panic!("{text:.100} was read as {filter:?}"),
    };
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:.100}");
    error.message().to_owned()
}

fn eq(column: &str, value: impl Into<Value>) -> Filter {
    Filter::eq(column, value).unwrap()
}

#[test]
fn comparisons() {
    assert_eq!(parse("a = 'x'"), eq("a", "x"));
    assert_eq!(parse("a != 1"), Filter::ne("a", 1).unwrap());
    assert_eq!(parse("a <> 1"), Filter::ne("a", 1).unwrap());
    assert_eq!(parse("a < 1"), Filter::lt("a", 1).unwrap());
    assert_eq!(parse("a<=1"), Filter::le("a", 1).unwrap());
    assert_eq!(parse("a > 1"), Filter::gt("a", 1).unwrap());
    assert_eq!(parse("a >= 1"), Filter::ge("a", 1).unwrap());
    assert_eq!(parse("1 < a"), Filter::gt("a", 1).unwrap());
    assert_eq!(parse("1 >= a"), Filter::le("a", 1).unwrap());
    assert_eq!(parse("'x' = a"), eq("a", "x"));
}

#[test]
fn values_are_exact() {
    assert_eq!(parse("a = 'it''s'"), eq("a", "it's"));
    assert_eq!(parse(r"a = 'back\slash'"), eq("a", r"back\slash"));
    assert_eq!(parse("a = ''"), eq("a", ""));
    assert_eq!(parse("a = 'ü % _'"), eq("a", "ü % _"));
    assert_eq!(parse("a = -5"), eq("a", -5));
    assert_eq!(parse("a = 9223372036854775807"), eq("a", i64::MAX));
    assert_eq!(parse("a = -9223372036854775808"), eq("a", i64::MIN));
    assert_eq!(parse("a = 9223372036854775808"), eq("a", 9_223_372_036_854_775_808_u64));
    assert_eq!(parse("a = 1.5"), eq("a", 1.5));
    assert_eq!(parse("a = -1e-3"), eq("a", -1e-3));
    assert_eq!(parse("a = 1.0"), eq("a", 1.0));
    assert_eq!(parse("a = TRUE"), eq("a", true));
    assert_eq!(parse("a = null"), eq("a", Value::Null));
    assert_eq!(parse("a != null"), Filter::ne("a", Value::Null).unwrap());
    assert!(message("a = 18446744073709551616").contains("beyond any integer"));
    assert!(message("a = 1e999").contains("beyond any real"));
}

#[test]
fn sets_ranges_and_nulls() {
    let within = Filter::In("a".parse().unwrap(), vec![json!(1), json!("x"), json!(-2)]);
    assert_eq!(parse("a in (1, 'x', -2)"), within);
    assert_eq!(parse("a NOT IN (1, 'x', -2)"), !within);
    let range = Filter::ge("a", 1).unwrap() & Filter::le("a", 5).unwrap();
    assert_eq!(parse("a between 1 and 5"), range);
    assert_eq!(parse("a not between 1 and 5"), !range.clone());
    assert_eq!(parse("a between 1 and 5 and b = 1"), Filter::And(vec![range, eq("b", 1)]));
    assert_eq!(parse("a is null"), Filter::is_null("a").unwrap());
    assert_eq!(parse("a is not null"), !Filter::is_null("a").unwrap());
    assert_eq!(parse("a is true"), eq("a", true));
    assert_eq!(parse("a is not false"), Filter::ne("a", false).unwrap());
    assert!(message("a < null").contains("is null"));
}

#[test]
fn text_tests_in_every_spelling() {
    let starts = Filter::starts_with("name", "x_%").unwrap();
    assert_eq!(parse("starts_with(name, 'x_%')"), starts);
    assert_eq!(parse("name starts_with 'x_%'"), starts);
    assert_eq!(parse("name not starts_with 'x_%'"), !starts.clone());
    assert_eq!(parse("not starts_with(name, 'x_%')"), !starts);
    let contains = Filter::contains("name", "x").unwrap();
    assert_eq!(parse("CONTAINS(name, 'x')"), contains);
    assert_eq!(parse("name contains 'x' and a = 1"), Filter::And(vec![contains.clone(), eq("a", 1)]));
    assert_eq!(parse("a = 1 and \"name\" contains 'x'"), Filter::And(vec![eq("a", 1), contains.clone()]));
    assert_eq!(parse("name like '%x%'"), contains);
    assert_eq!(parse("name like 'x%'"), Filter::starts_with("name", "x").unwrap());
    assert_eq!(parse("name not like 'x%'"), !Filter::starts_with("name", "x").unwrap());
    assert_eq!(parse("name like 'x'"), eq("name", "x"));
    for pattern in ["%x", "x_", "a%b", "%", "", r"a\%%"] {
        assert!(message(&format!("name like '{pattern}'")).contains("like"), "{pattern}");
    }
    assert!(message("name ilike 'x%'").contains("letter case"));
    assert!(message("name like 'x%' escape '!'").contains("column 16"));
}

#[test]
fn connectives_bind_as_in_sql() {
    let (a, b, c) = (eq("a", 1), eq("b", 2), eq("c", 3));
    assert_eq!(parse("a = 1 or b = 2 and c = 3"), Filter::Or(vec![a.clone(), Filter::And(vec![b.clone(), c.clone()])]));
    assert_eq!(parse("(a = 1 or b = 2) and c = 3"), Filter::And(vec![Filter::Or(vec![a.clone(), b.clone()]), c.clone()]));
    assert_eq!(parse("not a = 1 and b = 2"), Filter::And(vec![!a.clone(), b.clone()]));
    assert_eq!(parse("not (a = 1 and b = 2)"), !Filter::And(vec![a.clone(), b.clone()]));
    assert_eq!(parse("a = 1 and b = 2 and c = 3"), Filter::And(vec![a, b, c]));
    assert_eq!(parse("done and not late"), Filter::And(vec![eq("done", true), !eq("late", true)]));
    assert_eq!(parse("true"), Filter::All);
    assert_eq!(parse("false"), Filter::Or(Vec::new()));
}

#[test]
fn any_word_can_be_a_column() {
    for name in ["order", "group", "date", "interval", "case", "cast", "select", "end", "user", "array", "exists", "key", "Type"]
    {
        assert_eq!(parse(&format!("{name} = 1")), eq(name, 1), "{name}");
        assert_eq!(parse(&format!("{name} is null")), Filter::is_null(name).unwrap(), "{name}");
    }
    assert_eq!(parse("\"my-column\" = 1"), eq("my-column", 1));
    assert_eq!(parse("\"and\" = 1"), eq("and", 1));
    assert_eq!(parse("\"contains\" = 1 and contains = 2"), Filter::And(vec![eq("contains", 1), eq("contains", 2)]));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, expected) in [
        ("", "empty"),
        ("   ", "empty"),
        ("a =", "expected"),
        ("a == 1", "column 3: write `=`"),
        ("a = 1 && b = 2", "column 7: write `or` and `and`"),
        ("a = 1 b = 2", "column 9: expected `and` or `or`"),
        ("a = 1 b is null", "column 7: expected `and`, `or` or the end"),
        ("a = 1;", "column 6: `;` is no part"),
        ("a = done", "column 5: two columns"),
        ("a in (done)", "single quotes: 'done'"),
        ("1 = 1", "column 1: a comparison needs a column"),
        ("a.b = 1", "column 2: fields within a field"),
        ("my-column = 1", "double quotes"),
        ("a = b - 1", "column 7: there is no arithmetic"),
        ("a + 1 = 2", "column 3: `+` is no part"),
        ("lower(a) = 'x'", "column"),
        ("lower(a)", "there is no function"),
        ("starts_with(a)", "write it like starts_with(name, 'abc')"),
        ("starts_with(a, 5)", "write it like"),
        ("a in (select 1)", "column"),
        ("a in ()", "column"),
        ("a = 'x", "column 5"),
        ("(a = 1", "expected"),
        ("a = 1)", "column 6"),
        ("a = $1", "column 5"),
        ("a::int = 1", "column 2"),
        ("a = 1\nand b ! 2", "line 2, column 7"),
        ("`a` = 1", "column 1"),
        ("'1' - 1", "column"),
        ("a = 1 = 1", "column 7: expected `and`"),
        ("äö = 1", "column 1"),
        ("not", "expected"),
        ("a = date '2026-01-01'", "column"),
        ("a is", "expected"),
        ("a between 1", "expected"),
    ] {
        let message = message(text);
        assert!(message.contains(expected), "{text:?} → {message}");
    }
}

#[test]
fn hostile_texts_are_refused_quickly() {
    let long = "a = 1 and ".repeat(100_000);
    assert!(message(&long).contains("at most"));
    for text in [
        "(".repeat(100_000),
        "not ".repeat(50_000),
        "- ".repeat(50_000),
        format!("a = {}1", "-".repeat(1000)),
        "a = 1 and ".repeat(20_000),
        "a - ".repeat(20_000),
        "a in (".repeat(20_000),
        "a is null ".repeat(10_000),
        "contains(".repeat(20_000),
        format!("{}a = 1{}", "(".repeat(17), ")".repeat(17)),
        format!("{}a = 1", "not ".repeat(100)),
    ] {
        let started = std::time::Instant::now();
        message(&text);
        assert!(started.elapsed().as_secs() < 5, "{text:.50}");
    }
}

#[test]
fn large_filters_within_the_bounds_are_read() {
    let chain = vec!["a = 1"; 400].join(" or ");
    let Filter::Or(parts) = parse(&chain) else { panic!("not a flat chain") };
    assert_eq!(parts.len(), 400);
    let nested = format!("{}a = 1{}", "(".repeat(16), ")".repeat(16));
    assert_eq!(parse(&nested), eq("a", 1));
    let nots = format!("{}a = 1", "not ".repeat(10));
    assert_eq!(parse(&nots).columns().len(), 1);
    let numbers: Vec<_> = (0..5000).map(|n| format!("-{n}")).collect();
    let Filter::In(_, values) = parse(&format!("a in ({})", numbers.join(", "))) else { panic!("not a set") };
    assert_eq!(values.len(), 5000);
}
