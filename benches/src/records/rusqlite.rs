//! For orientation: rusqlite with cached statements, its loops on a thread of their own.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::sqlx::{GET, INSERT, LOAD, QUERY, SCHEMA};
use crate::subject::{Named, RecordSubject, Role, Row};

#[derive(Default)]
pub(super) struct Raw {
    connection: Option<Arc<Mutex<Connection>>>,
}

impl Raw {
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let connection = self.connection.clone().context("the table is not loaded yet")?;
        tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().map_err(|_| anyhow!("another caller panicked"))?;
            work(&mut connection)
        })
        .await?
    }
}

impl Named for Raw {
    fn name(&self) -> String {
        "raw rusqlite".to_owned()
    }

    fn role(&self) -> Role {
        Role::Information
    }
}

#[async_trait]
impl RecordSubject for Raw {
    async fn load(&mut self, dir: &Path, rows: &mut (dyn Iterator<Item = Row> + Send)) -> Result<()> {
        let mut connection = Connection::open(dir.join("rusqlite.db"))?;
        connection.busy_timeout(Duration::from_secs(60))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -8192)?;
        connection.execute_batch(SCHEMA)?;
        loop {
            let some: Vec<Row> = rows.take(LOAD).collect();
            if some.is_empty() {
                break;
            }
            insert(&mut connection, &some)?;
        }
        self.connection = Some(Arc::new(Mutex::new(connection)));
        Ok(())
    }

    async fn get(&self, id: &str) -> Result<Option<Row>> {
        let id = id.to_owned();
        self.with(move |connection| get(connection, &id)).await
    }

    async fn query(&self, bucket: i64) -> Result<Vec<Row>> {
        self.with(move |connection| query(connection, bucket)).await
    }

    async fn insert_batch(&self, rows: Vec<Row>) -> Result<()> {
        self.with(move |connection| insert(connection, &rows)).await
    }

    async fn insert_one(&self, row: Row) -> Result<()> {
        self.with(move |connection| insert_row(connection, &row)).await
    }

    async fn count(&self) -> Result<u64> {
        let count = |connection: &mut Connection| {
            let count: i64 = connection.query_row("SELECT count(*) FROM items", [], |row| row.get(0))?;
            Ok(u64::try_from(count)?)
        };
        self.with(count).await
    }

    async fn get_all(&self, ids: Vec<String>) -> Result<usize> {
        self.with(move |connection| {
            let mut found = 0;
            for id in ids {
                found += usize::from(get(connection, &id)?.is_some_and(|row| row.id == id));
            }
            Ok(found)
        })
        .await
    }

    async fn query_all(&self, buckets: Vec<i64>) -> Result<usize> {
        self.with(move |connection| {
            let mut found = 0;
            for bucket in buckets {
                found += query(connection, bucket)?.iter().filter(|row| row.bucket == bucket).count();
            }
            Ok(found)
        })
        .await
    }

    async fn insert_all(&self, batches: Vec<Vec<Row>>) -> Result<()> {
        self.with(move |connection| batches.iter().try_for_each(|rows| insert(connection, rows))).await
    }
}

fn get(connection: &Connection, id: &str) -> Result<Option<Row>> {
    Ok(connection.prepare_cached(GET)?.query_row([id], decode).optional()?)
}

fn query(connection: &Connection, bucket: i64) -> Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(QUERY)?;
    let rows = statement.query_map([bucket], decode)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn insert(connection: &mut Connection, rows: &[Row]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for row in rows {
        insert_row(&transaction, row)?;
    }
    Ok(transaction.commit()?)
}

fn insert_row(connection: &Connection, row: &Row) -> Result<()> {
    let values = params![row.id, row.name, row.status, row.bucket, row.score, row.created];
    connection.prepare_cached(INSERT)?.execute(values)?;
    Ok(())
}

fn decode(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        id: row.get(0)?,
        name: row.get(1)?,
        status: row.get(2)?,
        bucket: row.get(3)?,
        score: row.get(4)?,
        created: row.get(5)?,
    })
}
