//! What is done with a receipt: finish, change, give up.

use std::collections::HashSet;

use crate::row::Row;
use chrono::{DateTime, Utc};
use storage_core::{MessageUpdate, QueueName, Receipt, Result, clock, value};
use storage_sql::server::{Deletion, Queue, home, lease_lost, new_lease, parse_receipt, receipt_for, write_attributes};
use storage_sql::{SqlValue, row};

use crate::bind::Param;
use crate::connection::{Connection, Step};
use crate::error::{OrExplain as _, PgResult};
use crate::queues::BURY;

/// That time has not made a dead letter of the message, though nobody has written that down yet.
fn alive(now: &str, cap: &str) -> String {
    format!(
        "(state > 0 AND visible_at <= {now} AND deliveries >= {cap}::bigint) IS NOT TRUE AND \
         ((state = 0 OR visible_at <= {now}) AND expires_at <= {now}) IS NOT TRUE"
    )
}

/// What removes messages by their receipts, and yields those that are somebody else's.
pub(crate) async fn remove<'a>(
    deletion: &Deletion,
    connection: &Connection,
    queue: &Queue,
    now: DateTime<Utc>,
) -> PgResult<Step<'a>> {
    // What is left of those given is somebody else's by now. Nobody looks where all are gone.
    let alive = alive("$3", "$4");
    let delete = format!(
        "WITH given AS (SELECT * FROM unnest($1::bigint[], $2::bigint[]) g (id, lease)), \
             gone AS (DELETE FROM _storage_messages m USING given WHERE m.id = given.id AND m.lease = given.lease AND m.lane = $5 AND {alive} \
             RETURNING m.id) \
             SELECT m.id FROM _storage_messages m WHERE (SELECT count(*) FROM gone) < cardinality($1) AND m.id = ANY ($1) AND \
             m.lane IN ($6, $7) AND m.id NOT IN (SELECT id FROM gone)"
    );
    let values = vec![
        Param::integers(deletion.leases().map(|lease| lease.id)),
        Param::integers(deletion.leases().map(|lease| lease.lease)),
        Param::time(now),
        queue.cap().into(),
        queue.lane().into(),
        queue.home().into(),
        queue.letters().into(),
    ];
    Ok((connection.prepare(&delete.into()).await?, values))
}

/// Which those are.
pub(crate) fn left(rows: &[Row]) -> Result<HashSet<i64>> {
    rows.iter().filter_map(|found| row::integer(found, 0).transpose()).collect()
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
        let lease = parse_receipt(&self.receipt)?;
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
        if rows.is_empty() { Err(lease_lost()) } else { Ok(receipt_for(parse_receipt(&self.receipt)?.id, self.renewed)) }
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
    let lease = parse_receipt(receipt)?;
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
    if rows.is_empty() { Err(lease_lost()) } else { Ok(()) }
}
