//! Which part of a table's listing a query is about.

use serde_json::Value;
use storage_core::{ColumnName, Filter, Key, KeyColumn, KeyPart, KeyType, TableSchema};

use super::names;

/// Names below a table's folder. It may hold more than is wanted, and never less.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Range {
    /// The folder of the one partition.
    pub(super) partition: Option<String>,
    /// All are behind this.
    pub(super) after: Option<String>,
    /// None is behind this.
    pub(super) last: Option<String>,
}

/// The names of a key part: the first and the last that may be.
#[derive(Debug, Default)]
struct Span {
    first: Option<String>,
    last: Option<String>,
}

impl Span {
    /// What must hold of `column` narrows it.
    fn of(filters: &[&Filter], column: &KeyColumn) -> Self {
        let mut span = Self::default();
        for filter in filters.iter().filter(|filter| filter.columns().iter().all(|c| **c == column.name)) {
            match filter {
                Filter::Eq(_, value) => span.narrow(bound(column, value), bound(column, value)),
                Filter::Gt(_, value) | Filter::Ge(_, value) => span.narrow(bound(column, value), None),
                Filter::Lt(_, value) | Filter::Le(_, value) => span.narrow(None, bound(column, value)),
                Filter::StartsWith(_, text) => {
                    let first = names::first_from(text);
                    span.narrow(Some(first.clone()), Some(first + names::LAST));
                }
                Filter::In(_, values) => {
                    let names: Option<Vec<_>> = values.iter().map(|value| bound(column, value)).collect();
                    let names = names.unwrap_or_default();
                    span.narrow(names.iter().min().cloned(), names.into_iter().max());
                }
                _ => {}
            }
        }
        span
    }

    fn narrow(&mut self, first: Option<String>, last: Option<String>) {
        // A cut name may sort before or behind others with the same beginning.
        let first = first.map(|name| names::ordered(&name).to_owned());
        let last = last.map(|name| match names::ordered(&name) {
            whole if whole.len() == name.len() => name,
            cut => cut.to_owned() + names::LAST,
        });
        self.first = self.first.take().max(first);
        self.last = match (self.last.take(), last) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// The name of a literal, where it is a key part of that column.
fn bound(column: &KeyColumn, value: &Value) -> Option<String> {
    match (column.kind, value) {
        (KeyType::Text, Value::String(text)) => Some(names::part(&KeyPart::from(text))),
        (KeyType::Integer, Value::Number(n)) => n.as_i64().map(|n| names::part(&n.into())),
        _ => None,
    }
}

/// The part that a partition must be.
fn only(filters: &[&Filter], column: &KeyColumn) -> Option<String> {
    let is_it = |name: &ColumnName| *name == column.name;
    filters.iter().find_map(|filter| match filter {
        Filter::Eq(name, value) if is_it(name) => bound(column, value),
        Filter::In(name, values) if is_it(name) && values.len() == 1 => bound(column, &values[0]),
        _ => None,
    })
}

impl Range {
    /// Of the records that match `filter`, those behind `cursor` in the order of keys.
    pub(super) fn of(schema: &TableSchema, filter: &Filter, cursor: Option<&Key>) -> Self {
        let filters = filter.conjuncts();
        let ids = || Span::of(&filters, &schema.id);
        let mut range = match &schema.partition {
            None => Self { partition: None, after: ids().first.as_deref().and_then(names::before), last: ids().last },
            Some(column) => match only(&filters, column) {
                Some(name) => {
                    let folder = name + "!";
                    let within = |id: String| format!("{folder}/{id}");
                    let Span { first, last } = ids();
                    let after = first.as_deref().and_then(names::before).map(within);
                    Self { after, last: last.map(within), partition: Some(folder) }
                }
                None => {
                    let Span { first, last } = Span::of(&filters, column);
                    let after = first.as_deref().and_then(names::before);
                    Self { partition: None, after, last: last.map(|name| name + "!" + names::LAST) }
                }
            },
        };
        if let Some(key) = cursor {
            let name = names::record(key);
            let together = names::group(&name, range.folder_len()).unwrap_or(&name);
            range.after = range.after.max(Some(together.to_owned()));
        }
        range
    }

    /// How much of each name is the folder of the one partition.
    pub(super) fn folder_len(&self) -> usize {
        self.partition.as_ref().map_or(0, String::len)
    }
}
