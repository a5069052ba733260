//! Messages as the broker carries them.
//!
//! Body, content type, id and priority are properties that every AMQP program knows; attributes are headers of their own names. What AMQP has no
//! place for stands in headers that begin with `storage-`.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use storage_core::message::{RESERVED_ATTRIBUTE_PREFIX, dead};
use storage_core::{Attributes, Error, Message, MessageId, NewMessage, Result, clock};
use uuid::Uuid;

/// When it was sent, in microseconds since 1970.
const SENT: &str = "storage-sent";
/// When it becomes a dead letter.
const EXPIRES: &str = "storage-expires";
/// Deliveries that the broker does not count: it was published again since.
const DELIVERIES: &str = "storage-deliveries";
/// Attributes whose names mean something to the broker.
const MORE: &str = "storage-more";
/// Attributes of messages of other programs: where they want an answer, and by which they know it.
pub(crate) const REPLY_TO: &str = "storage-reply-to";
const CORRELATION_ID: &str = "storage-correlation-id";
/// How often it came back, which quorum queues count.
const BROKER_COUNT: &str = "x-delivery-count";
/// Properties and headers must fit into one frame of 128 KiB.
const MAX_HEADERS: usize = 120 << 10;
/// Kept on the disk.
const PERSISTENT: u8 = 2;

/// A message on its way to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) body: Bytes,
    pub(crate) properties: BasicProperties,
}

fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|_| Error::invalid("a name of more than 255 bytes"))
}

fn is_plain(name: &str) -> bool {
    !matches!(name, "CC" | "BCC") && !name.starts_with("x-") && !name.is_empty()
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.as_bytes().into())
}

fn micros(time: DateTime<Utc>) -> AMQPValue {
    AMQPValue::LongLongInt(time.timestamp_micros())
}

fn put_attributes(headers: &mut FieldTable, attributes: &Attributes) -> Result<()> {
    let mut more = FieldTable::default();
    // What a field costs beside its name and value: two lengths and a type.
    let mut size = 512;
    for (name, value) in attributes {
        let table = if is_plain(name) { &mut *headers } else { &mut more };
        table.insert(short(name)?, text(value));
        size += name.len() + value.len() + 6;
    }
    if size > MAX_HEADERS {
        return Err(Error::invalid(format!(
            "{} attributes take {size} bytes on this backend, {MAX_HEADERS} at most: put data into the body",
            attributes.len()
        )));
    }
    if !more.inner().is_empty() {
        headers.insert(MORE.into(), AMQPValue::FieldTable(more));
    }
    Ok(())
}

/// A message to send, and the id that it gets.
pub(crate) fn encode(message: NewMessage, now: DateTime<Utc>) -> Result<(MessageId, Parcel)> {
    let id = Uuid::now_v7().to_string();
    let mut headers = FieldTable::default();
    headers.insert(SENT.into(), micros(now));
    if let Some(ttl) = message.ttl {
        headers.insert(EXPIRES.into(), micros(clock::add(now, ttl)));
    }
    put_attributes(&mut headers, &message.attributes)?;
    let mut properties = BasicProperties::default()
        .with_message_id(short(&id)?)
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(u64::try_from(now.timestamp()).unwrap_or_default())
        .with_headers(headers);
    if let Some(content_type) = &message.content_type {
        properties = properties.with_content_type(short(content_type)?);
    }
    if message.priority > 0 {
        properties = properties.with_priority(message.priority);
    }
    Ok((MessageId(id), Parcel { body: message.body, properties }))
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn integer(value: &AMQPValue) -> Option<i64> {
    match *value {
        AMQPValue::ShortShortInt(n) => Some(n.into()),
        AMQPValue::ShortShortUInt(n) => Some(n.into()),
        AMQPValue::ShortInt(n) => Some(n.into()),
        AMQPValue::ShortUInt(n) => Some(n.into()),
        AMQPValue::LongInt(n) => Some(n.into()),
        AMQPValue::LongUInt(n) => Some(n.into()),
        AMQPValue::LongLongInt(n) => Some(n),
        AMQPValue::Timestamp(n) => i64::try_from(n).ok(),
        _ => None,
    }
}

/// A header that is a number.
pub(crate) fn number(properties: &BasicProperties, name: &str) -> Option<i64> {
    integer(header(properties, name)?)
}

fn time(properties: &BasicProperties, name: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(number(properties, name)?)
}

fn count(properties: &BasicProperties, name: &str) -> u32 {
    number(properties, name).and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
}

/// True where the broker says that a message came back, but not how often.
pub(crate) fn is_uncounted(redelivered: bool, properties: &BasicProperties) -> bool {
    redelivered && number(properties, BROKER_COUNT).is_none()
}

/// How often it has been delivered, this time included.
pub(crate) fn deliveries(properties: &BasicProperties) -> u32 {
    count(properties, DELIVERIES).saturating_add(count(properties, BROKER_COUNT)).saturating_add(1)
}

/// When it becomes a dead letter.
pub(crate) fn expires_at(properties: &BasicProperties) -> Option<DateTime<Utc>> {
    time(properties, EXPIRES)
}

fn get_attributes(properties: &BasicProperties) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, value) in [(REPLY_TO, properties.reply_to()), (CORRELATION_ID, properties.correlation_id())] {
        if let Some(value) = value {
            attributes.insert(name.to_owned(), value.to_string());
        }
    }
    let Some(headers) = properties.headers() else { return attributes };
    let more = match headers.inner().get(MORE) {
        Some(AMQPValue::FieldTable(more)) => Some(more),
        _ => None,
    };
    let is_own = |name: &str| !name.starts_with(RESERVED_ATTRIBUTE_PREFIX) || name.starts_with("storage-dead-");
    let plain = headers.inner().iter().filter(|(name, _)| is_plain(name.as_str()) && is_own(name.as_str()));
    for (name, value) in plain.chain(more.iter().flat_map(|table| table.inner())) {
        let value = match value {
            AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
            AMQPValue::ShortString(text) => text.to_string(),
            AMQPValue::Boolean(on) => on.to_string(),
            // Tables and what else other programs write is not an attribute.
            other => match integer(other) {
                Some(number) => number.to_string(),
                None => continue,
            },
        };
        attributes.insert(name.to_string(), value);
    }
    attributes
}

/// A message as it came. What another program sent without an id gets one that holds for this delivery.
pub(crate) fn decode(properties: &BasicProperties, body: Bytes) -> Message {
    let id = properties.message_id().as_ref().map_or_else(|| Uuid::now_v7().to_string(), ToString::to_string);
    let stamp = || DateTime::from_timestamp(i64::try_from((*properties.timestamp())?).ok()?, 0);
    Message {
        id: MessageId(id),
        body,
        attributes: get_attributes(properties),
        content_type: properties.content_type().as_ref().map(ToString::to_string),
        priority: properties.priority().unwrap_or_default().min(storage_core::message::MAX_PRIORITY),
        deliveries: deliveries(properties),
        enqueued_at: time(properties, SENT).or_else(stamp).unwrap_or_else(Utc::now),
        expires_at: expires_at(properties),
    }
}

fn rewritten(properties: &BasicProperties, rewrite: impl FnOnce(&mut FieldTable)) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        // The broker's own counts and traces belong to the message as it was.
        if !name.as_str().starts_with("x-") && name.as_str() != DELIVERIES {
            headers.insert(name.clone(), value.clone());
        }
    }
    rewrite(&mut headers);
    properties.clone().with_headers(headers).with_delivery_mode(PERSISTENT)
}

/// The same message, which has been delivered once more.
pub(crate) fn counted(properties: &BasicProperties, body: Bytes) -> Parcel {
    let deliveries = AMQPValue::LongLongInt(deliveries(properties).into());
    let properties = rewritten(properties, |headers| {
        headers.insert(DELIVERIES.into(), deliveries);
    });
    Parcel { body, properties }
}

/// The message as a dead letter.
pub(crate) fn dead_letter(properties: &BasicProperties, body: Bytes, source: &str, reason: &str, times: u32) -> Parcel {
    let at = storage_core::value::timestamp(Utc::now());
    let properties = rewritten(properties, |headers| {
        for (name, value) in
            [(dead::REASON, reason), (dead::SOURCE, source), (dead::DELIVERIES, &times.to_string()), (dead::AT, &at)]
        {
            headers.insert(name.into(), text(value));
        }
        remove(headers, &[EXPIRES]);
    });
    Parcel { body, properties }
}

/// The dead letter as it was before, without time to live.
pub(crate) fn alive(properties: &BasicProperties, body: Bytes) -> Parcel {
    let attributes = [dead::REASON, dead::SOURCE, dead::DELIVERIES, dead::AT, EXPIRES];
    Parcel { body, properties: rewritten(properties, |headers| remove(headers, &attributes)) }
}

fn remove(headers: &mut FieldTable, names: &[&str]) {
    let kept = headers.inner().iter().filter(|(name, _)| !names.contains(&name.as_str()));
    *headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect::<std::collections::BTreeMap<_, _>>().into();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn example() -> NewMessage {
        NewMessage::new("body")
            .attribute("tenant", "acme")
            .attribute("x-death", "mine")
            .attribute("CC", "you")
            .content_type("text/x")
            .ttl(Duration::from_secs(60))
            .priority(3)
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let now = Utc::now();
        let (id, parcel) = encode(example(), now).unwrap();
        let message = decode(&parcel.properties, parcel.body);
        assert_eq!((message.id, &message.body[..], message.deliveries, message.priority), (id, &b"body"[..], 1, 3));
        assert_eq!(message.attributes, example().attributes);
        assert_eq!(message.enqueued_at.timestamp_micros(), now.timestamp_micros());
        assert_eq!((message.expires_at.unwrap() - message.enqueued_at).num_seconds(), 60);
        assert!(header(&parcel.properties, "CC").is_none(), "the broker would take it for an order");
    }

    #[test]
    fn a_dead_letter_comes_to_life_as_it_was() {
        let (id, parcel) = encode(example(), Utc::now()).unwrap();
        let dead = dead_letter(&parcel.properties, parcel.body.clone(), "q", "tired", 4);
        let letter = decode(&dead.properties, dead.body.clone());
        assert_eq!(letter.attributes[dead::REASON], "tired");
        assert_eq!((letter.attributes.len(), letter.expires_at), (7, None));
        let alive = alive(&dead.properties, dead.body);
        let message = decode(&alive.properties, alive.body);
        assert_eq!((message.id, message.attributes, message.deliveries), (id, example().attributes, 1));
    }

    #[test]
    fn counts_add_up() {
        let (_, parcel) = encode(example(), Utc::now()).unwrap();
        let twice = counted(&counted(&parcel.properties, Bytes::new()).properties, Bytes::new());
        assert_eq!(deliveries(&twice.properties), 3);
        assert!(is_uncounted(true, &twice.properties) && !is_uncounted(false, &twice.properties));
    }

    #[test]
    fn too_many_attributes_are_refused() {
        let many = (0..20_000).fold(NewMessage::new("x"), |message, n| message.attribute(format!("{n:x}"), ""));
        assert!(encode(many, Utc::now()).is_err());
    }
}
