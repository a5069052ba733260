//! Receiving messages.

use std::time::Duration;

use rusqlite::Connection;
use storage_core::{Delivery, QueueName, Receive, Result, clock};
use storage_sql::server::receipt_for;

use crate::error::OrExplain;
use crate::messages::{self, time};
use crate::queues::{Queue, find, present};
use crate::session::Session;

/// The next messages, each with the mark of the lease it will have.
const SELECT: &str = "SELECT id, priority, deliveries, enqueued_at, expires_at, content_type, attributes, body, \
                      random() & 9223372036854775807 FROM _storage_messages WHERE lane = ?1 AND state = 0 \
                      ORDER BY priority DESC, id LIMIT ?2";
/// State 1 is [`LEASED`](crate::queues::LEASED).
const LEASE: &str =
    "UPDATE _storage_messages SET state = 1, visible_at = ?2, lease = ?3, deliveries = deliveries + 1 WHERE id = ?1";
/// Leases for less than this may be over before the transaction is.
const BRIEF: Duration = Duration::from_millis(1);

/// Leases the next messages.
pub(crate) fn claim(session: &mut Session<'_>, name: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
    let queue = present(session, name)?;
    let leased_until = clock::add(session.now, request.visibility);
    if request.visibility < BRIEF {
        session.unsettle();
    }
    let mut select = session.connection.prepare_cached(SELECT).or_explain()?;
    let mut rows = select.query((queue.lane(), request.max)).or_explain()?;
    let mut leases = Vec::new();
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next().or_explain()? {
        let (id, lease): (i64, i64) = (row.get(0).or_explain()?, row.get(8).or_explain()?);
        leases.push((id, lease));
        deliveries.push(Delivery { message: messages::read(row)?, receipt: receipt_for(id, lease), leased_until });
    }
    // Once all are read: an error in one of them comes before any change.
    let mut update = session.connection.prepare_cached(LEASE).or_explain()?;
    let until = leased_until.timestamp_micros();
    for ((id, lease), delivery) in leases.into_iter().zip(&mut deliveries) {
        update.execute((id, until, lease)).or_explain()?;
        delivery.message.deliveries += 1;
    }
    if deliveries.len() == request.max as usize {
        // There may be more: one receiver that is woken wakes the next.
        session.news.push((queue.lane(), 1));
    }
    Ok(deliveries)
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
pub(crate) fn until(next: Option<i64>, now: chrono::DateTime<chrono::Utc>) -> Result<Option<Duration>> {
    next.map(|at| Ok((time(at)? - now).to_std().unwrap_or_default())).transpose()
}
