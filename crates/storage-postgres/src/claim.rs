//! Receiving messages.

use std::sync::{Arc, OnceLock};

use crate::row::Row;
use chrono::{DateTime, Utc};
use storage_core::{Delivery, Receive, Result, clock};
use storage_sql::row;
use storage_sql::server::{Queue, new_lease, read_message, receipt_for};

use crate::bind::Param;
use crate::connection::{Connection, Step};
use crate::error::{OrExplain as _, PgResult};
use crate::queues::DUE;

/// Leases the next $5 messages, unless time has changed something that is to be written down first: $8 says which of that matters. Yields that, and with it each
/// message. What others are just taking is passed over.
///
/// There is a text for each order of magnitude: for a bare `LIMIT $5` the server assumes a tenth of the table, and then rather plans each claim anew, at the cost
/// of a small one, than keep so bad a plan.
fn sql(max: u32) -> Arc<str> {
    static SQL: [OnceLock<Arc<str>>; 32] = [const { OnceLock::new() }; 32];
    let text = |magnitude: u32| {
        let columns = "m.id, m.priority, m.deliveries, m.enqueued_at, m.expires_at, m.content_type, m.attributes, m.body";
        let most = 1_u64 << magnitude;
        format!(
            "WITH due AS MATERIALIZED (SELECT {DUE} & $8::int AS work), \
             next AS MATERIALIZED (SELECT id FROM (SELECT id FROM _storage_messages WHERE lane = $4 AND state = 0 AND (SELECT work FROM due) = 0 \
             ORDER BY priority DESC, id LIMIT {most} FOR UPDATE SKIP LOCKED) first LIMIT $5), \
             taken AS (UPDATE _storage_messages m SET state = 1, visible_at = $6, lease = $7, deliveries = m.deliveries + 1 \
             WHERE m.id = ANY (ARRAY(SELECT id FROM next)) RETURNING {columns}) \
             SELECT due.work, taken.* FROM due LEFT JOIN taken ON true"
        )
        .into()
    };
    let magnitude = max.max(1).next_power_of_two().trailing_zeros();
    SQL.get(magnitude as usize).map_or_else(|| text(magnitude), |kept| Arc::clone(kept.get_or_init(|| text(magnitude))))
}

/// What a claim came to.
pub(crate) enum Claimed {
    Deliveries(Vec<Delivery>),
    /// The queue has to be settled first.
    Unsettled,
}

/// A claim that is about to be sent.
pub(crate) struct Claim {
    lease: i64,
    leased_until: DateTime<Utc>,
}

impl Claim {
    pub(crate) fn new(request: &Receive, now: DateTime<Utc>) -> Self {
        Self { lease: new_lease(), leased_until: clock::add(now, request.visibility) }
    }

    /// `anyway`: what is due is left as it is.
    pub(crate) async fn step<'a>(
        &self,
        connection: &Connection,
        queue: &Queue,
        request: &Receive,
        now: DateTime<Utc>,
        anyway: bool,
    ) -> PgResult<Step<'a>> {
        let relevant = if anyway {
            0
        } else if queue.dead {
            3
        } else {
            1
        };
        let values = vec![
            queue.home().into(),
            queue.letters().into(),
            Param::time(now),
            queue.lane().into(),
            i64::from(request.max).into(),
            Param::time(self.leased_until),
            self.lease.into(),
            relevant.into(),
        ];
        Ok((connection.prepare(&sql(request.max)).await?, values))
    }

    pub(crate) fn read(&self, rows: &[Row]) -> Result<Claimed> {
        let work: Option<i32> = rows.first().map(|found| found.try_get(0).or_explain()).transpose()?;
        if work != Some(0) {
            return Ok(Claimed::Unsettled);
        }
        let mut deliveries = Vec::with_capacity(rows.len());
        for found in rows {
            let Some(id) = found.try_get::<_, Option<i64>>(1).or_explain()? else { continue };
            let message = read_message(found, 1)?;
            deliveries.push((id, Delivery { message, receipt: receipt_for(id, self.lease), leased_until: self.leased_until }));
        }
        // The rows of an UPDATE come in whatever order.
        deliveries.sort_by(|(a, x), (b, y)| y.message.priority.cmp(&x.message.priority).then(a.cmp(b)));
        Ok(Claimed::Deliveries(deliveries.into_iter().map(|(_, delivery)| delivery).collect()))
    }
}

/// What a receiver that waits wants to know.
pub(crate) struct Outlook {
    /// True where a receive could find something now.
    pub(crate) hopeful: bool,
    /// When there will be something, if nobody sends anything.
    pub(crate) next: Option<DateTime<Utc>>,
}

/// Whether a lane has something, and when time alone next changes what can be received.
const OUTLOOK: &str = "SELECT EXISTS (SELECT 1 FROM _storage_messages WHERE lane = $1 AND state = 0), least(\
                       (SELECT min(visible_at) FROM _storage_messages WHERE lane = $1 AND state > 0), \
                       (SELECT min(visible_at) FROM _storage_messages WHERE $2 AND lane = $3 AND state > 0), \
                       (SELECT min(expires_at) FROM _storage_messages WHERE $2 AND lane = $3 AND state = 0 AND expires_at IS NOT NULL))";

/// Looks ahead without taking anything.
pub(crate) async fn outlook(connection: &Connection, queue: &Queue, now: DateTime<Utc>) -> Result<Outlook> {
    // Dead letters come from the queue itself.
    let values = vec![queue.lane().into(), storage_sql::SqlValue::Boolean(queue.dead).into(), queue.home().into()];
    let found = connection.row(OUTLOOK, values).await?;
    let (ready, next): (bool, _) = (found.try_get(0).or_explain()?, row::time(&found, 1)?);
    Ok(Outlook { hopeful: ready || next.is_some_and(|at| at <= now), next })
}
