//! How messages are shown.

use serde_json::{Value, json};
use storage_core::value::encode_bytes;
use storage_core::{Delivery, Message};

use crate::exit::Failure;
use crate::output::{Out, printable, time};

/// A body for programs: `body` where it is UTF-8, else `body_base64`.
pub(crate) fn json(message: &Message, delivery: Option<&Delivery>) -> Value {
    let mut object = json!({
        "id": message.id,
        "deliveries": message.deliveries,
        "enqueued_at": message.enqueued_at,
    });
    match std::str::from_utf8(&message.body) {
        Ok(text) => object["body"] = json!(text),
        Err(_) => object["body_base64"] = json!(encode_bytes(&message.body)),
    }
    if !message.attributes.is_empty() {
        object["attributes"] = json!(message.attributes);
    }
    if let Some(content_type) = &message.content_type {
        object["content_type"] = json!(content_type);
    }
    if message.priority > 0 {
        object["priority"] = json!(message.priority);
    }
    if let Some(expires_at) = message.expires_at {
        object["expires_at"] = json!(expires_at);
    }
    if let Some(delivery) = delivery {
        object["receipt"] = json!(delivery.receipt);
        object["leased_until"] = json!(delivery.leased_until);
    }
    object
}

/// Writes a message, with its receipt where it was received.
pub(crate) fn show(out: &Out, message: &Message, delivery: Option<&Delivery>) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&json(message, delivery));
    }
    let mut rows = vec![("id", message.id.to_string())];
    if let Some(delivery) = delivery {
        rows.push(("receipt", delivery.receipt.to_string()));
        rows.push(("leased until", time(delivery.leased_until)));
    }
    rows.push(("sent", time(message.enqueued_at)));
    rows.push(("deliveries", message.deliveries.to_string()));
    rows.extend(message.content_type.clone().map(|kind| ("content type", kind)));
    rows.extend((message.priority > 0).then(|| ("priority", message.priority.to_string())));
    rows.extend(message.expires_at.map(|at| ("expires", time(at))));
    rows.extend(message.attributes.iter().map(|(name, value)| (name.as_str(), value.clone())));
    out.details(rows)?;
    out.line("")?;
    match std::str::from_utf8(&message.body) {
        Ok(text) => out.line(text.lines().map(printable).collect::<Vec<_>>().join("\n"))?,
        Err(_) => out.line(format!("({} bytes that are not text; --json has them in base64)", message.body.len()))?,
    }
    out.line("")
}

/// The beginning of a body, on one line.
pub(crate) fn excerpt(body: &[u8]) -> String {
    const SHOWN: usize = 200;
    match std::str::from_utf8(body) {
        Ok(text) => text.chars().take(SHOWN).collect(),
        Err(_) => format!("({} bytes that are not text)", body.len()),
    }
}
