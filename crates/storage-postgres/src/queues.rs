//! Queues themselves, and what time does to their messages.

use crate::row::Row;
use chrono::{DateTime, Utc};
use storage_core::message::dead;
use storage_core::{Error, QueueName, QueueSpec, Result, value};
use storage_sql::server::{Queue, home, micros, read_queue};

use crate::bind::Param;
use crate::connection::{Connection, Step};
use crate::error::{OrExplain as _, PgResult};

/// The queues of these names, which nobody removes until the end of the transaction.
pub(crate) const FIND_MANY: &str =
    "SELECT name, id, max_deliveries, dedup_window FROM _storage_queues WHERE name = ANY ($1::text[]) ORDER BY id FOR KEY SHARE";
/// The queue of that name.
pub(crate) const FIND: &str = "SELECT name, id, max_deliveries, dedup_window FROM _storage_queues WHERE name = $1";
/// That what a dead letter says of its death is gone from it.
const ALIVE_AGAIN: &str = "lease = 0, deliveries = 0, visible_at = $3, state = 0, expires_at = NULL, attributes = \
                           NULLIF(attributes - ARRAY['storage-dead-reason', 'storage-dead-source', 'storage-dead-deliveries', \
                           'storage-dead-at'], '{}')";
/// What makes a message a dead letter: $1 its new lane, $2 the present time, $3 the queue, $4 the present as text, $5 the reason.
pub(crate) const BURY: &str = "UPDATE _storage_messages SET lane = $1, state = 0, visible_at = $2, lease = 0, deliveries = 0, expires_at = NULL, \
                               attributes = coalesce(attributes, '{}') || jsonb_build_object('storage-dead-reason', $5::text, \
                               'storage-dead-source', $3::text, 'storage-dead-deliveries', deliveries::text, 'storage-dead-at', $4::text)";

/// What [`FIND`] found for that name, which may be the companion's.
pub(crate) fn found(name: &QueueName, rows: &[Row]) -> Result<Queue> {
    let row = rows.first().ok_or_else(|| Error::not_found(format!("there is no queue `{name}`: create it first")))?;
    Ok(read_queue(row)?.1.called(name))
}

/// The queue of that name, or the companion.
pub(crate) async fn find(connection: &Connection, name: &QueueName) -> Result<Queue> {
    found(name, &connection.query(FIND, vec![home(name).as_str().into()]).await.or_explain()?)
}

/// Creates a queue. `false`: it is there with the same spec.
pub(crate) async fn create(connection: &Connection, name: &QueueName, spec: &QueueSpec) -> Result<bool> {
    name.dead_letter()?;
    spec.check()?;
    let insert =
        "INSERT INTO _storage_queues (name, max_deliveries, dedup_window) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING";
    let cap = spec.max_deliveries.map_or(storage_sql::SqlValue::Null, |cap| storage_sql::SqlValue::Integer(cap.into()));
    let values = vec![name.as_str().into(), cap.into(), micros(spec.dedup_window).into()];
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
    let select = "SELECT name, id, max_deliveries, dedup_window FROM _storage_queues WHERE name = $1 FOR UPDATE";
    let rows = connection.query(select, vec![name.as_str().into()]).await.or_explain()?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (_, queue) = read_queue(row)?;
    let lanes = Param::integers([queue.home(), queue.letters()]);
    connection.execute("DELETE FROM _storage_messages WHERE lane = ANY ($1::bigint[])", vec![lanes]).await.or_explain()?;
    connection.execute("DELETE FROM _storage_dedup WHERE queue = $1", vec![queue.id.into()]).await.or_explain()?;
    connection.execute("DELETE FROM _storage_queues WHERE id = $1", vec![queue.id.into()]).await.or_explain()?;
    Ok(Some(queue))
}

/// Statements of this transaction are planned for the times that they are about: most often hardly a message is due, which a plan that is kept can't know.
pub(crate) const PLAN_ANEW: &str = "SET LOCAL plan_cache_mode = force_custom_plan";

/// What brings a queue up to the present: what is due becomes ready, what is over becomes a dead letter. Each statement yields the rows that it changed.
pub(crate) async fn settle<'a>(
    connection: &Connection,
    queue: &Queue,
    home: &'a str,
    now: DateTime<Utc>,
) -> PgResult<Vec<Step<'a>>> {
    // In one order, so that two who do the same wait for each other and not in a circle.
    let wake = "UPDATE _storage_messages SET state = 0 WHERE id = ANY (ARRAY(SELECT id FROM _storage_messages WHERE lane = $1 AND state > 0 \
                AND visible_at <= $2 AND deliveries < $3::bigint ORDER BY id FOR UPDATE)) RETURNING id";
    let bury = |condition: &str| {
        format!(
            "{BURY} WHERE id = ANY (ARRAY(SELECT id FROM _storage_messages WHERE lane = $6 AND {condition} ORDER BY id FOR UPDATE)) RETURNING id"
        )
    };
    let about = |reason: &'static str| {
        vec![
            queue.letters().into(),
            Param::time(now),
            home.into(),
            Param::One(storage_sql::SqlValue::Text(value::timestamp(now).into())),
            reason.into(),
            queue.home().into(),
        ]
    };
    let cap = queue.spec.max_deliveries.map_or(i64::MAX, i64::from);
    Ok(vec![
        (connection.prepare(&wake.into()).await?, vec![queue.home().into(), Param::time(now), cap.into()]),
        (connection.prepare(&bury("state > 0 AND visible_at <= $2").into()).await?, about(dead::MAX_DELIVERIES)),
        (connection.prepare(&bury("state = 0 AND expires_at <= $2").into()).await?, about(dead::EXPIRED)),
        (connection.prepare(&wake.into()).await?, vec![queue.letters().into(), Param::time(now), i64::MAX.into()]),
    ])
}

/// What time has changed in a queue and nobody has written down yet, as bits: live messages are due or have expired; dead letters are due. In the order of an
/// index: a plan that is kept takes it for likely that any row has a time that is over, and would look for one from the table's beginning on.
pub(crate) const DUE: &str = "(coalesce((SELECT 1 FROM _storage_messages WHERE lane = $1 AND state > 0 AND visible_at <= $3 ORDER BY visible_at LIMIT 1), \
                              (SELECT 1 FROM _storage_messages WHERE lane = $1 AND state = 0 AND expires_at <= $3 ORDER BY expires_at LIMIT 1), 0) + \
                              coalesce((SELECT 2 FROM _storage_messages WHERE lane = $2 AND state > 0 AND visible_at <= $3 ORDER BY visible_at LIMIT 1), 0))";

/// Dead letters go home, oldest first.
pub(crate) async fn redrive(connection: &Connection, queue: &Queue, max: u32, now: DateTime<Utc>) -> Result<u64> {
    let update = format!(
        "UPDATE _storage_messages SET lane = $2, {ALIVE_AGAIN} WHERE id = ANY (ARRAY(SELECT id FROM _storage_messages WHERE lane = $1 AND state = 0 \
         ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED))"
    );
    let values = vec![queue.letters().into(), queue.home().into(), Param::time(now), i64::from(max).into()];
    connection.execute(&update, values).await.or_explain()
}
