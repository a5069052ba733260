//! Sending messages and looking at them.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use mysql_async::Value;
use storage_core::{Error, Result, clock};
use storage_sql::row;
use storage_sql::server::{DELAYED, Outgoing, Queue, READY, dedup_ids, sent, write_attributes};

use crate::changes::{Failure, Outcome};
use crate::connection::Connection;
use crate::error::MyResult;
use crate::layout::Found;
use crate::row::{bound, maybe, moment, text};
use crate::statements::{list, portion, repeated, row_of};

/// The columns of a message, in the order in which it is read.
pub(crate) const COLUMNS: &str = "id, -place, deliveries, enqueued_at, expires_at, content_type, attributes, body";
/// How many messages, and how many dedup ids, are written at once.
const ROWS: usize = 128;

/// The numbers that messages got, by those that they had before.
pub(crate) type Numbers = HashMap<i64, i64>;

fn row(outgoing: &Outgoing<'_>, now: DateTime<Utc>) -> Result<(usize, Vec<Value>)> {
    let message = outgoing.message;
    let after = |delay| clock::add(now, delay);
    let (visible, expires) = (after(message.delay), message.ttl.map(after));
    let (state, due) = if message.delay.is_zero() { (READY, expires) } else { (DELAYED, Some(visible)) };
    let attributes = bound(write_attributes(&message.attributes)?);
    let size =
        256 + message.body.len() + message.attributes.iter().map(|(name, value)| name.len() + 2 * value.len() + 8).sum::<usize>();
    let values = vec![
        Value::Int(outgoing.queue.lane()),
        Value::Int(state),
        Value::Int(-i64::from(message.priority)),
        maybe(due),
        moment(now),
        maybe(expires),
        message.content_type.as_deref().map_or(Value::NULL, text),
        attributes,
        Value::Bytes(message.body.to_vec()),
    ];
    Ok((size, values))
}

/// Writes what is sent and is no duplicate. Answers the numbers that the server gave.
pub(crate) async fn write(
    connection: &Connection,
    found: &Found,
    outcomes: &[Outcome<'_>],
    now: DateTime<Utc>,
) -> std::result::Result<Numbers, Failure> {
    let all: Vec<&Outgoing<'_>> = sent(outcomes).filter(|m| m.duplicate_of.is_none()).collect();
    let rows = all.iter().map(|outgoing| row(outgoing, now)).collect::<Result<Vec<_>>>()?;
    let insert = |rows| {
        let head = "INSERT INTO _storage_messages (lane, state, place, deliveries, lease, due_at, enqueued_at, expires_at, content_type, attributes, body)";
        format!("{head} VALUES {}", repeated("(?, ?, ?, 0, 0, ?, ?, ?, ?, ?, ?)", rows))
    };
    let portions = connection.in_portions(rows, ROWS, found.packet, insert).await?;
    // The rows of one statement are numbered in one go.
    let mut given = portions.into_iter().flat_map(|(first, count)| {
        let first = i64::try_from(first).unwrap_or(i64::MAX);
        (0..count).map(move |n| first + i64::try_from(n).unwrap_or(i64::MAX) * found.step)
    });
    let mut numbers = Numbers::new();
    for outgoing in &all {
        numbers.insert(outgoing.id, given.next().ok_or_else(|| Error::internal("there are fewer numbers than messages"))?);
    }
    note_owners(connection, &all, &numbers).await?;
    Ok(numbers)
}

/// Notes by what number the message of a dedup id is known.
async fn note_owners(connection: &Connection, all: &[&Outgoing<'_>], numbers: &Numbers) -> MyResult<()> {
    let windowed = all.iter().filter(|outgoing| !outgoing.queue.spec.dedup_window.is_zero());
    let mut rows: BTreeMap<(i64, &str), i64> = BTreeMap::new();
    for outgoing in windowed {
        if let (Some(id), Some(number)) = (&outgoing.message.dedup_id, numbers.get(&outgoing.id)) {
            rows.insert((outgoing.queue.id, id), *number);
        }
    }
    let update = "UPDATE _storage_dedup SET message = ? WHERE queue = ? AND dedup_id = ?";
    for ((queue, id), number) in rows {
        connection.execute(update, vec![Value::Int(number), Value::Int(queue), text(id)]).await?;
    }
    Ok(())
}

/// Gives messages the numbers that the server gave.
pub(crate) fn number(outcomes: &mut [Outcome<'_>], numbers: &Numbers) {
    for outgoing in outcomes.iter_mut().flat_map(|outcome| &mut outcome.messages) {
        let given = |id: i64| numbers.get(&id).copied().unwrap_or(id);
        (outgoing.id, outgoing.duplicate_of) = (given(outgoing.id), outgoing.duplicate_of.map(given));
    }
}

/// Writes down the dedup ids, and notes which messages are duplicates.
pub(crate) async fn remember(connection: &Connection, outcomes: &mut [Outcome<'_>], now: DateTime<Utc>) -> MyResult<Result<()>> {
    let first = dedup_ids(outcomes, now);
    if first.is_empty() {
        return Ok(Ok(()));
    }
    // In the order of the keys, so that two who do the same wait for each other and not in a circle. Zero stands for a message of ours.
    let mut owners: HashMap<(i64, String), i64> = HashMap::new();
    let mut rows: Vec<(i64, &str, DateTime<Utc>)> = first.iter().map(|((queue, id), (_, until))| (*queue, *id, *until)).collect();
    while !rows.is_empty() {
        let portion: Vec<_> = rows.drain(..portion(rows.len(), ROWS)).collect();
        let insert = format!(
            "INSERT INTO _storage_dedup (queue, dedup_id, message, until) VALUES {} ON DUPLICATE KEY UPDATE \
             message = IF(until <= ?, 0, message), until = IF(until <= ?, VALUES(until), until)",
            repeated("(?, ?, 0, ?)", portion.len())
        );
        let mut values: Vec<Value> =
            portion.iter().flat_map(|(queue, id, until)| [Value::Int(*queue), text(id), moment(*until)]).collect();
        values.extend([moment(now), moment(now)]);
        connection.execute(&insert, values).await?;
        let select = format!(
            "SELECT queue, dedup_id, message FROM _storage_dedup WHERE (queue, dedup_id) IN {}",
            list(&row_of(2), portion.len())
        );
        let keys = portion.iter().flat_map(|(queue, id, _)| [Value::Int(*queue), text(id)]).collect();
        for found in connection.query(&select, keys).await? {
            match owner(&found) {
                Ok((key, message)) => drop(owners.insert(key, message)),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    let firsts: HashMap<(i64, String), i64> =
        first.into_iter().map(|((queue, id), (first, _))| ((queue, id.to_owned()), first)).collect();
    for outgoing in outcomes.iter_mut().filter(|outcome| outcome.failed.is_none()).flat_map(|outcome| &mut outcome.messages) {
        let Some(id) = &outgoing.message.dedup_id else { continue };
        let key = (outgoing.queue.id, id.clone());
        let owner = owners.get(&key).map(|owner| if *owner == 0 { firsts.get(&key).copied().unwrap_or(0) } else { *owner });
        outgoing.duplicate_of = owner.filter(|owner| *owner != outgoing.id);
    }
    Ok(Ok(()))
}

fn owner(found: &crate::row::Row) -> Result<((i64, String), i64)> {
    let strange = || row::stranger("dedup id");
    let queue = row::integer(found, 0)?.ok_or_else(strange)?;
    Ok(((queue, row::text(found, 1)?.ok_or_else(strange)?), row::integer(found, 2)?.ok_or_else(strange)?))
}

/// Up to so many ready messages of a lane, in the order in which they would be received.
pub(crate) fn peek_sql() -> String {
    format!("SELECT {COLUMNS} FROM _storage_messages FORCE INDEX (ready) WHERE lane = ? AND state = 0 ORDER BY place, id LIMIT ?")
}

/// How full a queue is, as of now. Dead letters of the companion itself don't count as such.
pub(crate) const STATS: &str = "SELECT COUNT(CASE WHEN lane = ? AND state = 0 THEN 1 END), COUNT(CASE WHEN lane = ? AND state = 2 THEN 1 END), \
                                COUNT(CASE WHEN lane = ? AND state = 1 THEN 1 END), COUNT(CASE WHEN lane <> ? THEN 1 END), \
                                MIN(CASE WHEN lane = ? THEN enqueued_at END) FROM _storage_messages WHERE lane IN (?, ?)";

pub(crate) fn stats_values(queue: &Queue) -> Vec<Value> {
    let lanes = if queue.dead { [queue.lane(); 2] } else { [queue.home(), queue.letters()] };
    [queue.lane(); 5].into_iter().chain(lanes).map(Value::Int).collect()
}
