//! Services for queues.

use super::{Launch, Place, Ready};
use crate::Result;

/// How a node is run apart from the system's. Tests that break their broker start theirs by the same script.
const RABBITMQ: &str = include_str!("../../../crates/storage-queue-amqp/tests/common/broker.sh");

/// RabbitMQ, with its own epmd.
pub(super) fn rabbitmq(place: &Place) -> Result<Launch> {
    let folder = place.folder.to_string_lossy().into_owned();
    let [port, distribution, epmd] = [0, 1, 2].map(|n| place.ports[n].to_string());
    let address = format!("amqp://guest:guest@127.0.0.1:{port}/");
    let arguments = ["-c".to_owned(), RABBITMQ.to_owned(), "broker".to_owned(), folder, port, distribution, epmd].to_vec();
    // A method frame on channel 0, which opens the conversation.
    let ready = Ready::Answer { ports: vec![place.ports[0]], ask: b"AMQP\x00\x00\x09\x01", expect: &[1, 0, 0] };
    Ok(Launch { program: Some("sh"), arguments, address, ready, beside: None })
}
