//! The baseline of the queue: a table and three statements, each for a whole batch, by sqlx with a connection for each worker.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::sync::Mutex;

use crate::brokers::{Subject, fresh_name};
use crate::queue::drive::{AsyncQueue, QueueCase, QueueRound, drive_async};
use crate::subject::{Named, Role};

pub(super) struct Raw {
    pub(super) address: String,
}

impl Named for Raw {
    fn name(&self) -> String {
        "batched SQL by hand (sqlx)".to_owned()
    }

    fn role(&self) -> Role {
        Role::Baseline
    }

    fn note(&self) -> String {
        "arrays in, `UPDATE … FOR UPDATE SKIP LOCKED … RETURNING`, deletes by id and delivery; leases and a count of deliveries, \
         neither delays, times to live, dead letters nor notifications"
            .to_owned()
    }
}

#[async_trait]
impl Subject for Raw {
    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let table = fresh_name();
        let mut first = PgConnection::connect(&self.address).await?;
        sqlx::raw_sql(AssertSqlSafe(schema(&table))).execute(&mut first).await?;
        let mut connections = Vec::with_capacity(case.workers);
        for _ in 0..case.workers {
            connections.push(Mutex::new(PgConnection::connect(&self.address).await?));
        }
        let round = drive_async(Arc::new(Queue { connections, statements: Statements::new(&table) }), *case).await;
        sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE \"{table}\""))).execute(&mut first).await?;
        round
    }
}

fn schema(table: &str) -> String {
    format!(
        "CREATE TABLE \"{table}\" (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            body bytea NOT NULL,
            visible_at timestamptz NOT NULL DEFAULT now(),
            deliveries integer NOT NULL DEFAULT 0
        );"
    )
}

/// The texts, which the client prepares once on each connection.
struct Statements {
    send: &'static str,
    claim: &'static str,
    delete: &'static str,
    count: &'static str,
}

impl Statements {
    /// Of a table that no other round has. They are few and live as long as the program.
    fn new(table: &str) -> Self {
        let keep = |text: String| -> &'static str { text.leak() };
        Self {
            send: keep(format!("INSERT INTO \"{table}\" (body) SELECT * FROM unnest($1::bytea[])")),
            claim: keep(format!(
                "UPDATE \"{table}\" SET visible_at = now() + interval '30 seconds', deliveries = deliveries + 1
                 WHERE id = ANY (ARRAY(
                    SELECT id FROM \"{table}\" WHERE visible_at <= now() ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
                 )) RETURNING id, deliveries, body"
            )),
            delete: keep(format!(
                "DELETE FROM \"{table}\" AS message USING unnest($1::bigint[], $2::integer[]) AS done (id, deliveries)
                 WHERE message.id = done.id AND message.deliveries = done.deliveries"
            )),
            count: keep(format!("SELECT count(*) FROM \"{table}\"")),
        }
    }
}

struct Queue {
    connections: Vec<Mutex<PgConnection>>,
    statements: Statements,
}

#[async_trait]
impl AsyncQueue for Queue {
    type Receipt = (i64, i32);

    async fn send(&self, worker: usize, bodies: &[Bytes]) -> Result<()> {
        let bodies: Vec<&[u8]> = bodies.iter().map(|body| &body[..]).collect();
        sqlx::query(self.statements.send).bind(bodies).execute(&mut *self.connections[worker].lock().await).await?;
        Ok(())
    }

    async fn receive(&self, worker: usize, max: usize) -> Result<Vec<(Self::Receipt, Bytes)>> {
        let claim = sqlx::query(self.statements.claim).bind(i64::try_from(max)?);
        let rows = claim.fetch_all(&mut *self.connections[worker].lock().await).await?;
        rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), Bytes::from(row.try_get::<Vec<u8>, _>(2)?)))).collect()
    }

    async fn delete(&self, worker: usize, receipts: Vec<Self::Receipt>) -> Result<()> {
        let (ids, deliveries): (Vec<i64>, Vec<i32>) = receipts.into_iter().unzip();
        let count = ids.len() as u64;
        let delete = sqlx::query(self.statements.delete).bind(ids).bind(deliveries);
        let done = delete.execute(&mut *self.connections[worker].lock().await).await?.rows_affected();
        ensure!(done == count, "{done} of {count} messages were still held");
        Ok(())
    }

    async fn left(&self) -> Result<u64> {
        let first = self.connections.first().context("no workers")?;
        let count: i64 = sqlx::query_scalar(self.statements.count).fetch_one(&mut *first.lock().await).await?;
        Ok(u64::try_from(count)?)
    }

    async fn settings(&self) -> Result<String> {
        Ok(String::new())
    }
}
