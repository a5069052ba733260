//! What of a filter the service decides: less than the filter says, never more.
//!
//! The service knows no null: a comparison with a property that an entity lacks is false, and so is its negation. So nothing negated is given to it, and of
//! properties those alone whose type the schema fixes. Whatever it answers is held against the whole filter again.

use chrono::{Datelike as _, SecondsFormat, SubsecRound as _, TimeDelta};
use serde_json::Value;
use storage_core::value::parse_timestamp;
use storage_core::{ColumnName, ColumnRef, ColumnType, Filter, KeyPart, KeyType, TableSchema};

use crate::entity::{EARLY, FIRST_YEAR, property_of};
use crate::keys;
use crate::table::Table;

/// How many comparisons the service takes in one filter.
const MAX_COMPARISONS: usize = 15;
/// How many of them a query adds by itself.
const OWN: usize = 4;
/// The longest text that is compared: filters travel in addresses.
const MAX_TEXT: usize = 512;

/// What the service is asked for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Pushed {
    /// All of these must hold.
    pub(crate) terms: Vec<String>,
    /// True where they say all that the filter says.
    pub(crate) exact: bool,
    /// True where they name one partition.
    pub(crate) one_partition: bool,
}

impl Pushed {
    /// Of `filter`.
    pub(crate) fn of(table: &Table, filter: &Filter) -> Self {
        let mut pushed = Self { exact: true, ..Self::default() };
        let (mut left, mut length) = (MAX_COMPARISONS - OWN, 0);
        for part in filter.conjuncts() {
            match term(table, part) {
                Some(term) if term.comparisons <= left && length + term.text.len() <= 4 * MAX_TEXT => {
                    left -= term.comparisons;
                    length += term.text.len();
                    pushed.exact &= term.exact;
                    pushed.one_partition |= names_the_partition(&table.schema, part);
                    pushed.terms.push(term.text);
                }
                _ => pushed.exact = false,
            }
        }
        pushed
    }
}

fn names_the_partition(schema: &TableSchema, filter: &Filter) -> bool {
    let partition = schema.partition.as_ref().unwrap_or(&schema.id);
    matches!(filter, Filter::Eq(column, _) if *column == partition.name)
}

/// Text in a filter.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[derive(Debug, PartialEq)]
struct Term {
    text: String,
    comparisons: usize,
    exact: bool,
}

impl Term {
    fn one(property: &str, operator: &str, literal: &str) -> Self {
        Self { text: format!("{property} {operator} {literal}"), comparisons: 1, exact: true }
    }

    fn inexact(self) -> Self {
        Self { exact: false, ..self }
    }

    fn joined(terms: Vec<Self>, by: &str) -> Option<Self> {
        let comparisons = terms.iter().map(|term| term.comparisons).sum();
        let exact = terms.iter().all(|term| term.exact);
        let texts: Vec<String> = terms.into_iter().map(|term| term.text).collect();
        match texts.len() {
            0 => None,
            1 => texts.into_iter().next().map(|text| Self { text, comparisons, exact }),
            _ => Some(Self { text: format!("({})", texts.join(&format!(" {by} "))), comparisons, exact }),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Comparison {
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    fn word(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Lt => "lt",
            Self::Le => "le",
            Self::Gt => "gt",
            Self::Ge => "ge",
        }
    }
}

/// True of every record that `filter` is true of. `None`: the service can't say.
fn term(table: &Table, filter: &Filter) -> Option<Term> {
    match filter {
        Filter::Eq(column, value) => compared(table, column, Comparison::Eq, value),
        Filter::Lt(column, value) => compared(table, column, Comparison::Lt, value),
        Filter::Le(column, value) => compared(table, column, Comparison::Le, value),
        Filter::Gt(column, value) => compared(table, column, Comparison::Gt, value),
        Filter::Ge(column, value) => compared(table, column, Comparison::Ge, value),
        Filter::In(column, values) if values.len() <= MAX_COMPARISONS - OWN => {
            let terms: Option<Vec<_>> = values.iter().map(|value| compared(table, column, Comparison::Eq, value)).collect();
            Term::joined(terms?, "or")
        }
        Filter::StartsWith(column, text) => {
            let from = compared(table, column, Comparison::Ge, &Value::from(text.as_str()))?;
            let end = behind_all_that_begin_with(text).map(Value::from);
            match end.and_then(|end| compared(table, column, Comparison::Lt, &end)) {
                Some(until) => Term::joined(vec![from, until], "and"),
                None => Some(from.inexact()),
            }
        }
        Filter::And(filters) => {
            let terms: Vec<Term> = filters.iter().filter_map(|filter| term(table, filter)).collect();
            let all = terms.len() == filters.len();
            Term::joined(terms, "and").map(|term| if all { term } else { term.inexact() })
        }
        Filter::Or(filters) => Term::joined(filters.iter().map(|filter| term(table, filter)).collect::<Option<Vec<_>>>()?, "or"),
        _ => None,
    }
}

/// The first text that sorts behind all that begin with `text`.
fn behind_all_that_begin_with(text: &str) -> Option<String> {
    let mut chars: Vec<char> = text.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are no characters.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

fn compared(table: &Table, column: &ColumnName, comparison: Comparison, value: &Value) -> Option<Term> {
    let schema = &table.schema;
    match schema.resolve(column).ok()? {
        ColumnRef::Partition(kind) => Some(Term::one("PartitionKey", comparison.word(), &key(kind, value)?)),
        ColumnRef::Id(kind) => {
            let property = if schema.partition.is_some() { "RowKey" } else { "PartitionKey" };
            Some(Term::one(property, comparison.word(), &key(kind, value)?))
        }
        ColumnRef::Declared(_) if !table.always_had(column.as_str()) => None,
        ColumnRef::Declared(kind) => property(&property_of(schema, column.as_str())?, kind, comparison, value),
        ColumnRef::Undeclared => None,
    }
}

fn key(kind: KeyType, value: &Value) -> Option<String> {
    let key = match (kind, value) {
        (KeyType::Text, Value::String(text)) if !text.is_empty() && !text.chars().any(char::is_control) => {
            keys::encode_text(text)
        }
        (KeyType::Integer, Value::Number(n)) => KeyPart::sortable_integer(n.as_i64()?),
        _ => return None,
    };
    keys::fits(&key).then(|| quoted(&key))
}

fn property(name: &str, kind: ColumnType, comparison: Comparison, value: &Value) -> Option<Term> {
    let term = |literal: String| Some(Term::one(name, comparison.word(), &literal));
    match (kind, value) {
        // The service compares UTF-16 units: the order is ours where one side is ASCII.
        (ColumnType::Text, Value::String(text))
            if text.len() <= MAX_TEXT
                && (text.is_ascii() || comparison == Comparison::Eq)
                && !text.chars().any(char::is_control) =>
        {
            term(quoted(text))
        }
        // Integers are `Edm.Int64` here, and a constant must be of the property's own type: so says the service's documentation. Where another program wrote
        // an `Edm.Int32`, the emulator (3.35) answers 500 as soon as it compares it with such a constant. No other form will do: without `L` it finds no
        // Int64 by `eq`, and the service takes 32 bits; both forms joined by `or` end at the same place.
        (ColumnType::Integer, Value::Number(n)) => term(format!("{}L", n.as_i64()?)),
        (ColumnType::Real, Value::Number(n)) => term(real(n.as_f64().filter(|_| n.is_f64())?)?),
        (ColumnType::Boolean, Value::Bool(value)) if comparison == Comparison::Eq => term(value.to_string()),
        (ColumnType::Timestamp, Value::String(text)) => time(name, comparison, text),
        _ => None,
    }
}

/// A real that is written without an exponent.
fn real(x: f64) -> Option<String> {
    (x == 0.0 || (1e-5..1e15).contains(&x.abs())).then(|| format!("{x:?}"))
}

/// The emulator compares milliseconds: so much is left open on both sides.
fn time(name: &str, comparison: Comparison, text: &str) -> Option<Term> {
    let at = parse_timestamp(text).ok()?.trunc_subsecs(3);
    let literal =
        |time: chrono::DateTime<chrono::Utc>| format!("datetime'{}'", time.to_rfc3339_opts(SecondsFormat::Millis, true));
    let early = at.year() <= FIRST_YEAR;
    let from = || (!early).then(|| Term::one(name, "ge", &literal(at)));
    let until = || (at.year() < 9999).then(|| Term::one(name, "le", &literal(at + TimeDelta::milliseconds(1))));
    let term = match comparison {
        Comparison::Eq => Term::joined(vec![from()?, until()?], "and"),
        Comparison::Gt | Comparison::Ge => from(),
        Comparison::Lt | Comparison::Le if early => None,
        // What is earlier than a property can hold is not in it.
        Comparison::Lt | Comparison::Le => Term::joined(vec![until()?, Term::one(EARLY, "eq", "true")], "or"),
    };
    term.map(Term::inexact)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;
    use storage_core::SchemaChange;

    use super::*;
    use crate::table::Past;

    fn table() -> Table {
        let schema = TableSchema::builder("t")
            .partition("p", KeyType::Text)
            .key_of("id", KeyType::Integer)
            .column("n", ColumnType::Integer)
            .column("x", ColumnType::Real)
            .column("s-1", ColumnType::Text)
            .column("b", ColumnType::Boolean)
            .column("at", ColumnType::Timestamp)
            .column("bytes", ColumnType::Bytes)
            .keep_undeclared()
            .build()
            .unwrap();
        Table { schema, there: "t".into(), past: Vec::new() }
    }

    fn pushed(filter: Filter) -> (Vec<String>, bool) {
        pushed_to(&table(), filter)
    }

    fn pushed_to(table: &Table, filter: Filter) -> (Vec<String>, bool) {
        let pushed = Pushed::of(table, &filter.canonical(&table.schema).unwrap());
        (pushed.terms, pushed.exact)
    }

    /// What was written before a change is found by what it is now.
    #[test]
    fn columns_that_were_changed_are_left_to_us() {
        let mut table = table();
        let change = SchemaChange::RenameColumn { from: "m".parse().unwrap(), to: "n".parse().unwrap() };
        table.past.push(Past { schema: table.schema.clone(), change });
        let both = Filter::eq("n", 1).unwrap() & Filter::eq("b", true).unwrap();
        assert_eq!(pushed_to(&table, both), (vec!["b eq true".to_owned()], false));
    }

    #[test]
    fn what_the_service_decides() {
        let cases = [
            (
                Filter::eq("p", "it's/").unwrap() & Filter::ge("id", 7).unwrap(),
                vec!["PartitionKey eq 'it''s.~2f'", "RowKey ge '0000000000000000007'"],
                true,
            ),
            (Filter::lt("n", -5).unwrap(), vec!["n lt -5L"], true),
            (Filter::eq("x", 0.5).unwrap(), vec!["x eq 0.5"], true),
            (Filter::eq("b", true).unwrap(), vec!["b eq true"], true),
            (Filter::starts_with("s-1", "ab").unwrap(), vec!["(s_x002D_1 ge 'ab' and s_x002D_1 lt 'ac')"], true),
            (Filter::is_in("n", [1, 2]).unwrap(), vec!["(n eq 1L or n eq 2L)"], true),
            (Filter::gt("at", "2026-01-01T00:00:00.0005Z").unwrap(), vec!["at ge datetime'2026-01-01T00:00:00.000Z'"], false),
            (
                Filter::lt("at", "2026-01-01").unwrap(),
                vec!["(at le datetime'2026-01-01T00:00:00.001Z' or _early eq true)"],
                false,
            ),
            (
                Filter::eq("n", 1).unwrap() | (Filter::eq("n", 2).unwrap() & Filter::eq("free", 3).unwrap()),
                vec!["(n eq 1L or n eq 2L)"],
                false,
            ),
        ];
        for (filter, terms, exact) in cases {
            assert_eq!(pushed(filter.clone()), (terms.into_iter().map(str::to_owned).collect(), exact), "{filter:?}");
        }
    }

    #[test]
    fn what_it_does_not() {
        for filter in [
            Filter::ne("n", 1).unwrap(),
            !Filter::eq("n", 1).unwrap(),
            Filter::is_null("n").unwrap(),
            Filter::eq("free", 1).unwrap(),
            Filter::lt("s-1", "ü").unwrap(),
            Filter::contains("s-1", "a").unwrap(),
            Filter::gt("n", 0.5).unwrap(),
            Filter::gt("x", 1e300).unwrap(),
            Filter::eq("bytes", "AAE=").unwrap(),
            Filter::lt("at", "0001-01-01").unwrap(),
            Filter::is_in("n", Vec::<i64>::new()).unwrap(),
            Filter::Or(vec![]),
            Filter::eq("n", 1).unwrap() | Filter::eq("free", 1).unwrap(),
        ] {
            assert_eq!(pushed(filter.clone()), (Vec::new(), false), "{filter:?}");
        }
        let many = (0..20).fold(Filter::All, |all, n| all & Filter::ge("n", n).unwrap());
        assert_eq!(pushed(many).0.len(), MAX_COMPARISONS - OWN);
        assert_eq!(pushed(Filter::All), (Vec::new(), true));
    }

    #[test]
    fn the_text_behind_a_beginning() {
        for (text, behind) in
            [("a", Some("b")), ("a\u{10ffff}", Some("b")), ("\u{d7ff}", Some("\u{e000}")), ("\u{10ffff}", None), ("", None)]
        {
            assert_eq!(behind_all_that_begin_with(text).as_deref(), behind, "{text:?}");
        }
        assert_eq!(json!(real(1e-6)), Value::Null);
    }
}
