//! The statements of a table that read and write many records at once. How many values are bound is a part of a statement's text: rows go in numbers that
//! are powers of two, keys are repeated up to one, so that few texts come about and each is prepared once a connection.

use storage_sql::server;
use storage_sql::{Dialect, EXPIRES_AT, Table, VERSION};

/// How many values are bound at once at most, and how many keys.
const MAX_VALUES: usize = 16_384;
pub(crate) const MAX_KEYS: usize = 1_024;

/// What the texts are made of.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Up to the list of keys; yields whole rows, and behind them the generation of the tables, in one row at least.
    select: String,
    /// Up to the list of keys; yields whole rows.
    select_whole: String,
    /// The same, but yields the keys, the version and the expiry alone.
    select_versions: String,
    /// Behind the list, where the rows are locked until the end of the transaction, in the order of their keys.
    lock: String,
    insert: String,
    /// Behind the rows, where they are there already and are overwritten.
    overwrite: String,
    delete: String,
    /// The present time; removes rows that have expired.
    pub(crate) delete_expired: String,
    /// The present time and a number; removes so many at most.
    pub(crate) sweep: String,
    /// A key, with a placeholder for each part.
    key: String,
    /// How many parts a key has.
    parts: usize,
    columns: usize,
}

impl server::Statements for Statements {
    const DIALECT: Dialect = Dialect::MySql;

    fn new(table: &Table) -> Self {
        let name = quote(table.name());
        let columns: Vec<String> = table.columns().into_iter().map(quote).collect();
        let parts = table.schema().key_columns().count();
        let keys = columns[..parts].join(", ");
        let all = columns.join(", ");
        let versions = [&columns[..parts], &[quote(VERSION), quote(EXPIRES_AT)]].concat().join(", ");
        let matching = if parts > 1 { format!("({keys}) IN ") } else { format!("{keys} IN ") };
        let set = columns[parts..].iter().map(|column| format!("{column} = VALUES({column})")).collect::<Vec<_>>();
        let expires = quote(EXPIRES_AT);
        Self {
            select: format!(
                "SELECT {}, m.value FROM _storage_meta m LEFT JOIN {name} t ON {} IN ",
                of_table(&columns),
                if parts > 1 { format!("({})", of_table(&columns[..parts])) } else { of_table(&columns[..parts]) }
            ),
            select_whole: format!("SELECT {all} FROM {name} WHERE {matching}"),
            select_versions: format!("SELECT {versions} FROM {name} WHERE {matching}"),
            lock: format!(" ORDER BY {keys} FOR UPDATE"),
            insert: format!("INSERT INTO {name} ({all}) VALUES "),
            overwrite: format!(" ON DUPLICATE KEY UPDATE {}", set.join(", ")),
            delete: format!("DELETE FROM {name} WHERE {matching}"),
            delete_expired: format!("DELETE FROM {name} WHERE {expires} <= ?"),
            sweep: format!("DELETE FROM {name} WHERE {expires} <= ? LIMIT ?"),
            key: if parts > 1 { row_of(parts) } else { "?".to_owned() },
            parts,
            columns: columns.len(),
        }
    }
}

impl Statements {
    /// So many keys.
    pub(crate) fn select(&self, keys: usize) -> String {
        format!("{}{} WHERE m.name = 'generation'", self.select, list(&self.key, keys))
    }

    /// In which column of these the generation is.
    pub(crate) fn generation(&self) -> usize {
        self.columns
    }

    /// So many keys.
    pub(crate) fn lock(&self, keys: usize, whole: bool) -> String {
        let select = if whole { &self.select_whole } else { &self.select_versions };
        format!("{select}{}{}", list(&self.key, keys), self.lock)
    }

    /// So many keys.
    pub(crate) fn delete(&self, keys: usize) -> String {
        format!("{}{}", self.delete, list(&self.key, keys))
    }

    /// So many rows, which are there (`over`) or not.
    pub(crate) fn insert(&self, rows: usize, over: bool) -> String {
        let tail = if over { &self.overwrite } else { "" };
        format!("{}{}{tail}", self.insert, repeated(&row_of(self.columns), rows))
    }

    /// How many values a key has.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// How many rows are written at once at most.
    pub(crate) fn max_rows(&self) -> usize {
        (MAX_VALUES / self.columns).clamp(1, 256)
    }
}

pub(crate) fn quote(name: &str) -> String {
    Dialect::MySql.quote(name)
}

fn of_table(columns: &[String]) -> String {
    columns.iter().map(|column| format!("t.{column}")).collect::<Vec<_>>().join(", ")
}

/// `(?, ?, ?)`
pub(crate) fn row_of(values: usize) -> String {
    list("?", values)
}

/// `(x, x, x)`
pub(crate) fn list(item: &str, count: usize) -> String {
    format!("({})", repeated(item, count))
}

/// `x, x, x`
pub(crate) fn repeated(item: &str, count: usize) -> String {
    let mut text = String::with_capacity((item.len() + 2) * count);
    for place in 0..count {
        if place > 0 {
            text.push_str(", ");
        }
        text.push_str(item);
    }
    text
}

/// Fills a list of items, each of so many values, up to the next power of two by repeating the last. Answers how many there are.
pub(crate) fn fill<V: Clone>(values: &mut Vec<V>, each: usize) -> usize {
    let count = values.len() / each.max(1);
    let full = count.next_power_of_two();
    if let Some(last) = values.len().checked_sub(each) {
        let last = values[last..].to_vec();
        for _ in count..full {
            values.extend_from_slice(&last);
        }
    }
    full
}

/// How many of so many rows go next: the largest power of two that is neither more nor above `most`.
pub(crate) fn portion(left: usize, most: usize) -> usize {
    let at_once = left.min(most).max(1);
    if at_once.is_power_of_two() { at_once } else { at_once.next_power_of_two() / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_few() {
        let mut values = vec![1, 2, 3, 4, 5, 6];
        assert_eq!((fill(&mut values, 2), values.len()), (4, 8));
        assert_eq!(values[6..], [5, 6]);
        assert_eq!([1, 2, 3, 7, 8, 9, 1_000].map(|left| portion(left, 256)), [1, 2, 2, 4, 8, 8, 256]);
        assert_eq!(portion(100, 70), 64);
        assert_eq!(list(&row_of(2), 2), "((?, ?), (?, ?))");
    }
}
