//! [`Row`]: a message as a record.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::send::Item;
use crate::value::{decode_bytes, encode_bytes};
use crate::{ColumnType, Error, Fields, NewMessage, QueueName, Record, Result, TableName, TableSchema, Version, part_value};

/// The table's schema.
pub(super) fn schema(table: &TableName) -> Result<TableSchema> {
    TableSchema::builder(table.as_str())
        .key("id")
        .column("queue", ColumnType::Text)
        .required()
        .column("body", ColumnType::Bytes)
        .required()
        .column("attributes", ColumnType::Json)
        .column("content_type", ColumnType::Text)
        .column("priority", ColumnType::Integer)
        .column("dedup_id", ColumnType::Text)
        .column("created_at", ColumnType::Timestamp)
        .required()
        .column("not_before", ColumnType::Timestamp)
        .column("good_until", ColumnType::Timestamp)
        .column("due_at", ColumnType::Timestamp)
        .column("claimed_until", ColumnType::Timestamp)
        .column("attempts", ColumnType::Integer)
        .column("refusals", ColumnType::Integer)
        .column("error", ColumnType::Text)
        .column("failed_at", ColumnType::Timestamp)
        .index("by_due_at", ["due_at"])
        .build()
}

/// A message as a record. Delay and time to live are moments here, so that they count from the commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(skip)]
    pub(super) id: String,
    #[serde(skip)]
    pub(super) version: Version,
    pub(super) queue: QueueName,
    /// In base64.
    pub(super) body: String,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) content_type: Option<String>,
    #[serde(default)]
    pub(super) priority: u8,
    pub(super) dedup_id: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) not_before: Option<DateTime<Utc>>,
    pub(super) good_until: Option<DateTime<Utc>>,
    /// When a relay is to take it. None where it is set aside.
    pub(super) due_at: Option<DateTime<Utc>>,
    /// Until then somebody has it in hand.
    pub(super) claimed_until: Option<DateTime<Utc>>,
    /// How often a relay has tried to send it.
    #[serde(default)]
    pub(super) attempts: u32,
    /// How often the queue has refused it.
    #[serde(default)]
    pub(super) refusals: u32,
    pub(super) error: Option<String>,
    /// Since when it is set aside.
    pub(super) failed_at: Option<DateTime<Utc>>,
}

impl Row {
    /// The row of a message that is committed now. `claimed`: whoever commits has until then to send it.
    pub(super) fn of(item: &Item, now: DateTime<Utc>, claimed: Option<DateTime<Utc>>) -> Self {
        let NewMessage { body, attributes, content_type, priority, dedup_id, .. } = &item.message;
        Self {
            id: item.id.clone(),
            version: Version::NONE,
            queue: item.queue.clone(),
            body: encode_bytes(body),
            attributes: attributes.clone(),
            content_type: content_type.clone(),
            priority: *priority,
            dedup_id: dedup_id.clone(),
            created_at: now,
            not_before: item.not_before,
            good_until: item.good_until,
            due_at: Some(claimed.unwrap_or(now)),
            claimed_until: claimed,
            attempts: 0,
            refusals: 0,
            error: None,
            failed_at: None,
        }
    }

    pub(super) fn to_fields(&self) -> Result<Fields> {
        match serde_json::to_value(self)? {
            Value::Object(fields) => Ok(fields),
            _ => Err(Error::internal("a row of the outbox is no object")),
        }
    }

    pub(super) fn from_record(record: Record) -> Result<Self> {
        let id = match part_value(&record.key.id) {
            Value::String(id) => id,
            other => other.to_string(),
        };
        let row: Self = serde_json::from_value(Value::Object(record.fields)).map_err(|e| {
            Error::corrupt(format!("row `{id}` of the outbox was not written by this toolkit: {e}")).with_source(e)
        })?;
        Ok(Self { id, version: record.version, ..row })
    }

    /// What is to be sent.
    pub(super) fn into_item(self) -> Result<Item> {
        let body = decode_bytes(&self.body)?;
        let Self { attributes, content_type, priority, dedup_id, .. } = self;
        let message = NewMessage { body: body.into(), attributes, content_type, priority, dedup_id, ..NewMessage::default() };
        let Self { id, version, queue, not_before, good_until, attempts, refusals, .. } = self;
        Ok(Item { id, version, queue, message, not_before, good_until, attempts, refusals })
    }
}
