//! Queues themselves, and what time does to their messages.

use chrono::{DateTime, Utc};
use mysql_async::Value;
use storage_core::message::dead;
use storage_core::{Error, QueueName, QueueSpec, Result, value};
use storage_sql::row;
use storage_sql::server::{Queue, home, micros, read_queue};

use crate::connection::Connection;
use crate::error::{MyResult, OrExplain as _};
use crate::row::{moment, text};
use crate::statements::{fill, list};

/// The queue of that name.
const FIND: &str = "SELECT name, id, max_deliveries, dedup_window FROM _storage_queues WHERE name = ?";
/// What makes a message a dead letter; binds the present as text, the queue, the reason, and the new lane. Each value is that of before, as far as it stands
/// behind it.
pub(crate) const BURY: &str = "UPDATE _storage_messages SET attributes = JSON_SET(COALESCE(attributes, '{}'), '$.\"storage-dead-at\"', ?, \
                               '$.\"storage-dead-source\"', ?, '$.\"storage-dead-reason\"', ?, '$.\"storage-dead-deliveries\"', \
                               CAST(deliveries AS CHAR)), lane = ?, state = 0, due_at = NULL, lease = 0, deliveries = 0, expires_at = NULL";

/// A queue, and what there is in it and when time changes something.
const GLANCE: &str = "SELECT q.name, q.id, q.max_deliveries, q.dedup_window, \
    EXISTS (SELECT 1 FROM _storage_messages WHERE lane = 2 * q.id + ? AND state = 0), \
    (SELECT MIN(due_at) FROM _storage_messages WHERE lane = 2 * q.id AND state = 0), \
    (SELECT MIN(due_at) FROM _storage_messages WHERE lane = 2 * q.id AND state = 1), \
    (SELECT MIN(due_at) FROM _storage_messages WHERE lane = 2 * q.id AND state = 2), \
    (SELECT MIN(due_at) FROM _storage_messages WHERE lane = 2 * q.id + 1 AND state = 1), \
    (SELECT MIN(due_at) FROM _storage_messages WHERE lane = 2 * q.id + 1 AND state = 2) \
    FROM _storage_queues q WHERE q.name = ?";

/// What a look at a queue shows.
pub(crate) struct Glance {
    pub(crate) queue: Queue,
    /// True where something can be received.
    pub(crate) is_ready: bool,
    /// When a live message that can be received expires first.
    expiry: Option<DateTime<Utc>>,
    /// When a live message can be received (again) first, or has been delivered too often.
    live: Option<DateTime<Utc>>,
    /// When a dead letter can be received (again) first.
    letters: Option<DateTime<Utc>>,
}

impl Glance {
    /// True where time has changed something that nobody has written down yet, as far as it matters to who receives.
    pub(crate) fn is_due(&self, now: DateTime<Utc>) -> bool {
        let live = [self.expiry, self.live];
        let letters = self.letters.filter(|_| self.queue.dead);
        live.into_iter().chain([letters]).flatten().any(|at| at <= now)
    }

    /// The same, whoever it matters to.
    pub(crate) fn is_any_due(&self, now: DateTime<Utc>) -> bool {
        [self.expiry, self.live, self.letters].into_iter().flatten().any(|at| at <= now)
    }

    /// When there will be something, if nobody sends anything.
    pub(crate) fn next(&self) -> Option<DateTime<Utc>> {
        // Dead letters come from the queue itself.
        let times = if self.queue.dead { [self.expiry, self.live, self.letters] } else { [None, self.live, None] };
        times.into_iter().flatten().min()
    }
}

/// Looks at a queue without taking anything.
pub(crate) async fn glance(connection: &Connection, name: &QueueName) -> Result<Glance> {
    let dead = i64::from(name.dead_letter_of().is_some());
    let rows = connection.query(GLANCE, vec![Value::Int(dead), text(home(name).as_str())]).await.or_explain()?;
    let found = rows.first().ok_or_else(|| missing(name))?;
    let earliest = |a: usize, b: usize| Ok::<_, Error>([row::time(found, a)?, row::time(found, b)?].into_iter().flatten().min());
    Ok(Glance {
        queue: read_queue(found)?.1.called(name),
        is_ready: row::integer(found, 4)? == Some(1),
        expiry: row::time(found, 5)?,
        live: earliest(6, 7)?,
        letters: earliest(8, 9)?,
    })
}

fn missing(name: &QueueName) -> Error {
    Error::not_found(format!("there is no queue `{name}`: create it first"))
}

/// The queue of that name, or the companion.
pub(crate) async fn find(connection: &Connection, name: &QueueName) -> Result<Queue> {
    let rows = connection.query(FIND, vec![text(home(name).as_str())]).await.or_explain()?;
    Ok(read_queue(rows.first().ok_or_else(|| missing(name))?)?.1.called(name))
}

/// Creates a queue. `false`: it is there with the same spec.
pub(crate) async fn create(connection: &Connection, name: &QueueName, spec: &QueueSpec) -> Result<bool> {
    name.dead_letter()?;
    spec.check()?;
    let insert =
        "INSERT INTO _storage_queues (name, max_deliveries, dedup_window) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE id = id";
    let cap = spec.max_deliveries.map_or(Value::NULL, |cap| Value::Int(cap.into()));
    let values = vec![text(name.as_str()), cap, Value::Int(micros(spec.dedup_window))];
    if connection.execute(insert, values).await.or_explain()? > 0 {
        return Ok(true);
    }
    let there = find(connection, name).await?.spec;
    if there == *spec { Ok(false) } else { Err(Error::already_exists(format!("it is there with another spec: {there:?}"))) }
}

/// Removes a queue with everything in it, within a transaction. `None`: there is none.
pub(crate) async fn remove(connection: &Connection, name: &QueueName) -> Result<Option<Queue>> {
    name.dead_letter()?;
    // Waits for those who are sending.
    let rows = connection.query(&format!("{FIND} FOR UPDATE"), vec![text(name.as_str())]).await.or_explain()?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (_, queue) = read_queue(row)?;
    for (delete, values) in [
        ("DELETE FROM _storage_messages WHERE lane IN (?, ?)", vec![Value::Int(queue.home()), Value::Int(queue.letters())]),
        ("DELETE FROM _storage_dedup WHERE queue = ?", vec![Value::Int(queue.id)]),
        ("DELETE FROM _storage_queues WHERE id = ?", vec![Value::Int(queue.id)]),
    ] {
        connection.execute(delete, values).await.or_explain()?;
    }
    Ok(Some(queue))
}

/// What brings a queue up to the present, within a transaction: what is due becomes ready, what is over becomes a dead letter. Answers in which lanes how many
/// messages have become ready.
pub(crate) async fn settle(
    connection: &Connection,
    queue: &Queue,
    name: &QueueName,
    now: DateTime<Utc>,
) -> MyResult<[(i64, u64); 2]> {
    let wake = "UPDATE _storage_messages SET state = 0, due_at = expires_at WHERE lane = ? AND state IN (1, 2) AND due_at <= ? AND deliveries < ?";
    let cap = queue.spec.max_deliveries.map_or(i64::MAX, i64::from);
    let home = home(name);
    let about = |reason: &str| {
        let mut values = burial(queue, &home, reason, now);
        values.extend([Value::Int(queue.home()), moment(now)]);
        values
    };
    let woken = connection.execute(wake, vec![Value::Int(queue.home()), moment(now), Value::Int(cap)]).await?;
    let bury = |states: &str| format!("{BURY} WHERE lane = ? AND state IN ({states}) AND due_at <= ?");
    let mut buried = connection.execute(&bury("1, 2"), about(dead::MAX_DELIVERIES)).await?;
    buried += connection.execute(&bury("0"), about(dead::EXPIRED)).await?;
    let letters = connection.execute(wake, vec![Value::Int(queue.letters()), moment(now), Value::Int(i64::MAX)]).await?;
    Ok([(queue.home(), woken), (queue.letters(), buried + letters)])
}

/// What [`BURY`] binds.
pub(crate) fn burial(queue: &Queue, home: &QueueName, reason: &str, now: DateTime<Utc>) -> Vec<Value> {
    vec![text(&value::timestamp(now)), text(home.as_str()), text(reason), Value::Int(queue.letters())]
}

/// Dead letters go home, oldest first, within a transaction.
pub(crate) async fn redrive(connection: &Connection, queue: &Queue, max: u32) -> Result<u64> {
    let select = "SELECT id FROM _storage_messages FORCE INDEX (ready) WHERE lane = ? AND state = 0 ORDER BY id LIMIT ? FOR UPDATE SKIP LOCKED";
    let rows = connection.query(select, vec![Value::Int(queue.letters()), Value::Int(max.into())]).await.or_explain()?;
    let mut ids = rows.iter().filter_map(|found| row::integer(found, 0).transpose()).collect::<Result<Vec<_>>>()?;
    let count = ids.len() as u64;
    if ids.is_empty() {
        return Ok(0);
    }
    // That what a dead letter says of its death is gone from it.
    let left = "JSON_REMOVE(attributes, '$.\"storage-dead-reason\"', '$.\"storage-dead-source\"', '$.\"storage-dead-deliveries\"', '$.\"storage-dead-at\"')";
    let places = fill(&mut ids, 1);
    let update = format!(
        "UPDATE _storage_messages SET lane = ?, lease = 0, deliveries = 0, due_at = NULL, expires_at = NULL, attributes = IF(JSON_LENGTH({left}) = 0, NULL, {left}) WHERE id IN {}",
        list("?", places)
    );
    let values = [queue.home()].into_iter().chain(ids).map(Value::Int).collect();
    connection.execute(&update, values).await.or_explain()?;
    Ok(count)
}
