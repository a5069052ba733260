//! What is done with a receipt: finish, change, give up.

use rusqlite::OptionalExtension as _;
use storage_core::{MessageUpdate, QueueName, Receipt, Result, clock};
use storage_sql::server::{Lease, lease_lost, parse_receipt, receipt_for};

use crate::error::OrExplain;
use crate::queues::{LEASED, NEW_LEASE, Queue, bury, present, settle, write_attributes};
use crate::session::Session;

/// Removes the messages of these receipts, each on its own.
pub(crate) fn delete(session: &mut Session<'_>, name: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
    let queue = present(session, name)?;
    let delete = "DELETE FROM _storage_messages WHERE id = ?1 AND lane = ?2 AND lease = ?3";
    let mut delete = session.connection.prepare_cached(delete).or_explain()?;
    let mut results = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let lease = match parse_receipt(receipt) {
            Ok(lease) => lease,
            Err(error) => {
                results.push(Err(error));
                continue;
            }
        };
        let removed = delete.execute((lease.id, queue.lane(), lease.lease)).or_explain()?;
        let gone = removed > 0 || !exists(session, &queue, lease.id)?;
        results.push(if gone { Ok(()) } else { Err(lease_lost()) });
    }
    Ok(results)
}

/// True where the queue, or its companion, has the message.
fn exists(session: &Session<'_>, queue: &Queue, id: i64) -> Result<bool> {
    let select = "SELECT EXISTS (SELECT 1 FROM _storage_messages WHERE id = ?1 AND lane IN (?2, ?3))";
    session
        .connection
        .prepare_cached(select)
        .and_then(|mut select| select.query_row((id, queue.home(), queue.letters()), |row| row.get(0)))
        .or_explain()
}

/// Changes a leased message.
pub(crate) fn update(session: &mut Session<'_>, name: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
    let queue = present(session, name)?;
    let lease = held(session, &queue, receipt)?;
    let until = change.visibility.map(|visibility| clock::add(session.now, visibility).timestamp_micros());
    let attributes = change.attributes.as_ref().map(write_attributes).transpose()?;
    let update = format!(
        "UPDATE _storage_messages SET lease = {NEW_LEASE}, state = CASE WHEN ?2 IS NULL THEN state ELSE {LEASED} END, \
         visible_at = coalesce(?2, visible_at), body = coalesce(?3, body), \
         attributes = CASE WHEN ?4 THEN ?5 ELSE attributes END WHERE id = ?1 RETURNING lease"
    );
    let values = (lease.id, until, change.body.as_deref(), attributes.is_some(), attributes.flatten());
    let renewed: i64 = session
        .connection
        .prepare_cached(&update)
        .and_then(|mut update| update.query_row(values, |row| row.get(0)))
        .or_explain()?;
    if change.visibility.is_some() {
        session.unsettle();
    }
    if change.visibility.is_some_and(|visibility| visibility.is_zero()) {
        // Given back: it is ready at once, or was delivered as often as is allowed.
        settle(session, &queue, name)?;
    }
    Ok(receipt_for(lease.id, renewed))
}

/// Makes a leased message a dead letter.
pub(crate) fn dead_letter(session: &mut Session<'_>, name: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
    name.dead_letter()?;
    let queue = present(session, name)?;
    let lease = held(session, &queue, receipt)?;
    bury(session, &queue, name, lease.id, reason)
}

/// The lease of a receipt that is the message's newest.
fn held(session: &Session<'_>, queue: &Queue, receipt: &Receipt) -> Result<Lease> {
    let lease = parse_receipt(receipt)?;
    let select = "SELECT lease FROM _storage_messages WHERE id = ?1 AND lane = ?2";
    let found: Option<i64> = session
        .connection
        .prepare_cached(select)
        .and_then(|mut select| select.query_row((lease.id, queue.lane()), |row| row.get(0)).optional())
        .or_explain()?;
    if found == Some(lease.lease) { Ok(lease) } else { Err(lease_lost()) }
}
