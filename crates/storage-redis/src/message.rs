//! Messages and receipts as the server keeps them.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use redis::Value;
use storage_core::message::dead;
use storage_core::{Attributes, Error, Message, MessageId, QueueName, Receipt, Result, value};

use crate::error::strange;

/// How many values of an answer are one message.
const WIDTH: usize = 5;
/// The longest number of a message, and the longest name of a lease, in bytes.
const MAX_NUMBER: usize = 16;
const MAX_LEASE: usize = 40;

/// A message that was answered, and its lease.
pub(crate) struct Shown {
    pub(crate) message: Message,
    pub(crate) receipt: Receipt,
}

/// A receipt, taken apart.
pub(crate) struct Lease<'a> {
    pub(crate) number: &'a str,
    pub(crate) lease: &'a str,
}

pub(crate) fn receipt(number: &str, lease: &str) -> Receipt {
    Receipt(format!("{number}-{lease}"))
}

/// # Errors
/// `InvalidInput` for what is no receipt.
pub(crate) fn parse(receipt: &Receipt) -> Result<Lease<'_>> {
    let is_number = |text: &str| (1..=MAX_NUMBER).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    // Never `-`, which stands for no lease.
    let is_lease =
        |text: &str| (1..=MAX_LEASE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    match receipt.0.split_once('-') {
        Some((number, lease)) if is_number(number) && is_lease(lease) => Ok(Lease { number, lease }),
        _ => Err(Error::invalid("this is no receipt: use the one that came with the message, as it is")),
    }
}

/// Attributes as they are kept; nothing where there are none.
pub(crate) fn write_attributes(attributes: &Attributes) -> Result<String> {
    if attributes.is_empty() {
        return Ok(String::new());
    }
    Ok(serde_json::to_string(attributes)?)
}

pub(crate) fn micros(duration: std::time::Duration) -> String {
    duration.as_micros().to_string()
}

pub(crate) fn time(micros: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| damaged("a time"))
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("a message was not written by this toolkit: {what} can't be read"))
}

/// The messages of an answer.
pub(crate) fn read_all(shown: Value, queue: &QueueName) -> Result<Vec<Shown>> {
    let Value::Array(values) = shown else { return Err(strange("no list of messages")) };
    if values.len() % WIDTH != 0 {
        return Err(strange("half a message"));
    }
    let mut messages = Vec::with_capacity(values.len() / WIDTH);
    let mut values = values.into_iter();
    while let (Some(number), Some(state), Some(body), Some(attributes), Some(info)) =
        (values.next(), values.next(), values.next(), values.next(), values.next())
    {
        let about = About { number: text(number)?, state: text(state)?, attributes: text(attributes)?, info: text(info)? };
        messages.push(about.read(bytes(body)?.into(), queue)?);
    }
    Ok(messages)
}

/// What comes with a body.
struct About {
    number: String,
    state: String,
    attributes: String,
    info: String,
}

impl About {
    fn read(self, body: Bytes, queue: &QueueName) -> Result<Shown> {
        let mut parts = self.state.splitn(7, ' ');
        let mut next = || parts.next().ok_or_else(|| damaged("its state"));
        let mut number = |what: &str| next()?.parse::<i64>().map_err(|_| damaged(what));
        let (priority, expires, sent) = (number("its priority")?, number("its end")?, number("its beginning")?);
        let (deliveries, _size) = (number("its deliveries")?, number("its size")?);
        let (lease, content_type) = (next()?.to_owned(), parts.next().map(str::to_owned));
        let mut attributes = match self.attributes.as_str() {
            "" => Attributes::new(),
            json => serde_json::from_str(json).map_err(|_| damaged("its attributes"))?,
        };
        if !self.info.is_empty() {
            attributes.extend(read_info(&self.info, queue)?);
        }
        let message = Message {
            id: MessageId(self.number.clone()),
            body,
            attributes,
            content_type,
            priority: u8::try_from(priority).map_err(|_| damaged("its priority"))?,
            deliveries: u32::try_from(deliveries).map_err(|_| damaged("its deliveries"))?,
            enqueued_at: time(sent)?,
            expires_at: if expires > 0 { Some(time(expires)?) } else { None },
        };
        Ok(Shown { message, receipt: receipt(&self.number, &lease) })
    }
}

/// Why a message is dead.
fn read_info(info: &str, queue: &QueueName) -> Result<[(String, String); 4]> {
    let mut parts = info.splitn(3, ' ');
    let (Some(deliveries), Some(at), Some(reason)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(damaged("why it is dead"));
    };
    let at = time(at.parse().map_err(|_| damaged("when it died"))?)?;
    let source = queue.dead_letter_of().unwrap_or_else(|| queue.clone());
    Ok([
        (dead::REASON, reason.to_owned()),
        (dead::SOURCE, source.to_string()),
        (dead::DELIVERIES, deliveries.to_owned()),
        (dead::AT, value::timestamp(at)),
    ]
    .map(|(name, value)| (name.to_owned(), value)))
}

pub(crate) fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        _ => Err(strange("no text")),
    }
}

pub(crate) fn text(value: Value) -> Result<String> {
    String::from_utf8(bytes(value)?).map_err(|_| damaged("a text"))
}

pub(crate) fn int(value: &Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(strange("no number")),
    }
}

/// A number of messages.
pub(crate) fn count(value: &Value) -> Result<u64> {
    u64::try_from(int(value)?).map_err(|_| strange("a negative number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_checked() {
        assert!(parse(&receipt("17", "a1b2c3.42")).is_ok());
        for bad in ["", "-", "17", "17--", "17-", "-a", "x-a", "1-a b", "\u{1F600}", &format!("1-{}", "a".repeat(41))] {
            assert!(parse(&Receipt(bad.to_owned())).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_state_is_read_back() {
        let about = About {
            number: "17".into(),
            state: "9 0 1700000000000001 2 5 ab.1 text/plain; charset=\"ü\"".into(),
            attributes: "{\"a\":\"b\"}".into(),
            info: "3 1700000000000002 no such customer: 'ü'".into(),
        };
        let queue = QueueName::new("mail-dead").unwrap();
        let Shown { message, receipt } = about.read("hello".into(), &queue).unwrap();
        assert_eq!(receipt.0, "17-ab.1");
        assert_eq!((message.priority, message.deliveries, message.expires_at), (9, 2, None));
        assert_eq!(message.content_type.as_deref(), Some("text/plain; charset=\"ü\""));
        assert_eq!(message.attributes[dead::REASON], "no such customer: 'ü'");
        assert_eq!((message.attributes[dead::SOURCE].as_str(), message.attributes["a"].as_str()), ("mail", "b"));
    }

    #[test]
    fn what_others_wrote_is_corrupt() {
        let about = About { number: "1".into(), state: "what?".into(), attributes: String::new(), info: String::new() };
        let error = about.read(Bytes::new(), &QueueName::new("q").unwrap()).err().unwrap();
        assert_eq!(error.kind(), storage_core::ErrorKind::Corrupt);
    }
}
