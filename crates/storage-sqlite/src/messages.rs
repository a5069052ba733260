//! Sending messages and looking at them.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Row};
use storage_core::{Count, Error, Message, MessageId, NewMessage, QueueName, QueueStats, Result, Sent, clock};

use crate::error::OrExplain;
use crate::queues::{DELAYED, LEASED, Queue, READY, look_up, micros, read_attributes, write_attributes};
use crate::session::Session;

/// The columns that [`read`] reads, in its order.
pub(crate) const COLUMNS: &str = "id, priority, deliveries, enqueued_at, expires_at, content_type, attributes, body";

/// Sends messages, in order.
pub(crate) fn send(session: &mut Session<'_>, name: &QueueName, messages: &[NewMessage]) -> Result<Vec<Sent>> {
    name.dead_letter()?;
    let queue = look_up(session, name)?;
    let insert = "INSERT INTO _storage_messages (id, lane, priority, state, visible_at, lease, deliveries, enqueued_at, expires_at, \
                  content_type, attributes, body) VALUES (?1, ?2, ?3, ?4, ?5, random() & 9223372036854775807, 0, ?6, ?7, ?8, ?9, ?10)";
    let mut insert = session.connection.prepare_cached(insert).or_explain()?;
    let mut sent = Vec::with_capacity(messages.len());
    let mut ready = 0;
    if messages.iter().any(|message| message.ttl.is_some() || !message.delay.is_zero()) {
        session.unsettle();
    }
    for message in messages {
        if let Some(first) = duplicate_of(session, &queue, message)? {
            sent.push(Sent { id: id_of(first), duplicate: true });
            continue;
        }
        let id = session.new_message_id()?;
        remember(session, &queue, message, id)?;
        let delayed = !message.delay.is_zero();
        let now = session.micros();
        let values = (
            id,
            queue.lane(),
            message.priority,
            if delayed { DELAYED } else { READY },
            if delayed { clock::add(session.now, message.delay).timestamp_micros() } else { now },
            now,
            message.ttl.map(|ttl| clock::add(session.now, ttl).timestamp_micros()),
            message.content_type.as_deref(),
            write_attributes(&message.attributes)?,
            message.body.as_ref(),
        );
        insert.execute(values).or_explain()?;
        ready += usize::from(!delayed);
        sent.push(Sent { id: id_of(id), duplicate: false });
    }
    // Also of a delayed one alone: who waits has to know until when.
    session.news.push((queue.lane(), ready.max(1)));
    Ok(sent)
}

fn id_of(id: i64) -> MessageId {
    MessageId(id.to_string())
}

/// The message that was sent first with the same dedup id.
fn duplicate_of(session: &Session<'_>, queue: &Queue, message: &NewMessage) -> Result<Option<i64>> {
    let Some(dedup_id) = &message.dedup_id else { return Ok(None) };
    let select = "SELECT message FROM _storage_dedup WHERE queue = ?1 AND dedup_id = ?2 AND until > ?3";
    session
        .connection
        .prepare_cached(select)
        .and_then(|mut select| select.query_row((queue.id, dedup_id, session.micros()), |row| row.get(0)).optional())
        .or_explain()
}

fn remember(session: &Session<'_>, queue: &Queue, message: &NewMessage, id: i64) -> Result<()> {
    let (Some(dedup_id), false) = (&message.dedup_id, queue.spec.dedup_window.is_zero()) else { return Ok(()) };
    let insert = "INSERT OR REPLACE INTO _storage_dedup (queue, dedup_id, message, until) VALUES (?1, ?2, ?3, ?4)";
    let until = session.micros().saturating_add(micros(queue.spec.dedup_window));
    session
        .connection
        .prepare_cached(insert)
        .and_then(|mut insert| insert.execute((queue.id, dedup_id, id, until)))
        .or_explain()?;
    Ok(())
}

/// A time that is stored as microseconds.
pub(crate) fn time(micros: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| Error::corrupt("a message has a time that there is not"))
}

/// The message in a row of [`COLUMNS`].
pub(crate) fn read(row: &Row<'_>) -> Result<Message> {
    let id: i64 = row.get(0).or_explain()?;
    let body = row.get_ref(7).and_then(|body| Ok(Bytes::copy_from_slice(body.as_blob()?))).or_explain()?;
    let attributes = row.get_ref(6).and_then(|text| Ok(text.as_str_or_null()?)).or_explain()?;
    Ok(Message {
        id: id_of(id),
        body,
        attributes: read_attributes(attributes)?,
        content_type: row.get(5).or_explain()?,
        priority: row.get(1).or_explain()?,
        deliveries: row.get(2).or_explain()?,
        enqueued_at: time(row.get(3).or_explain()?)?,
        expires_at: row.get::<_, Option<i64>>(4).or_explain()?.map(time).transpose()?,
    })
}

/// Up to `max` ready messages, in the order in which they would be received.
pub(crate) fn peek(connection: &Connection, lane: i64, max: u32) -> Result<Vec<Message>> {
    let select =
        format!("SELECT {COLUMNS} FROM _storage_messages WHERE lane = ?1 AND state = 0 ORDER BY priority DESC, id LIMIT ?2");
    let mut select = connection.prepare_cached(&select).or_explain()?;
    let mut rows = select.query((lane, max)).or_explain()?;
    let mut messages = Vec::new();
    while let Some(row) = rows.next().or_explain()? {
        messages.push(read(row)?);
    }
    Ok(messages)
}

/// How full a queue is that was just [settled](crate::queues::settle).
pub(crate) fn stats(connection: &Connection, queue: &Queue) -> Result<QueueStats> {
    let (ready, oldest_ready) = count(connection, "state = 0", queue.lane())?;
    let (delayed, oldest_delayed) = count(connection, &format!("state > 0 AND state = {DELAYED}"), queue.lane())?;
    let (leased, oldest_leased) = count(connection, &format!("state > 0 AND state = {LEASED}"), queue.lane())?;
    let dead = if queue.dead {
        0
    } else {
        count(connection, "state = 0", queue.letters())?.0 + count(connection, "state > 0", queue.letters())?.0
    };
    // Ids grow with time.
    let oldest = match [oldest_ready, oldest_delayed, oldest_leased].into_iter().flatten().min() {
        None => None,
        Some(id) => {
            let select = "SELECT enqueued_at FROM _storage_messages WHERE id = ?1";
            Some(time(connection.query_row(select, [id], |row| row.get(0)).or_explain()?)?)
        }
    };
    let [ready, delayed, leased, dead] = [ready, delayed, leased, dead].map(Count::Exact);
    Ok(QueueStats { ready, delayed, leased, dead, oldest })
}

/// How many messages of a lane there are, and the oldest one's id.
fn count(connection: &Connection, condition: &str, lane: i64) -> Result<(u64, Option<i64>)> {
    let select = format!("SELECT count(*), min(id) FROM _storage_messages WHERE lane = ?1 AND {condition}");
    let mut select = connection.prepare_cached(&select).or_explain()?;
    let (count, oldest): (i64, Option<i64>) = select.query_row([lane], |row| Ok((row.get(0)?, row.get(1)?))).or_explain()?;
    Ok((count.unsigned_abs(), oldest))
}
