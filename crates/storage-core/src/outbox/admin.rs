//! Looking after an outbox: what waits, what is set aside, once more, away with it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;

use super::Outbox;
use super::row::Row;
use crate::{
    Attributes, Batch, Error, ErrorKind, Expect, Filter, PageToken, Query, QueueName, Record, Result, ResultExt as _, Write,
    fields, value,
};

/// How many rows are gone through at a time.
const PAGE: u32 = 100;

/// Which messages of an outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxState {
    /// All of them.
    #[default]
    All,
    /// Those that are to be sent.
    Waiting,
    /// Those that are set aside.
    Failed,
}

/// A message in an outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutboxEntry {
    /// Its id: the dedup id of its sending, unless it has one of its own.
    pub id: String,
    /// Where it is to be sent.
    pub queue: QueueName,
    /// How many bytes its body has.
    pub bytes: usize,
    /// Its attributes.
    pub attributes: Attributes,
    /// Its own dedup id.
    pub dedup_id: Option<String>,
    /// When it was committed.
    pub created_at: DateTime<Utc>,
    /// It does not arrive before.
    pub not_before: Option<DateTime<Utc>>,
    /// From when on it is a dead letter.
    pub good_until: Option<DateTime<Utc>>,
    /// When a relay tries it next. `None`: it is set aside.
    pub due_at: Option<DateTime<Utc>>,
    /// Until then somebody has it in hand.
    pub claimed_until: Option<DateTime<Utc>>,
    /// How often a relay has tried to send it.
    pub attempts: u32,
    /// How often the queue has refused it.
    pub refusals: u32,
    /// Why it could not be sent, the last time.
    pub error: Option<String>,
    /// Since when it is set aside.
    pub failed_at: Option<DateTime<Utc>>,
}

impl From<Row> for OutboxEntry {
    fn from(row: Row) -> Self {
        // Four characters stand for three bytes.
        let bytes = row.body.trim_end_matches('=').len() * 3 / 4;
        Self {
            id: row.id,
            queue: row.queue,
            bytes,
            attributes: row.attributes,
            dedup_id: row.dedup_id,
            created_at: row.created_at,
            not_before: row.not_before,
            good_until: row.good_until,
            due_at: row.due_at,
            claimed_until: row.claimed_until,
            attempts: row.attempts,
            refusals: row.refusals,
            error: row.error,
            failed_at: row.failed_at,
        }
    }
}

/// A page of messages, oldest first.
#[derive(Clone, Debug, Default)]
pub struct OutboxPage {
    /// The messages.
    pub entries: Vec<OutboxEntry>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PageToken>,
}

impl Outbox {
    /// One page of what is in the outbox, oldest first.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a bad limit or token; the records'.
    pub async fn list(&self, state: OutboxState, limit: u32, after: Option<PageToken>) -> Result<OutboxPage> {
        let list = async {
            let (rows, next) = self.inner.page(&self.query(state)?.limit(limit).after(after)).await?;
            let entries = rows.into_iter().map(|row| row.map(OutboxEntry::from)).collect::<Result<_>>()?;
            Ok::<_, Error>(OutboxPage { entries, next })
        };
        list.await.context("outbox.list", || "the outbox".into())
    }

    /// How many messages are in the outbox.
    ///
    /// # Errors
    /// The records'.
    pub async fn count(&self, state: OutboxState) -> Result<u64> {
        match self.inner.rows.count(&self.query(state)?).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            outcome => outcome.context("outbox.count", || "the outbox".into()),
        }
    }

    fn query(&self, state: OutboxState) -> Result<Query> {
        let query = Query::table(self.inner.options.table.as_str())?;
        // Ids grow with the time.
        Ok(match state {
            OutboxState::All => query,
            OutboxState::Waiting => query.filter(Filter::is_null("failed_at")?),
            OutboxState::Failed => query.filter(!Filter::is_null("failed_at")?),
        })
    }

    /// Makes a message due now that is set aside or waits to be tried again. One whose time to live was over has none any more. `false`: there is no
    /// such message, or somebody has just sent it.
    ///
    /// # Errors
    /// The records'.
    pub async fn retry(&self, id: &str) -> Result<bool> {
        let retry = async {
            let Some(record) = self.record(id).await? else { return Ok(false) };
            self.write(self.again(&Row::from_record(record)?)).await
        };
        retry.await.context("outbox.retry", || subject(id))
    }

    /// Makes all messages due that are set aside. Answers how many.
    ///
    /// # Errors
    /// The records'.
    pub async fn retry_failed(&self) -> Result<u64> {
        let retry = async {
            let (mut retried, mut next) = (0, Some(self.query(OutboxState::Failed)?.limit(PAGE)));
            while let Some(query) = next {
                let (rows, token) = self.inner.page(&query).await?;
                for row in rows {
                    retried += u64::from(self.write(self.again(&row?)).await?);
                }
                next = token.map(|token| query.after(Some(token)));
            }
            Ok::<_, Error>(retried)
        };
        retry.await.context("outbox.retry", || "all messages that are set aside".into())
    }

    /// Removes a message for good: it will not be sent, unless somebody is just sending it. `false`: there is none.
    ///
    /// # Errors
    /// The records'.
    pub async fn remove(&self, id: &str) -> Result<bool> {
        let remove = async {
            // A damaged one is removed as well.
            let Some(record) = self.record(id).await? else { return Ok(false) };
            let expect = Expect::Version(record.version);
            self.write(Write::Delete { table: self.inner.options.table.clone(), key: id.into(), expect }).await
        };
        remove.await.context("outbox.remove", || subject(id))
    }

    async fn record(&self, id: &str) -> Result<Option<Record>> {
        match self.inner.rows.get(&self.inner.options.table, id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            outcome => outcome,
        }
    }

    /// A row without what became of it.
    fn again(&self, row: &Row) -> Write {
        let now = self.inner.options.clock.now();
        let due = value::timestamp(now);
        let mut changed = fields(json!({"due_at": due, "claimed_until": null, "failed_at": null, "refusals": 0, "error": null}));
        if row.good_until.is_some_and(|until| until <= now) {
            changed.insert("good_until".into(), serde_json::Value::Null);
        }
        let (table, key, expect) = (self.inner.options.table.clone(), row.id.as_str().into(), Expect::Version(row.version));
        Write::Merge { table, key, fields: changed, expect }
    }

    /// False where the row has changed meanwhile: it was sent, or tried.
    async fn write(&self, write: Write) -> Result<bool> {
        match self.inner.backend.commit(Batch::new().with(write)).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn subject(id: &str) -> String {
    format!("message `{id}` of the outbox")
}
