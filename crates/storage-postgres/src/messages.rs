//! Sending messages and looking at them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use storage_core::{Result, clock};
use storage_sql::SqlValue;
use storage_sql::server::{DELAYED, Outgoing, Queue, READY, dedup_ids, sent, write_attributes};

use crate::bind::Param;
use crate::changes::Outcome;
use crate::connection::Connection;
use crate::error::OrExplain as _;

/// The columns of a message, in the order in which it is read.
pub(crate) const COLUMNS: &str = "id, priority, deliveries, enqueued_at, expires_at, content_type, attributes, body";

/// Messages whose ids are known.
pub(crate) const INSERT: &str = "INSERT INTO _storage_messages (id, lane, priority, state, deliveries, lease, visible_at, enqueued_at, expires_at, content_type, \
     attributes, body) SELECT id, lane, priority, state, 0, 0, visible_at, $4, expires_at, content_type, attributes, body FROM \
     unnest($1::bigint[], $2::smallint[], $3::smallint[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::jsonb[], $9::bytea[], \
     $10::bigint[]) AS m (lane, priority, state, visible_at, expires_at, content_type, attributes, body, id)";
/// Messages of these queues, as long as they are there, which then stay until the end of the transaction. Yields the messages' ids, in order.
const ADD: &str = "INSERT INTO _storage_messages (id, lane, priority, state, deliveries, lease, visible_at, enqueued_at, expires_at, content_type, \
     attributes, body) SELECT nextval('_storage_message_ids'), lane, priority, state, 0, 0, visible_at, $4, expires_at, content_type, \
     attributes, body FROM (SELECT m.* FROM unnest($1::bigint[], $2::smallint[], $3::smallint[], $5::timestamptz[], $6::timestamptz[], \
     $7::text[], $8::jsonb[], $9::bytea[]) WITH ORDINALITY AS m (lane, priority, state, visible_at, expires_at, content_type, \
     attributes, body, n) JOIN (SELECT id FROM _storage_queues WHERE id = ANY ($10::bigint[]) FOR KEY SHARE) q ON q.id = m.lane / 2 \
     ORDER BY n) m RETURNING id";

/// Messages of one queue that differ in their bodies alone, as most do that are sent together: half the work for the server. Otherwise the same.
const ADD_ALIKE: &str = "WITH queue AS MATERIALIZED (SELECT FROM _storage_queues WHERE id = $10::bigint FOR KEY SHARE) \
     INSERT INTO _storage_messages (id, lane, priority, state, deliveries, lease, visible_at, enqueued_at, expires_at, content_type, \
     attributes, body) SELECT nextval('_storage_message_ids'), $1::bigint, $2::smallint, $3::smallint, 0, 0, $5::timestamptz, $4, \
     $6::timestamptz, $7::text, $8::jsonb, body FROM unnest($9::bytea[]) AS m (body) WHERE EXISTS (SELECT FROM queue) RETURNING id";

/// What is sent and is no duplicate, as [`INSERT`] takes it. `None`: nothing is.
pub(crate) fn columns<'o>(outcomes: &'o [Outcome<'_>], now: DateTime<Utc>) -> Result<Option<Vec<Param<'o>>>> {
    let all: Vec<&Outgoing<'_>> = sent(outcomes).filter(|m| m.duplicate_of.is_none()).collect();
    if all.is_empty() {
        return Ok(None);
    }
    let mut columns = contents(&all, now)?;
    columns.push(Param::integers(all.iter().map(|m| m.id)));
    Ok(Some(columns))
}

/// What is sent to these queues, and the statement that takes it. `None`: nothing is.
pub(crate) fn additions<'o>(
    outcomes: &'o [Outcome<'_>],
    queues: &BTreeSet<i64>,
    now: DateTime<Utc>,
) -> Result<Option<(&'static str, Vec<Param<'o>>)>> {
    let all: Vec<&Outgoing<'_>> = sent(outcomes).collect();
    let Some((first, rest)) = all.split_first() else { return Ok(None) };
    if rest.iter().all(|other| differ_in_body(first, other)) {
        let mut values: Vec<Param<'o>> = described(first, now)?.into_iter().map(Param::One).collect();
        values.insert(NOW, Param::time(now));
        values.extend([bodies(&all), Param::from(first.queue.id)]);
        return Ok(Some((ADD_ALIKE, values)));
    }
    let mut columns = contents(&all, now)?;
    columns.push(Param::integers(queues.iter().copied()));
    Ok(Some((ADD, columns)))
}

fn differ_in_body(a: &Outgoing<'_>, b: &Outgoing<'_>) -> bool {
    let (x, y) = (a.message, b.message);
    a.queue.lane() == b.queue.lane()
        && (x.priority, x.delay, x.ttl, &x.content_type) == (y.priority, y.delay, y.ttl, &y.content_type)
        && x.attributes == y.attributes
}

/// Where the present time stands among the columns.
const NOW: usize = 3;

/// All but the ids.
fn contents<'o>(all: &[&'o Outgoing<'_>], now: DateTime<Utc>) -> Result<Vec<Param<'o>>> {
    let mut columns: [Vec<SqlValue<'o>>; 7] = std::array::from_fn(|_| Vec::with_capacity(all.len()));
    for message in all {
        for (column, value) in columns.iter_mut().zip(described(message, now)?) {
            column.push(value);
        }
    }
    let mut columns: Vec<Param<'o>> = columns.into_iter().map(Param::Many).collect();
    columns.insert(NOW, Param::time(now));
    columns.push(bodies(all));
    Ok(columns)
}

/// Lane, priority, state, when it can be received, when it expires, content type and attributes.
fn described<'o>(outgoing: &'o Outgoing<'_>, now: DateTime<Utc>) -> Result<[SqlValue<'o>; 7]> {
    let message = outgoing.message;
    let after = |delay| SqlValue::Timestamp(clock::add(now, delay));
    Ok([
        SqlValue::Integer(outgoing.queue.lane()),
        SqlValue::Integer(message.priority.into()),
        SqlValue::Integer(if message.delay.is_zero() { READY } else { DELAYED }),
        after(message.delay),
        message.ttl.map_or(SqlValue::Null, after),
        message.content_type.as_ref().map_or(SqlValue::Null, |text| SqlValue::Text(Cow::Borrowed(text))),
        write_attributes(&message.attributes)?,
    ])
}

fn bodies<'o>(all: &[&'o Outgoing<'_>]) -> Param<'o> {
    Param::Many(all.iter().map(|m| SqlValue::Bytes(Cow::Borrowed(m.message.body.as_ref()))).collect())
}

/// Writes down the dedup ids, and notes which messages are duplicates.
pub(crate) async fn remember(connection: &Connection, outcomes: &mut [Outcome<'_>], now: DateTime<Utc>) -> Result<()> {
    let first = dedup_ids(outcomes, now);
    if first.is_empty() {
        return Ok(());
    }
    let keys = || {
        let ids = first.keys().map(|(_, id)| SqlValue::Text(Cow::Owned((*id).to_owned()))).collect();
        vec![Param::integers(first.keys().map(|(queue, _)| *queue)), Param::Many(ids)]
    };
    // In the order of the keys, so that two who do the same wait for each other and not in a circle.
    let insert = "INSERT INTO _storage_dedup AS d (queue, dedup_id, message, until) \
                  SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::timestamptz[]) ON CONFLICT (queue, dedup_id) DO UPDATE \
                  SET message = excluded.message, until = excluded.until WHERE d.until <= $5";
    let select = "SELECT queue, dedup_id, message FROM _storage_dedup WHERE (queue, dedup_id) IN \
                  (SELECT * FROM unnest($1::bigint[], $2::text[]))";
    let mut values = keys();
    values.extend([
        Param::integers(first.values().map(|(id, _)| *id)),
        Param::times(first.values().map(|(_, until)| Some(*until))),
    ]);
    values.push(Param::time(now));
    let steps = vec![
        (connection.prepare(&insert.into()).await.or_explain()?, values),
        (connection.prepare(&select.into()).await.or_explain()?, keys()),
    ];
    let answers = connection.pipeline("", steps, "").await.map_err(|(_, error)| error).or_explain()?;
    let mut owners: HashMap<(i64, String), i64> = HashMap::new();
    for found in answers.last().into_iter().flatten() {
        owners.insert((found.try_get(0).or_explain()?, found.try_get(1).or_explain()?), found.try_get(2).or_explain()?);
    }
    drop(first);
    for outgoing in outcomes.iter_mut().filter(|outcome| outcome.failed.is_none()).flat_map(|outcome| &mut outcome.messages) {
        let owner = outgoing.message.dedup_id.as_ref().and_then(|id| owners.get(&(outgoing.queue.id, id.clone())));
        outgoing.duplicate_of = owner.copied().filter(|owner| *owner != outgoing.id);
    }
    Ok(())
}

/// Up to so many ready messages of a lane, in the order in which they would be received.
pub(crate) fn peek_sql() -> String {
    format!("SELECT {COLUMNS} FROM _storage_messages WHERE lane = $1 AND state = 0 ORDER BY priority DESC, id LIMIT $2")
}

/// How full a queue is, as of now. Dead letters of the companion itself don't count as such.
pub(crate) const STATS: &str = "SELECT count(*) FILTER (WHERE lane = $1 AND state = 0), count(*) FILTER (WHERE lane = $1 AND state = 2), \
                                count(*) FILTER (WHERE lane = $1 AND state = 1), count(*) FILTER (WHERE lane <> $1), \
                                min(enqueued_at) FILTER (WHERE lane = $1) FROM _storage_messages WHERE lane = ANY ($2::bigint[])";

pub(crate) fn stats_values(queue: &Queue) -> Vec<Param<'static>> {
    let lanes = if queue.dead { vec![queue.lane()] } else { vec![queue.home(), queue.letters()] };
    vec![queue.lane().into(), Param::integers(lanes)]
}
