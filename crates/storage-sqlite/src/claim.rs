//! Receiving messages.

use rusqlite::Connection;
use storage_core::{Delivery, QueueName, Receipt, Receive, Result, clock};

use crate::error::OrExplain;
use crate::messages::{self, COLUMNS, time};
use crate::queues::{LEASED, NEW_LEASE, Queue, find, settle};
use crate::session::Session;

/// Leases the next messages.
pub(crate) fn claim(session: &mut Session<'_>, name: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
    let queue = find(session.connection, name)?;
    settle(session, &queue, name)?;
    let leased_until = clock::add(session.now, request.visibility);
    let update = format!(
        "UPDATE _storage_messages SET state = {LEASED}, visible_at = ?2, lease = {NEW_LEASE}, deliveries = deliveries + 1 \
         WHERE id IN (SELECT id FROM _storage_messages WHERE lane = ?1 AND state = 0 ORDER BY priority DESC, id LIMIT ?3) \
         RETURNING {COLUMNS}, lease"
    );
    let mut update = session.connection.prepare_cached(&update).or_explain()?;
    let mut rows = update.query((queue.lane(), leased_until.timestamp_micros(), request.max)).or_explain()?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next().or_explain()? {
        let (id, lease): (i64, i64) = (row.get(0).or_explain()?, row.get(8).or_explain()?);
        let delivery = Delivery { message: messages::read(row)?, receipt: Receipt(format!("{id}-{lease}")), leased_until };
        deliveries.push((id, delivery));
    }
    // RETURNING knows no order.
    deliveries.sort_unstable_by(|(a_id, a), (b_id, b)| b.message.priority.cmp(&a.message.priority).then(a_id.cmp(b_id)));
    if deliveries.len() == request.max as usize {
        // There may be more: one receiver that is woken wakes the next.
        session.news.push((queue.lane(), 1));
    }
    Ok(deliveries.into_iter().map(|(_, delivery)| delivery).collect())
}

/// What a receiver that waits wants to know.
pub(crate) struct Outlook {
    pub(crate) lane: i64,
    /// True where a receive could find something now.
    pub(crate) hopeful: bool,
    /// When there will be something, if nobody sends anything: microseconds.
    pub(crate) next: Option<i64>,
}

/// Looks ahead without taking anything.
pub(crate) fn outlook(connection: &Connection, name: &QueueName, now: i64) -> Result<Outlook> {
    let queue = find(connection, name)?;
    let ready = "SELECT EXISTS (SELECT 1 FROM _storage_messages WHERE lane = ?1 AND state = 0)";
    let ready: bool = connection
        .prepare_cached(ready)
        .and_then(|mut select| select.query_row([queue.lane()], |row| row.get(0)))
        .or_explain()?;
    let next = next_change(connection, &queue)?;
    Ok(Outlook { lane: queue.lane(), hopeful: ready || next.is_some_and(|at| at <= now), next })
}

/// When time alone next changes what can be received.
fn next_change(connection: &Connection, queue: &Queue) -> Result<Option<i64>> {
    let visible = "SELECT min(visible_at) FROM _storage_messages WHERE lane = ?1 AND state > 0";
    let expiry = "SELECT min(expires_at) FROM _storage_messages WHERE lane = ?1 AND state = 0 AND expires_at IS NOT NULL";
    let at = |sql: &str, lane: i64| -> Result<Option<i64>> {
        connection.prepare_cached(sql).and_then(|mut select| select.query_row([lane], |row| row.get(0))).or_explain()
    };
    let mut next = at(visible, queue.lane())?;
    if queue.dead {
        // Dead letters come from the queue itself.
        for other in [at(visible, queue.home())?, at(expiry, queue.home())?] {
            next = [next, other].into_iter().flatten().min();
        }
    }
    Ok(next)
}

/// How long until then.
pub(crate) fn until(next: Option<i64>, now: chrono::DateTime<chrono::Utc>) -> Result<Option<std::time::Duration>> {
    next.map(|at| Ok((time(at)? - now).to_std().unwrap_or_default())).transpose()
}
