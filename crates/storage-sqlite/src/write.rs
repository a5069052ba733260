//! Batches, within a write transaction.
//!
//! Most writes are one statement that holds the precondition and writes at once; only where that is not enough is the record read first.

use std::sync::Arc;

use rusqlite::CachedStatement;
use storage_core::{Applied, Error, Expect, Fields, History, Key, Record, Result, Version, Write};
use storage_sql::{EXPIRES_AT, SqlValue};

use crate::catalog::Entry;
use crate::error::{OrExplain, SqlResult, Violation, explain, violation};
use crate::row::{self, Binder, Bound};
use crate::session::Session;
use crate::{history, messages};

/// Does all writes. An error names the one that could not be done.
pub(crate) fn commit(session: &mut Session<'_>, writes: &[Write]) -> Result<Vec<Version>> {
    let mut versions = Vec::with_capacity(writes.len());
    for (index, write) in writes.iter().enumerate() {
        versions.push(one(session, write).map_err(|e| e.with_failed_write(index))?);
    }
    Ok(versions)
}

fn one(session: &mut Session<'_>, write: &Write) -> Result<Version> {
    if let Write::Enqueue { queue, message } = write {
        messages::send(session, queue, std::slice::from_ref(message))?;
        return Ok(Version::NONE);
    }
    let Some((table, key)) = write.target() else { return Ok(Version::NONE) };
    let entry = Arc::clone(session.catalog.table(table)?);
    let target = Target { session, entry: &entry, key };
    target.write(write).map_err(|e| e.with_subject(format_args!("table `{table}`")))
}

/// The record that a write is about.
struct Target<'a, 'c> {
    session: &'a mut Session<'c>,
    entry: &'a Entry,
    key: &'a Key,
}

impl<'c> Target<'_, 'c> {
    fn write(mut self, write: &Write) -> Result<Version> {
        match (write, write.expect()) {
            (Write::Put { fields, expires_at, .. }, expect) => self.put(fields, *expires_at, expect),
            (Write::Merge { fields, .. }, expect @ (Expect::Present | Expect::Version(_))) if self.can_merge(fields) => {
                self.merge(fields, expect)
            }
            (Write::Delete { .. }, expect @ (Expect::Anything | Expect::Present)) => self.delete(expect),
            (Write::Check { .. }, expect) => {
                let found = self.version()?;
                self.check(expect, found)
            }
            _ => self.read_then_write(write),
        }
    }

    /// Holds an expectation against what is there, and answers with that.
    fn check(&self, expect: Expect, found: Version) -> Result<Version> {
        expect.check(&self.entry.schema().name, self.key, found).map(|()| found)
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'c>> {
        self.session.connection.prepare_cached(sql).or_explain()
    }

    fn put(&mut self, fields: &Fields, expires_at: Option<chrono::DateTime<chrono::Utc>>, expect: Expect) -> Result<Version> {
        let write = self.entry.table.write();
        let version = match expect {
            Expect::Anything => {
                let mut upsert = self.prepare(&write.upsert)?;
                self.bind_row(&mut upsert, fields, Version::FIRST, expires_at)?;
                self.returned(&mut upsert)?.ok_or_else(|| Error::internal("an upsert wrote nothing"))?
            }
            Expect::Absent | Expect::Version(Version::NONE) => {
                let mut insert = self.prepare(&write.insert)?;
                self.bind_row(&mut insert, fields, Version::FIRST, expires_at)?;
                if self.changed(&mut insert)? == 0 {
                    let found = self.version()?;
                    self.check(expect, found)?;
                    return Err(Error::internal("an insert wrote nothing"));
                }
                Version::FIRST
            }
            Expect::Present => {
                let mut replace = self.prepare(&write.replace)?;
                self.bind_set(&mut replace, fields, expires_at, None)?;
                match self.returned(&mut replace)? {
                    Some(version) => version,
                    None => return self.check(expect, Version::NONE),
                }
            }
            Expect::Version(version) => {
                let mut replace = self.prepare(&write.replace_version)?;
                self.bind_set(&mut replace, fields, expires_at, Some(version))?;
                if self.changed(&mut replace)? == 0 {
                    let found = self.version()?;
                    return self.check(expect, found);
                }
                version.next()
            }
        };
        if self.entry.schema().history != History::None {
            let record =
                Record { key: self.key.clone(), version, updated_at: self.session.now, expires_at, fields: fields.clone() };
            self.keep(&record)?;
        }
        Ok(version)
    }

    /// True where the changed fields are columns, and nobody wants to know the whole record.
    fn can_merge(&self, fields: &Fields) -> bool {
        let schema = self.entry.schema();
        schema.history == History::None && fields.keys().all(|name| schema.column(name).is_some())
    }

    fn merge(&mut self, fields: &Fields, expect: Expect) -> Result<Version> {
        let versioned = matches!(expect, Expect::Version(_));
        let sql = self.entry.merge(fields.keys().map(String::as_str), versioned);
        let mut update = self.prepare(&sql)?;
        let mut binder = Binder::new(&mut update);
        for (name, value) in fields {
            let kind = self.entry.schema().column(name).map_or(storage_core::ColumnType::Json, |c| c.kind);
            binder.bind(Bound(&storage_sql::encode(storage_sql::Dialect::Sqlite, kind, value)?))?;
        }
        binder.bind(&self.session.now_text)?;
        binder.key(self.entry.schema(), self.key)?;
        binder.bind(&self.session.now_text)?;
        match expect {
            Expect::Version(version) => {
                binder.bind(number(version))?;
                if self.changed(&mut update)? == 0 {
                    let found = self.version()?;
                    return self.check(expect, found);
                }
                Ok(version.next())
            }
            _ => match self.returned(&mut update)? {
                Some(version) => Ok(version),
                None => self.check(expect, Version::NONE),
            },
        }
    }

    fn delete(&mut self, expect: Expect) -> Result<Version> {
        let mut delete = self.prepare(&self.entry.table.write().delete)?;
        let mut binder = Binder::new(&mut delete);
        binder.key(self.entry.schema(), self.key)?;
        binder.bind(&self.session.now_text)?;
        let found = self.returned(&mut delete)?.unwrap_or(Version::NONE);
        self.check(expect, found)
    }

    /// What every write could be: the record as it is, what the write makes of it, that written.
    fn read_then_write(&mut self, write: &Write) -> Result<Version> {
        let current = self.current()?;
        let applied = write.apply(current.as_ref(), self.session.now)?;
        match &applied {
            Applied::Put(record) => {
                let mut store = self.prepare(&self.entry.table.write().store)?;
                self.bind_row(&mut store, &record.fields, record.version, record.expires_at)?;
                self.changed(&mut store)?;
                self.keep(record)?;
            }
            Applied::Deleted(version) => {
                let mut delete = self.prepare(&self.entry.table.write().delete_version)?;
                let mut binder = Binder::new(&mut delete);
                binder.key(self.entry.schema(), self.key)?;
                binder.bind(&self.session.now_text)?;
                binder.bind(number(*version))?;
                self.changed(&mut delete)?;
            }
            Applied::Unchanged(_) => {}
        }
        Ok(applied.version())
    }

    fn keep(&self, record: &Record) -> Result<()> {
        let schema = self.entry.schema();
        history::keep(self.session.connection, schema.history, &schema.name, record)
    }

    /// The record that is there, expired or not.
    fn current(&self) -> Result<Option<Record>> {
        let mut select = self.prepare(&self.entry.table.write().select)?;
        Binder::new(&mut select).key(self.entry.schema(), self.key)?;
        let mut rows = select.raw_query();
        rows.next().or_explain()?.map(|row| row::read(row, self.entry.schema())).transpose()
    }

    /// The version that is there; of an expired record, none.
    fn version(&self) -> Result<Version> {
        let mut select = self.prepare(&self.entry.table.write().select_version)?;
        Binder::new(&mut select).key(self.entry.schema(), self.key)?;
        let mut rows = select.raw_query();
        let Some(row) = rows.next().or_explain()? else { return Ok(Version::NONE) };
        let expired = row::time(row, 1)?.is_some_and(|at| at <= self.session.now);
        let version: i64 = row.get(0).or_explain()?;
        Ok(if expired { Version::NONE } else { Version(version.unsigned_abs()) })
    }

    /// Binds what an INSERT takes.
    fn bind_row(
        &self,
        statement: &mut CachedStatement<'_>,
        fields: &Fields,
        version: Version,
        expires_at: Option<chrono::DateTime<chrono::Utc>>,
    ) -> Result<()> {
        let mut binder = Binder::new(statement);
        binder.key(self.entry.schema(), self.key)?;
        let extra = binder.columns(self.entry.schema(), fields)?;
        binder.bind(number(version))?;
        self.bind_rest(&mut binder, expires_at, &extra)
    }

    /// Binds what an UPDATE of all columns takes.
    fn bind_set(
        &self,
        statement: &mut CachedStatement<'_>,
        fields: &Fields,
        expires_at: Option<chrono::DateTime<chrono::Utc>>,
        version: Option<Version>,
    ) -> Result<()> {
        let mut binder = Binder::new(statement);
        let extra = binder.columns(self.entry.schema(), fields)?;
        self.bind_rest(&mut binder, expires_at, &extra)?;
        binder.key(self.entry.schema(), self.key)?;
        binder.bind(&self.session.now_text)?;
        version.map_or(Ok(()), |version| binder.bind(number(version)))
    }

    fn bind_rest(
        &self,
        binder: &mut Binder<'_, '_>,
        expires_at: Option<chrono::DateTime<chrono::Utc>>,
        extra: &SqlValue<'_>,
    ) -> Result<()> {
        binder.bind(&self.session.now_text)?;
        binder.bind(expires_at.map(storage_sql::timestamp))?;
        binder.bind(Bound(extra))
    }

    /// Runs a write that yields a version, or nothing.
    fn returned(&mut self, statement: &mut CachedStatement<'_>) -> Result<Option<Version>> {
        let version = |statement: &mut CachedStatement<'_>| -> SqlResult<Option<i64>> {
            let mut rows = statement.raw_query();
            let version = rows.next()?.map(|row| row.get(0)).transpose()?;
            // To its end, so that it takes effect.
            while rows.next()?.is_some() {}
            Ok(version)
        };
        let found = self.retried(statement, version)?;
        Ok(found.map(|version| Version(version.unsigned_abs())))
    }

    /// Runs a write and answers how many rows it changed.
    fn changed(&mut self, statement: &mut CachedStatement<'_>) -> Result<usize> {
        self.retried(statement, |statement| statement.raw_execute())
    }

    /// Runs a write; where a unique value is taken, once more after expired records are out of the way.
    fn retried<T>(
        &mut self,
        statement: &mut CachedStatement<'_>,
        run: impl Fn(&mut CachedStatement<'_>) -> SqlResult<T>,
    ) -> Result<T> {
        let error = match run(statement) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(violation) = violation(&error, self.entry.table.name()) else { return Err(explain(error)) };
        if matches!(violation, Violation::Unique(_)) && self.remove_expired()? > 0 {
            match run(statement) {
                Ok(value) => return Ok(value),
                Err(error) if crate::error::violation(&error, self.entry.table.name()).is_none() => return Err(explain(error)),
                Err(_) => {}
            }
        }
        Err(violation.into_error(&self.entry.schema().name))
    }

    /// Removes what has expired; those records count as absent, so it does no harm if the write fails all the same.
    fn remove_expired(&mut self) -> Result<usize> {
        let sql = format!("DELETE FROM \"{}\" WHERE \"{EXPIRES_AT}\" <= ?1", self.entry.table.name());
        let removed = self.prepare(&sql)?.execute([&self.session.now_text]).or_explain()?;
        self.session.harmless += removed as u64;
        Ok(removed)
    }
}

fn number(version: Version) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}
