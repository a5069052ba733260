//! What is done with a receipt: finish, change, give up.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use storage_core::{Error, MessageUpdate, QueueName, Receipt, Result, clock, value};
use storage_sql::SqlValue;
use tokio_postgres::Row;

use crate::bind::Param;
use crate::connection::{Connection, Step};
use crate::error::{OrExplain as _, PgResult};
use crate::messages::write_attributes;
use crate::queues::{BURY, Queue, home};

/// That time has not made a dead letter of the message, though nobody has written that down yet.
fn alive(now: &str, cap: &str) -> String {
    format!(
        "(state > 0 AND visible_at <= {now} AND deliveries >= {cap}::bigint) IS NOT TRUE AND \
         ((state = 0 OR visible_at <= {now}) AND expires_at <= {now}) IS NOT TRUE"
    )
}

/// A receipt, taken apart.
#[derive(Clone, Copy, Debug)]
struct Lease {
    id: i64,
    lease: i64,
}

/// The mark of a new lease: random, so that a receipt can't be guessed, nor ever be good again.
pub(crate) fn new_lease() -> i64 {
    let random = uuid::Uuid::new_v4().as_u64_pair().1 & i64::MAX.unsigned_abs();
    i64::try_from(random).unwrap_or(1).max(1)
}

/// The receipt for a lease.
pub(crate) fn receipt_for(id: i64, lease: i64) -> Receipt {
    Receipt(format!("{id}-{lease}"))
}

fn parse(receipt: &Receipt) -> Result<Lease> {
    let parts =
        receipt.0.split_once('-').and_then(|(id, lease)| Some(Lease { id: id.parse().ok()?, lease: lease.parse().ok()? }));
    // Zero stands for no lease at all.
    let parts = parts.filter(|parts| parts.lease > 0);
    parts.ok_or_else(|| Error::invalid("this is no receipt: use the one that came with the message, as it is"))
}

fn lost() -> Error {
    Error::lease_lost("the message was received again, updated, removed or dead-lettered since this receipt was made")
}

/// The messages that are to be removed, each by its receipt.
pub(crate) struct Deletion(Vec<Result<Lease>>);

impl Deletion {
    pub(crate) fn new(receipts: &[Receipt]) -> Self {
        Self(receipts.iter().map(parse).collect())
    }

    fn leases(&self) -> impl Iterator<Item = Lease> {
        self.0.iter().filter_map(|lease| lease.as_ref().ok().copied())
    }

    pub(crate) async fn step<'a>(&self, connection: &Connection, queue: &Queue, now: DateTime<Utc>) -> PgResult<Step<'a>> {
        // What is left of those given is somebody else's by now.
        let alive = alive("$3", "$4");
        let delete = format!(
            "WITH given AS (SELECT * FROM unnest($1::bigint[], $2::bigint[]) g (id, lease)), \
             gone AS (DELETE FROM _storage_messages m USING given WHERE m.id = given.id AND m.lease = given.lease AND m.lane = $5 AND {alive} \
             RETURNING m.id) \
             SELECT m.id FROM _storage_messages m WHERE m.id = ANY ($1) AND m.lane IN ($6, $7) AND m.id NOT IN (SELECT id FROM gone)"
        );
        let values = vec![
            Param::integers(self.leases().map(|lease| lease.id)),
            Param::integers(self.leases().map(|lease| lease.lease)),
            Param::time(now),
            queue.cap().into(),
            queue.lane().into(),
            queue.home().into(),
            queue.letters().into(),
        ];
        Ok((connection.prepare(&delete.into()).await?, values))
    }

    pub(crate) fn read(self, rows: &[Row]) -> Result<Vec<Result<()>>> {
        let left: HashSet<i64> = rows.iter().map(|found| found.try_get(0).or_explain()).collect::<Result<_>>()?;
        Ok(self.0.into_iter().map(|lease| if left.contains(&lease?.id) { Err(lost()) } else { Ok(()) }).collect())
    }
}

/// A change of a leased message.
pub(crate) struct Update {
    receipt: Receipt,
    renewed: i64,
}

impl Update {
    pub(crate) fn new(receipt: &Receipt) -> Self {
        Self { receipt: receipt.clone(), renewed: new_lease() }
    }

    pub(crate) async fn step<'a>(
        &self,
        connection: &Connection,
        queue: &Queue,
        change: &'a MessageUpdate,
        now: DateTime<Utc>,
    ) -> Result<Step<'a>> {
        // Here and not before: that there is no such queue comes first.
        let lease = parse(&self.receipt)?;
        let alive = alive("$3", "$4");
        let update = format!(
            "UPDATE _storage_messages m SET lease = $6, state = CASE WHEN $7::timestamptz IS NULL THEN m.state ELSE 1 END, \
             visible_at = coalesce($7, m.visible_at), body = coalesce($8, m.body), \
             attributes = CASE WHEN $9 THEN $10::jsonb ELSE m.attributes END \
             WHERE m.id = $1 AND m.lease = $2 AND m.lane = $5 AND {alive} RETURNING m.id"
        );
        let until = change.visibility.map(|visibility| SqlValue::Timestamp(clock::add(now, visibility)));
        let body = change.body.as_ref().map(|body| SqlValue::Bytes(body.as_ref().into()));
        let attributes = change.attributes.as_ref().map(write_attributes).transpose()?;
        let values = vec![
            lease.id.into(),
            lease.lease.into(),
            Param::time(now),
            queue.cap().into(),
            queue.lane().into(),
            self.renewed.into(),
            until.unwrap_or(SqlValue::Null).into(),
            body.unwrap_or(SqlValue::Null).into(),
            SqlValue::Boolean(attributes.is_some()).into(),
            attributes.unwrap_or(SqlValue::Null).into(),
        ];
        Ok((connection.prepare(&update.into()).await.or_explain()?, values))
    }

    pub(crate) fn read(&self, rows: &[Row]) -> Result<Receipt> {
        if rows.is_empty() { Err(lost()) } else { Ok(receipt_for(parse(&self.receipt)?.id, self.renewed)) }
    }
}

/// What makes a leased message a dead letter.
pub(crate) async fn bury<'a>(
    connection: &Connection,
    queue: &Queue,
    name: &QueueName,
    receipt: &Receipt,
    reason: &'a str,
    now: DateTime<Utc>,
) -> Result<Step<'a>> {
    let lease = parse(receipt)?;
    let alive = alive("$2", "$6");
    let update = format!("{BURY} WHERE id = $7 AND lease = $8 AND lane = $9 AND {alive} RETURNING id");
    let text = |text: String| Param::One(SqlValue::Text(text.into()));
    let values = vec![
        queue.letters().into(),
        Param::time(now),
        text(home(name).to_string()),
        text(value::timestamp(now)),
        reason.into(),
        queue.cap().into(),
        lease.id.into(),
        lease.lease.into(),
        queue.lane().into(),
    ];
    Ok((connection.prepare(&update.into()).await.or_explain()?, values))
}

/// Whether it became one.
pub(crate) fn buried(rows: &[Row]) -> Result<()> {
    if rows.is_empty() { Err(lost()) } else { Ok(()) }
}
