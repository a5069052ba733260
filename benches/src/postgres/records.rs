//! The baseline of the records: sqlx with prepared statements on a connection that is held, and a pool for the single inserts.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};
use tokio::sync::Mutex;

use crate::brokers::fresh_name;
use crate::subject::{Named, RecordSubject, Role, Row};

/// Rows per transaction while loading.
const LOAD: usize = 50_000;

/// What is open once the table is loaded.
struct Open {
    held: Mutex<PgConnection>,
    pool: PgPool,
    statements: Statements,
}

/// The texts, which the client prepares once on each connection.
struct Statements {
    get: &'static str,
    query: &'static str,
    insert: &'static str,
    insert_many: &'static str,
    count: &'static str,
}

pub(super) struct Raw {
    address: String,
    connections: u32,
    open: Option<Open>,
}

impl Raw {
    /// With a pool of so many connections.
    pub(super) fn new(address: &str, connections: u32) -> Self {
        Self { address: address.to_owned(), connections, open: None }
    }

    fn open(&self) -> Result<&Open> {
        self.open.as_ref().context("the table is not loaded yet")
    }
}

impl Statements {
    /// Of a table that no other round has. They are few and live as long as the program.
    fn new(table: &str) -> Self {
        let keep = |text: String| -> &'static str { text.leak() };
        let columns = "id, name, status, bucket, score, created";
        Self {
            get: keep(format!("SELECT {columns} FROM \"{table}\" WHERE id = $1")),
            query: keep(format!("SELECT {columns} FROM \"{table}\" WHERE bucket = $1 ORDER BY id")),
            insert: keep(format!("INSERT INTO \"{table}\" ({columns}) VALUES ($1, $2, $3, $4, $5, $6)")),
            insert_many: keep(format!(
                "INSERT INTO \"{table}\" ({columns}) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int8[], $5::float8[], $6::int8[])"
            )),
            count: keep(format!("SELECT count(*) FROM \"{table}\"")),
        }
    }
}

fn schema(table: &str) -> String {
    format!(
        "CREATE TABLE \"{table}\" (
            id text COLLATE \"C\" PRIMARY KEY,
            name text COLLATE \"C\" NOT NULL,
            status text COLLATE \"C\" NOT NULL,
            bucket bigint NOT NULL,
            score double precision NOT NULL,
            created bigint NOT NULL
        );
        CREATE INDEX ON \"{table}\" (bucket, id);"
    )
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
    async fn load(&mut self, _dir: &Path, rows: &mut (dyn Iterator<Item = Row> + Send)) -> Result<()> {
        let mut held = PgConnection::connect(&self.address).await?;
        let table = fresh_name();
        sqlx::raw_sql(AssertSqlSafe(schema(&table))).execute(&mut held).await?;
        let statements = Statements::new(&table);
        loop {
            let some: Vec<Row> = rows.take(LOAD).collect();
            if some.is_empty() {
                break;
            }
            insert(&mut held, &statements, some).await?;
        }
        let pool = PgPoolOptions::new()
            .max_connections(self.connections)
            .min_connections(self.connections)
            .acquire_timeout(Duration::from_secs(120))
            .connect(&self.address)
            .await?;
        self.open = Some(Open { held: Mutex::new(held), pool, statements });
        Ok(())
    }

    async fn get(&self, id: &str) -> Result<Option<Row>> {
        let open = self.open()?;
        let row = sqlx::query(open.statements.get).bind(id).fetch_optional(&mut *open.held.lock().await).await?;
        row.as_ref().map(decode).transpose()
    }

    async fn query(&self, bucket: i64) -> Result<Vec<Row>> {
        let open = self.open()?;
        let rows = sqlx::query(open.statements.query).bind(bucket).fetch_all(&mut *open.held.lock().await).await?;
        rows.iter().map(decode).collect()
    }

    async fn insert_batch(&self, rows: Vec<Row>) -> Result<()> {
        let open = self.open()?;
        insert(&mut *open.held.lock().await, &open.statements, rows).await
    }

    async fn insert_one(&self, row: Row) -> Result<()> {
        let open = self.open()?;
        let done = bind(open.statements.insert, row).execute(&open.pool).await?;
        if done.rows_affected() != 1 {
            bail!("an insert added {} rows", done.rows_affected());
        }
        Ok(())
    }

    async fn count(&self) -> Result<u64> {
        let open = self.open()?;
        let count: i64 = sqlx::query_scalar(open.statements.count).fetch_one(&mut *open.held.lock().await).await?;
        Ok(u64::try_from(count)?)
    }
}

/// One statement for all rows: faster than one for each, which is what a transaction of prepared statements would be.
async fn insert(connection: &mut PgConnection, statements: &Statements, rows: Vec<Row>) -> Result<()> {
    let (mut ids, mut names, mut states) = (Vec::new(), Vec::new(), Vec::new());
    let (mut buckets, mut scores, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        ids.push(row.id);
        names.push(row.name);
        states.push(row.status);
        buckets.push(row.bucket);
        scores.push(row.score);
        times.push(row.created);
    }
    let insert = sqlx::query(statements.insert_many).bind(ids).bind(names).bind(states).bind(buckets).bind(scores).bind(times);
    insert.execute(connection).await?;
    Ok(())
}

fn bind(statement: &'static str, row: Row) -> sqlx::query::Query<'static, sqlx::Postgres, PgArguments> {
    sqlx::query(statement).bind(row.id).bind(row.name).bind(row.status).bind(row.bucket).bind(row.score).bind(row.created)
}

fn decode(row: &PgRow) -> Result<Row> {
    Ok(Row {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        status: row.try_get(2)?,
        bucket: row.try_get(3)?,
        score: row.try_get(4)?,
        created: row.try_get(5)?,
    })
}
