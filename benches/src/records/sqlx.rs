//! The baseline: sqlx with prepared statements on a connection that is held, and a pool for the single inserts.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Connection, Row as _, SqliteConnection, SqlitePool};
use tokio::sync::Mutex;

use crate::subject::{Named, RecordSubject, Role, Row};

pub(super) const SCHEMA: &str = "
    CREATE TABLE items (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        bucket INTEGER NOT NULL,
        score REAL NOT NULL,
        created INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX items_bucket ON items (bucket, id);";
pub(super) const INSERT: &str = "INSERT INTO items (id, name, status, bucket, score, created) VALUES (?, ?, ?, ?, ?, ?)";
pub(super) const GET: &str = "SELECT id, name, status, bucket, score, created FROM items WHERE id = ?";
pub(super) const QUERY: &str = "SELECT id, name, status, bucket, score, created FROM items WHERE bucket = ? ORDER BY id";
/// Rows per transaction while loading.
pub(super) const LOAD: usize = 50_000;

/// What is open once the table is loaded.
struct Open {
    held: Mutex<SqliteConnection>,
    pool: SqlitePool,
}

pub(super) struct Raw {
    connections: u32,
    open: Option<Open>,
}

impl Raw {
    /// With a pool of so many connections.
    pub(super) fn new(connections: u32) -> Self {
        Self { connections, open: None }
    }

    fn open(&self) -> Result<&Open> {
        self.open.as_ref().context("the table is not loaded yet")
    }
}

impl Named for Raw {
    fn name(&self) -> String {
        match self.connections {
            1 => "raw sqlx, one connection".to_owned(),
            n => format!("raw sqlx, a pool of {n}"),
        }
    }

    fn role(&self) -> Role {
        Role::Baseline
    }
}

#[async_trait]
impl RecordSubject for Raw {
    async fn load(&mut self, dir: &Path, rows: &mut (dyn Iterator<Item = Row> + Send)) -> Result<()> {
        let options = SqliteConnectOptions::new()
            .filename(dir.join("sqlx.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // The page cache that storage-sqlite has, so that nobody wins by memory.
            .pragma("cache_size", "-8192")
            .busy_timeout(Duration::from_secs(60));
        let mut held = SqliteConnection::connect_with(&options).await?;
        sqlx::raw_sql(SCHEMA).execute(&mut held).await?;
        loop {
            let some: Vec<Row> = rows.take(LOAD).collect();
            if some.is_empty() {
                break;
            }
            insert(&mut held, some).await?;
        }
        let pool = SqlitePoolOptions::new()
            .max_connections(self.connections)
            .min_connections(self.connections)
            .acquire_timeout(Duration::from_secs(120))
            .connect_with(options)
            .await?;
        self.open = Some(Open { held: Mutex::new(held), pool });
        Ok(())
    }

    async fn get(&self, id: &str) -> Result<Option<Row>> {
        let mut held = self.open()?.held.lock().await;
        let row = sqlx::query(GET).bind(id).fetch_optional(&mut *held).await?;
        row.as_ref().map(decode).transpose()
    }

    async fn query(&self, bucket: i64) -> Result<Vec<Row>> {
        let mut held = self.open()?.held.lock().await;
        let rows = sqlx::query(QUERY).bind(bucket).fetch_all(&mut *held).await?;
        rows.iter().map(decode).collect()
    }

    async fn insert_batch(&self, rows: Vec<Row>) -> Result<()> {
        insert(&mut *self.open()?.held.lock().await, rows).await
    }

    async fn insert_one(&self, row: Row) -> Result<()> {
        let done = bind(row).execute(&self.open()?.pool).await?;
        if done.rows_affected() != 1 {
            bail!("an insert added {} rows", done.rows_affected());
        }
        Ok(())
    }

    async fn count(&self) -> Result<u64> {
        let mut held = self.open()?.held.lock().await;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM items").fetch_one(&mut *held).await?;
        Ok(u64::try_from(count)?)
    }
}

/// One transaction, one prepared statement, a row at a time.
async fn insert(connection: &mut SqliteConnection, rows: Vec<Row>) -> Result<()> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for row in rows {
        bind(row).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

fn bind(row: Row) -> sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    sqlx::query(INSERT).bind(row.id).bind(row.name).bind(row.status).bind(row.bucket).bind(row.score).bind(row.created)
}

fn decode(row: &SqliteRow) -> Result<Row> {
    Ok(Row {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        status: row.try_get(2)?,
        bucket: row.try_get(3)?,
        score: row.try_get(4)?,
        created: row.try_get(5)?,
    })
}
