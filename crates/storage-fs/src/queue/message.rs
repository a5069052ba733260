//! A message's file: a line of JSON about it, then its body.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use storage_core::message::dead;
use storage_core::{Attributes, Message, MessageId, Result, value};

use crate::lane::{Entry, Id};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    id: String,
    enqueued_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub(super) attributes: Attributes,
}

pub(super) fn id_text(id: Id) -> String {
    format!("{id:032x}")
}

impl Header {
    pub(super) fn new(entry: &Entry, content_type: Option<String>, attributes: Attributes) -> Self {
        Self { id: id_text(entry.id), enqueued_at: entry.enqueued_at(), content_type, attributes }
    }

    pub(super) fn bury(&mut self, source: &str, reason: &str, deliveries: u32, now: DateTime<Utc>) {
        let about = [
            (dead::REASON, reason.to_owned()),
            (dead::SOURCE, source.to_owned()),
            (dead::DELIVERIES, deliveries.to_string()),
            (dead::AT, value::timestamp(now)),
        ];
        self.attributes.extend(about.map(|(name, value)| (name.to_owned(), value)));
    }

    pub(super) fn resurrect(&mut self) {
        for name in [dead::REASON, dead::SOURCE, dead::DELIVERIES, dead::AT] {
            self.attributes.remove(name);
        }
    }

    pub(super) fn encode(&self, body: &[u8]) -> Result<Bytes> {
        let mut file = serde_json::to_vec(self)?;
        file.push(b'\n');
        file.extend_from_slice(body);
        Ok(file.into())
    }

    /// Header and body of a file, or what is wrong with it.
    pub(super) fn decode(file: &Bytes) -> std::result::Result<(Self, Bytes), String> {
        let line = file.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
        let header =
            serde_json::from_slice(&file[..line]).map_err(|e| format!("its first line is not what it should be: {e}"))?;
        Ok((header, file.slice(line + 1..)))
    }

    pub(super) fn into_message(self, entry: &Entry, body: Bytes) -> Message {
        Message {
            id: MessageId(id_text(entry.id)),
            body,
            attributes: self.attributes,
            content_type: self.content_type,
            priority: entry.priority,
            deliveries: entry.deliveries,
            enqueued_at: entry.enqueued_at(),
            expires_at: entry.expires_at(),
        }
    }
}
