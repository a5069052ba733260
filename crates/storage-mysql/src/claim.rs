//! Receiving messages.

use chrono::{DateTime, Utc};
use mysql_async::Value;
use storage_core::{Delivery, Receive, Result, clock};
use storage_sql::row;
use storage_sql::server::{Queue, new_lease, read_message, receipt_for};

use crate::connection::Connection;
use crate::error::MyResult;
use crate::messages::COLUMNS;
use crate::row::{Row, moment};
use crate::statements::{fill, list};

/// Leases the next messages. What others are just taking is passed over.
pub(crate) async fn claim(
    connection: &Connection,
    queue: &Queue,
    request: &Receive,
    now: DateTime<Utc>,
) -> MyResult<Result<Vec<Delivery>>> {
    let select = format!(
        "SELECT {COLUMNS} FROM _storage_messages FORCE INDEX (ready) WHERE lane = ? AND state = 0 ORDER BY place, id LIMIT ? \
         FOR UPDATE SKIP LOCKED"
    );
    connection.batch("START TRANSACTION").await?;
    let rows = connection.query(&select, vec![Value::Int(queue.lane()), Value::Int(request.max.into())]).await?;
    let (lease, leased_until) = (new_lease(), clock::add(now, request.visibility));
    let claimed = rows.iter().map(|found| delivery(found, lease, leased_until)).collect::<Result<Vec<_>>>();
    let claimed = match claimed {
        Ok(claimed) if !claimed.is_empty() => claimed,
        nothing => {
            connection.batch("ROLLBACK").await?;
            return Ok(nothing.map(|_| Vec::new()));
        }
    };
    let mut ids: Vec<i64> = claimed.iter().map(|(id, _)| *id).collect();
    let count = fill(&mut ids, 1);
    let update = format!(
        "UPDATE _storage_messages SET state = 1, due_at = ?, lease = ?, deliveries = deliveries + 1 WHERE id IN {}",
        list("?", count)
    );
    let values = [moment(leased_until), Value::Int(lease)].into_iter().chain(ids.into_iter().map(Value::Int)).collect();
    connection.execute(&update, values).await?;
    connection.batch("COMMIT").await?;
    Ok(Ok(claimed.into_iter().map(|(_, delivery)| delivery).collect()))
}

fn delivery(found: &Row, lease: i64, leased_until: DateTime<Utc>) -> Result<(i64, Delivery)> {
    let mut message = read_message(found, 0)?;
    message.deliveries += 1;
    let id = row::integer(found, 0)?.unwrap_or_default();
    Ok((id, Delivery { message, receipt: receipt_for(id, lease), leased_until }))
}
