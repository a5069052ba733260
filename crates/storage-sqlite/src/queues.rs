//! Queues themselves, and what time does to their messages, within a write transaction.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};
use storage_core::message::dead;
use storage_core::{Attributes, Error, QueueName, QueueSpec, Result, value};

use crate::connection::run;
use crate::error::OrExplain;
use crate::session::{Known, Session};

/// A message that can be received.
pub(crate) const READY: i64 = 0;
/// A message with a consumer, or one given back with a delay. 0 and 1 take no bytes in a record: a first lease leaves the record's length as it
/// is, and SQLite then overwrites the few bytes that differ instead of storing the message, with the pages of its body, anew.
pub(crate) const LEASED: i64 = 1;
/// A message that was sent with a delay.
pub(crate) const DELAYED: i64 = 2;

/// The mark of a new lease, in SQL. Random, so that a receipt can't be guessed, nor ever be good again. What was never leased has one too, which
/// nobody knows: it takes the room of the later ones.
pub(crate) const NEW_LEASE: &str = "random() & 9223372036854775807";

/// A queue, or its companion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    pub(crate) id: i64,
    pub(crate) spec: QueueSpec,
    /// True for the companion that holds the dead letters.
    pub(crate) dead: bool,
}

impl Queue {
    /// Where the messages of this one are.
    pub(crate) fn lane(&self) -> i64 {
        self.home() + i64::from(self.dead)
    }

    /// Where the live messages are.
    pub(crate) fn home(&self) -> i64 {
        2 * self.id
    }

    /// Where the dead letters are.
    pub(crate) fn letters(&self) -> i64 {
        self.home() + 1
    }
}

/// The queue of that name, or the companion.
pub(crate) fn find(connection: &Connection, name: &QueueName) -> Result<Queue> {
    let home = name.dead_letter_of();
    let select = "SELECT id, max_deliveries, dedup_window FROM _storage_queues WHERE name = ?1";
    let found = connection
        .prepare_cached(select)
        .and_then(|mut select| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?));
            select.query_row([home.as_ref().unwrap_or(name).as_str()], row).optional()
        })
        .or_explain()?;
    let (id, max_deliveries, window) =
        found.ok_or_else(|| Error::not_found(format!("there is no queue `{name}`: create it first")))?;
    let spec = QueueSpec { max_deliveries, dedup_window: Duration::from_micros(window.unsigned_abs()) };
    Ok(Queue { id, spec, dead: home.is_some() })
}

/// As [`find`], at most once for all jobs of a transaction.
pub(crate) fn look_up(session: &mut Session<'_>, name: &QueueName) -> Result<Queue> {
    if let Some(known) = session.known.iter().find(|known| known.name == *name) {
        return Ok(known.queue);
    }
    let queue = find(session.connection, name)?;
    session.remember(Known { name: name.clone(), queue, settled: false });
    Ok(queue)
}

/// A queue that was [brought up to the present](settle), which is one and the same for all jobs of a transaction.
pub(crate) fn present(session: &mut Session<'_>, name: &QueueName) -> Result<Queue> {
    let queue = look_up(session, name)?;
    if session.known.iter().any(|known| known.settled && known.queue.id == queue.id) {
        return Ok(queue);
    }
    settle(session, &queue, name)?;
    session.known.iter_mut().filter(|known| known.name == *name).for_each(|known| known.settled = true);
    Ok(queue)
}

/// All queues but the companions, by name.
pub(crate) fn names(connection: &Connection) -> Result<Vec<QueueName>> {
    let mut select = connection.prepare_cached("SELECT name FROM _storage_queues ORDER BY name").or_explain()?;
    let mut rows = select.query([]).or_explain()?;
    let mut names = Vec::new();
    while let Some(row) = rows.next().or_explain()? {
        let name: String = row.get(0).or_explain()?;
        names.push(QueueName::new(name)?);
    }
    Ok(names)
}

/// Creates a queue. `false`: it is there with the same spec.
pub(crate) fn create(session: &mut Session<'_>, name: &QueueName, spec: &QueueSpec) -> Result<bool> {
    name.dead_letter()?;
    spec.check()?;
    match find(session.connection, name) {
        Ok(there) if there.spec == *spec => return Ok(false),
        Ok(there) => return Err(Error::already_exists(format!("it is there with another spec: {:?}", there.spec))),
        Err(error) if error.kind() != storage_core::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let insert = "INSERT INTO _storage_queues (name, max_deliveries, dedup_window) VALUES (?1, ?2, ?3)";
    let values = (name.as_str(), spec.max_deliveries, micros(spec.dedup_window));
    session.known.clear();
    session.connection.execute(insert, values).or_explain()?;
    Ok(true)
}

/// A duration in microseconds.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Removes a queue with everything in it. `false`: there is none.
pub(crate) fn remove(session: &mut Session<'_>, name: &QueueName) -> Result<bool> {
    name.dead_letter()?;
    let queue = match find(session.connection, name) {
        Ok(queue) => queue,
        Err(error) if error.kind() == storage_core::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    session.known.clear();
    for lane in [queue.home(), queue.letters()] {
        clear(session, lane)?;
        // Who waits learns that there is nothing to wait for.
        session.news.push((lane, usize::MAX));
    }
    session.connection.execute("DELETE FROM _storage_dedup WHERE queue = ?1", [queue.id]).or_explain()?;
    session.connection.execute("DELETE FROM _storage_queues WHERE id = ?1", [queue.id]).or_explain()?;
    Ok(true)
}

/// Removes all messages of a lane.
pub(crate) fn clear(session: &Session<'_>, lane: i64) -> Result<u64> {
    let mut removed = 0;
    // One statement for each partial index.
    for delete in [
        "DELETE FROM _storage_messages WHERE lane = ?1 AND state = 0",
        "DELETE FROM _storage_messages WHERE lane = ?1 AND state > 0",
    ] {
        removed += session.connection.execute(delete, [lane]).or_explain()?;
    }
    Ok(removed as u64)
}

/// What time has changed in a queue, as bits: live messages are due, dead letters are, live ones have expired.
fn due(connection: &Connection, queue: &Queue, now: i64) -> Result<i64> {
    let probe = "SELECT EXISTS (SELECT 1 FROM _storage_messages WHERE lane = ?1 AND state > 0 AND visible_at <= ?3) \
                 + 2 * EXISTS (SELECT 1 FROM _storage_messages WHERE lane = ?2 AND state > 0 AND visible_at <= ?3) \
                 + 4 * EXISTS (SELECT 1 FROM _storage_messages WHERE lane = ?1 AND state = 0 AND expires_at <= ?3)";
    connection
        .prepare_cached(probe)
        .and_then(|mut probe| probe.query_row((queue.home(), queue.letters(), now), |row| row.get(0)))
        .or_explain()
}

/// True where [`settle`] has nothing to do.
pub(crate) fn is_settled(connection: &Connection, queue: &Queue, now: i64) -> Result<bool> {
    Ok(due(connection, queue, now)? == 0)
}

/// Brings a queue up to the present: what is due becomes ready, what is over becomes a dead letter.
pub(crate) fn settle(session: &mut Session<'_>, queue: &Queue, name: &QueueName) -> Result<()> {
    let work = due(session.connection, queue, session.micros())?;
    if work == 0 {
        return Ok(());
    }
    // Jobs without a savepoint of their own rely on this one: what time has done is done whole or not at all, whatever becomes of the job.
    let before = session.connection.total_changes();
    run(session.connection, "SAVEPOINT present").or_explain()?;
    let settled = settle_all(session, queue, name, work);
    if settled.is_err() && !session.connection.is_autocommit() {
        run(session.connection, "ROLLBACK TO present").or_explain()?;
    }
    if !session.connection.is_autocommit() {
        run(session.connection, "RELEASE present").or_explain()?;
    }
    session.harmless += session.connection.total_changes() - before;
    settled
}

fn settle_all(session: &mut Session<'_>, queue: &Queue, name: &QueueName, work: i64) -> Result<()> {
    if work & 1 != 0 {
        wake(session, queue.home(), queue.spec.max_deliveries.map_or(i64::MAX, i64::from))?;
        let over = "SELECT id FROM _storage_messages WHERE lane = ?1 AND state > 0 AND visible_at <= ?2";
        bury_all(session, queue, name, over, dead::MAX_DELIVERIES)?;
    }
    if work & 2 != 0 {
        wake(session, queue.letters(), i64::MAX)?;
    }
    // What has just become ready may have expired meanwhile.
    if work & 5 != 0 {
        let expired = "SELECT id FROM _storage_messages WHERE lane = ?1 AND state = 0 AND expires_at <= ?2";
        bury_all(session, queue, name, expired, dead::EXPIRED)?;
    }
    Ok(())
}

/// Makes what is due ready, but for what was delivered as often as is allowed.
fn wake(session: &mut Session<'_>, lane: i64, max_deliveries: i64) -> Result<()> {
    let update = "UPDATE _storage_messages SET state = 0 \
                  WHERE lane = ?1 AND state > 0 AND visible_at <= ?2 AND deliveries < ?3";
    let woken = session
        .connection
        .prepare_cached(update)
        .and_then(|mut update| update.execute((lane, session.micros(), max_deliveries)))
        .or_explain()?;
    if woken > 0 {
        session.news.push((lane, woken));
    }
    Ok(())
}

fn bury_all(session: &mut Session<'_>, queue: &Queue, name: &QueueName, select: &str, reason: &str) -> Result<()> {
    let ids: Vec<i64> = {
        let mut select = session.connection.prepare_cached(select).or_explain()?;
        let rows = select.query_map((queue.home(), session.micros()), |row| row.get(0)).or_explain()?;
        rows.collect::<Result<_, _>>().or_explain()?
    };
    ids.into_iter().try_for_each(|id| bury(session, queue, name, id, reason))
}

/// Makes a message a dead letter.
pub(crate) fn bury(session: &mut Session<'_>, queue: &Queue, name: &QueueName, id: i64, reason: &str) -> Result<()> {
    let select = "SELECT deliveries, attributes FROM _storage_messages WHERE id = ?1";
    let (deliveries, attributes): (i64, Option<String>) = session
        .connection
        .prepare_cached(select)
        .and_then(|mut select| select.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))))
        .or_explain()?;
    let mut attributes = read_attributes(attributes.as_deref())?;
    let home = name.dead_letter_of();
    let about = [
        (dead::REASON, reason.to_owned()),
        (dead::SOURCE, home.as_ref().unwrap_or(name).to_string()),
        (dead::DELIVERIES, deliveries.to_string()),
        (dead::AT, value::timestamp(session.now)),
    ];
    attributes.extend(about.map(|(name, value)| (name.to_owned(), value)));
    let update = format!(
        "UPDATE _storage_messages SET lane = ?2, state = 0, visible_at = ?3, lease = {NEW_LEASE}, deliveries = 0, \
         expires_at = NULL, attributes = ?4 WHERE id = ?1"
    );
    let values = (id, queue.letters(), session.micros(), write_attributes(&attributes)?);
    session.connection.prepare_cached(&update).and_then(|mut update| update.execute(values)).or_explain()?;
    session.news.push((queue.letters(), 1));
    Ok(())
}

/// Sends up to `max` dead letters home, oldest first. Answers how many.
pub(crate) fn redrive(session: &mut Session<'_>, name: &QueueName, max: u32) -> Result<u64> {
    name.dead_letter()?;
    let queue = present(session, name)?;
    let letters: Vec<(i64, Option<String>)> = {
        let select = "SELECT id, attributes FROM _storage_messages WHERE lane = ?1 AND state = 0 ORDER BY id LIMIT ?2";
        let mut select = session.connection.prepare_cached(select).or_explain()?;
        let rows = select.query_map((queue.letters(), max), |row| Ok((row.get(0)?, row.get(1)?))).or_explain()?;
        rows.collect::<Result<_, _>>().or_explain()?
    };
    let update = format!(
        "UPDATE _storage_messages SET lane = ?2, visible_at = ?3, lease = {NEW_LEASE}, deliveries = 0, attributes = ?4 \
         WHERE id = ?1"
    );
    for (id, attributes) in &letters {
        let mut attributes = read_attributes(attributes.as_deref())?;
        for name in [dead::REASON, dead::SOURCE, dead::DELIVERIES, dead::AT] {
            attributes.remove(name);
        }
        let values = (id, queue.home(), session.micros(), write_attributes(&attributes)?);
        session.connection.prepare_cached(&update).and_then(|mut update| update.execute(values)).or_explain()?;
    }
    if !letters.is_empty() {
        session.news.push((queue.home(), letters.len()));
    }
    Ok(letters.len() as u64)
}

/// Attributes as they are stored: a JSON object, NULL without any.
pub(crate) fn write_attributes(attributes: &Attributes) -> Result<Option<String>> {
    if attributes.is_empty() { Ok(None) } else { Ok(Some(serde_json::to_string(attributes)?)) }
}

pub(crate) fn read_attributes(text: Option<&str>) -> Result<Attributes> {
    let Some(text) = text else { return Ok(Attributes::new()) };
    serde_json::from_str(text).map_err(|e| Error::corrupt(format!("a message's attributes can't be read: {e}")).with_source(e))
}
