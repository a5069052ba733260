//! What is done with a receipt: finish, change, give up.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use mysql_async::Value;
use storage_core::{MessageUpdate, QueueName, Result, clock};
use storage_sql::row;
use storage_sql::server::{Deletion, Lease, Queue, home, write_attributes};

use crate::connection::Connection;
use crate::error::OrExplain as _;
use crate::queues::{BURY, burial};
use crate::row::{bound, moment};
use crate::statements::{MAX_KEYS, fill, list, row_of};

/// That time has not made a dead letter of the message, though nobody has written that down yet; binds the present, the cap of deliveries, and the present twice.
const ALIVE: &str = "(state > 0 AND due_at <= ? AND deliveries >= ?) IS NOT TRUE AND ((state = 0 OR due_at <= ?) AND expires_at <= ?) IS NOT TRUE";

fn alive(queue: &Queue, now: DateTime<Utc>) -> [Value; 4] {
    [moment(now), Value::Int(queue.cap()), moment(now), moment(now)]
}

/// Removes messages by their receipts. `None`: all of them were there; else those that are somebody else's.
pub(crate) async fn remove(
    connection: &Connection,
    deletion: &Deletion,
    queue: &Queue,
    now: DateTime<Utc>,
) -> Result<Option<HashSet<i64>>> {
    let leases: Vec<Lease> = deletion.leases().collect();
    let mut left = HashSet::new();
    let mut all = true;
    for leases in leases.chunks(MAX_KEYS) {
        let mut pairs: Vec<i64> = leases.iter().flat_map(|lease| [lease.id, lease.lease]).collect();
        let count = fill(&mut pairs, 2);
        let delete =
            format!("DELETE FROM _storage_messages WHERE (id, lease) IN {} AND lane = ? AND {ALIVE}", list(&row_of(2), count));
        let mut values: Vec<Value> = pairs.into_iter().map(Value::Int).collect();
        values.push(Value::Int(queue.lane()));
        values.extend(alive(queue, now));
        let gone = connection.execute_alone(&delete, values).await.or_explain()?;
        if gone == leases.iter().map(|lease| lease.id).collect::<HashSet<_>>().len() as u64 {
            continue;
        }
        all = false;
        let mut ids: Vec<i64> = leases.iter().map(|lease| lease.id).collect();
        let count = fill(&mut ids, 1);
        let select = format!("SELECT id FROM _storage_messages WHERE id IN {} AND lane IN (?, ?)", list("?", count));
        let values = ids.into_iter().chain([queue.home(), queue.letters()]).map(Value::Int).collect();
        for found in connection.query(&select, values).await.or_explain()? {
            left.extend(row::integer(&found, 0)?);
        }
    }
    Ok(if all && !leases.is_empty() { None } else { Some(left) })
}

/// Changes a leased message, whose lease becomes another. `false`: the receipt is good no longer.
pub(crate) async fn update(
    connection: &Connection,
    queue: &Queue,
    (lease, renewed): (Lease, i64),
    change: &MessageUpdate,
    now: DateTime<Utc>,
) -> Result<bool> {
    let (mut set, mut values) = (vec!["lease = ?"], vec![Value::Int(renewed)]);
    if let Some(visibility) = change.visibility {
        set.extend(["state = 1", "due_at = ?"]);
        values.push(moment(clock::add(now, visibility)));
    }
    if let Some(body) = &change.body {
        set.push("body = ?");
        values.push(Value::Bytes(body.to_vec()));
    }
    if let Some(attributes) = &change.attributes {
        set.push("attributes = ?");
        values.push(bound(write_attributes(attributes)?));
    }
    // In the condition everything is as it was before.
    let update = format!("UPDATE _storage_messages SET {} WHERE id = ? AND lease = ? AND lane = ? AND {ALIVE}", set.join(", "));
    values.extend([lease.id, lease.lease, queue.lane()].map(Value::Int));
    values.extend(alive(queue, now));
    Ok(connection.execute_alone(&update, values).await.or_explain()? > 0)
}

/// Makes a leased message a dead letter. `false`: the receipt is good no longer.
pub(crate) async fn bury(
    connection: &Connection,
    queue: &Queue,
    name: &QueueName,
    (lease, reason): (Lease, &str),
    now: DateTime<Utc>,
) -> Result<bool> {
    let update = format!("{BURY} WHERE id = ? AND lease = ? AND lane = ? AND {ALIVE}");
    let mut values = burial(queue, &home(name), reason, now);
    values.extend([lease.id, lease.lease, queue.lane()].map(Value::Int));
    values.extend(alive(queue, now));
    Ok(connection.execute_alone(&update, values).await.or_explain()? > 0)
}
