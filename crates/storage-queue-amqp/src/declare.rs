//! Queues as they are declared on the broker.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use storage_core::message::MAX_PRIORITY;
use storage_core::{ErrorKind, Result};

use crate::config::QueueType;
use crate::link::Link;

/// RabbitMQ 4 drops what came back 20 times, unless it is told another limit. It knows -1 for none; RabbitMQ 3 would take that for a limit that every
/// message exceeds.
const NO_DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// What a declared queue is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose<'a> {
    /// Messages.
    Messages,
    /// Dead letters.
    Dead,
    /// Messages that go on to `to` after so many milliseconds.
    Delay { millis: u64, to: &'a str },
}

fn arguments(queue_type: QueueType, purpose: Purpose<'_>) -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut put = |name: &str, value: AMQPValue| {
        arguments.insert(name.into(), value);
    };
    let text = |text: &str| AMQPValue::LongString(text.as_bytes().into());
    put("x-queue-type", text(queue_type.as_str()));
    if queue_type == QueueType::Quorum {
        put("x-delivery-limit", AMQPValue::LongLongInt(NO_DELIVERY_LIMIT));
    }
    match purpose {
        Purpose::Messages if queue_type == QueueType::Classic => put("x-max-priority", AMQPValue::LongInt(MAX_PRIORITY.into())),
        Purpose::Messages | Purpose::Dead => {}
        Purpose::Delay { millis, to } => {
            put("x-message-ttl", AMQPValue::LongLongInt(i64::try_from(millis).unwrap_or(i64::MAX)));
            put("x-dead-letter-exchange", text(""));
            put("x-dead-letter-routing-key", text(to));
            if queue_type == QueueType::Quorum {
                // The broker removes a message here when it has arrived there, and not before.
                put("x-dead-letter-strategy", text("at-least-once"));
                put("x-overflow", text("reject-publish"));
            }
        }
    }
    arguments
}

/// Declares a durable queue. It may be there already.
pub(crate) async fn declare(link: &Link, name: &str, purpose: Purpose<'_>) -> Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let arguments = arguments(link.settings().queue_type, purpose);
    link.briefly(async |channel| channel.queue_declare(name.into(), options, arguments).await).await.map(drop)
}

/// How many messages are ready there; `None` without such a queue.
pub(crate) async fn ready(link: &Link, name: &str) -> Result<Option<u64>> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = link.briefly(async |channel| channel.queue_declare(name.into(), options, FieldTable::default()).await).await;
    match asked {
        Ok(queue) => Ok(Some(queue.message_count().into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
