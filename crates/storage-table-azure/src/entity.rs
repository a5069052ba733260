//! A record as an entity: each field a property of the type that it has, what no property can hold in one beside them.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, SecondsFormat, TimeZone as _, Utc};
use serde_json::{Map, Value};
use storage_core::value::{self, parse_timestamp, timestamp};
use storage_core::{ColumnType, Error, Fields, Record, Result, TableSchema, Undeclared, Version};

use crate::keys::{self, Place};
use crate::names;
use crate::table::Table;

/// The record's version.
pub(crate) const VERSION: &str = "_version";
/// When it was written.
pub(crate) const UPDATED: &str = "_updated";
/// From when on it counts as absent.
pub(crate) const EXPIRES: &str = "_expires";
/// After how many changes of the table it was written, where that is more than none.
const GENERATION: &str = "_generation";
/// True where a timestamp is earlier than the service can keep, and in [`REST`].
pub(crate) const EARLY: &str = "_early";
/// A JSON object of the fields that no property can hold.
const REST: &str = "_rest";
/// A JSON object: how many bytes the values have that are in parts.
const SPLIT: &str = "_split";

/// How many UTF-16 units of text one property holds; the service takes 32,768.
const TEXT_UNITS: usize = 32_000;
/// How many bytes one property holds: in base64 without a rest. The service takes 65,536.
const BYTES: usize = 60_000;
/// How many properties declared columns and other fields may have; the service takes 252, and parts and our own need room.
pub(crate) const MAX_COLUMNS: usize = 200;
const MAX_FIELDS: usize = 225;
/// The largest entity that the service takes.
const MAX_ENTITY: usize = 1 << 20;
/// How many bytes a record's fields may have as JSON: each may become two, and names and types take room beside them.
pub(crate) const MAX_RECORD: usize = 448 << 10;
/// The first year that a property can hold.
pub(crate) const FIRST_YEAR: i32 = 1601;

/// An entity as the service answers it.
#[derive(Debug)]
pub(crate) struct Entity {
    pub(crate) place: Place,
    pub(crate) etag: String,
    properties: Map<String, Value>,
}

/// The type of a property, as far as fields are made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edm {
    Text,
    Int64,
    Double,
    Boolean,
    DateTime,
    Binary,
}

impl Edm {
    fn of(kind: ColumnType) -> Self {
        match kind {
            ColumnType::Text | ColumnType::Json => Self::Text,
            ColumnType::Integer => Self::Int64,
            ColumnType::Real => Self::Double,
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Timestamp => Self::DateTime,
            ColumnType::Bytes => Self::Binary,
        }
    }

    /// The name that has to be said, since JSON does not.
    fn annotation(self) -> Option<&'static str> {
        match self {
            Self::Int64 => Some("Edm.Int64"),
            Self::Double => Some("Edm.Double"),
            Self::DateTime => Some("Edm.DateTime"),
            Self::Binary => Some("Edm.Binary"),
            Self::Text | Self::Boolean => None,
        }
    }
}

/// The property of a declared column, where it has one of its own.
pub(crate) fn property_of(schema: &TableSchema, column: &str) -> Option<String> {
    let at = schema.columns.iter().position(|declared| declared.name == *column)?;
    if at < MAX_COLUMNS { names::property(column) } else { None }
}

/// A moment as a property holds it.
pub(crate) fn moment(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The nearest that a property can hold.
fn clamped(time: DateTime<Utc>) -> DateTime<Utc> {
    let bound = |year, month, day| Utc.with_ymd_and_hms(year, month, day, 0, 0, 0).single();
    match (bound(FIRST_YEAR, 1, 1), bound(9999, 12, 31)) {
        (Some(first), Some(last)) => time.clamp(first, last),
        _ => time,
    }
}

/// An entity in the making.
#[derive(Debug)]
struct Builder {
    properties: Map<String, Value>,
    fields: usize,
    rest: Fields,
    split: BTreeMap<String, usize>,
    /// As the service counts.
    size: usize,
}

impl Builder {
    fn new(place: &Place) -> Self {
        let mut builder = Self { properties: Map::new(), fields: 0, rest: Fields::new(), split: BTreeMap::new(), size: 4 };
        builder.properties.insert("PartitionKey".into(), Value::from(place.partition.as_str()));
        builder.properties.insert("RowKey".into(), Value::from(place.row.as_str()));
        builder.size += 2 * (place.partition.len() + place.row.len());
        builder
    }

    fn put(&mut self, name: &str, value: Value, edm: Edm) {
        let size = match &value {
            Value::String(text) if edm == Edm::Text => 4 + 2 * text.encode_utf16().count(),
            Value::String(text) if edm == Edm::Binary => 4 + text.len() / 4 * 3,
            _ => 8,
        };
        self.size += 8 + 2 * name.len() + size;
        self.properties.insert(name.to_owned(), value);
        if let Some(annotation) = edm.annotation() {
            self.properties.insert(format!("{name}@odata.type"), annotation.into());
        }
    }

    /// Text of any length, in as many properties as it takes.
    fn put_text(&mut self, name: &str, text: &str) {
        let parts = text_parts(text);
        if parts.len() > 1 {
            self.split.insert(name.to_owned(), text.len());
        }
        for (n, part) in parts.into_iter().enumerate() {
            self.put(&names::part(name, n + 1), part.into(), Edm::Text);
        }
    }

    fn put_bytes(&mut self, name: &str, base64: &str) {
        // Of base64, four characters are three bytes.
        let parts: Vec<&str> = pieces(base64, BYTES / 3 * 4);
        if parts.len() > 1 {
            self.split.insert(name.to_owned(), base64.len());
        }
        for (n, part) in parts.into_iter().enumerate() {
            self.put(&names::part(name, n + 1), part.into(), Edm::Binary);
        }
    }

    fn put_json(&mut self, name: &str, value: &Value) -> Result<()> {
        let text = serde_json::to_string(value)?;
        self.put_text(name, &text);
        Ok(())
    }

    fn field(&mut self, name: &str, value: &Value, declared: Option<ColumnType>, property: Option<String>) -> Result<()> {
        let edm = match (declared, value) {
            (Some(kind), _) => Some(Edm::of(kind)),
            (None, Value::String(_)) => Some(Edm::Text),
            (None, Value::Bool(_)) => Some(Edm::Boolean),
            (None, Value::Number(n)) if n.is_i64() => Some(Edm::Int64),
            (None, Value::Number(n)) if n.is_f64() => Some(Edm::Double),
            (None, _) => None,
        };
        let (Some(property), Some(edm)) = (property, edm) else {
            self.rest.insert(name.to_owned(), value.clone());
            return Ok(());
        };
        self.fields += 1;
        match (edm, value) {
            (Edm::Text, Value::String(text)) if declared != Some(ColumnType::Json) => self.put_text(&property, text),
            (Edm::Text, value) => self.put_json(&property, value)?,
            (Edm::Int64, value) => self.put(&property, value.to_string().into(), edm),
            (Edm::DateTime, Value::String(text)) if parse_timestamp(text)?.year() < FIRST_YEAR => {
                self.rest.insert(name.to_owned(), value.clone());
                self.put(EARLY, true.into(), Edm::Boolean);
            }
            (Edm::Binary, Value::String(base64)) => self.put_bytes(&property, base64),
            (edm, value) => self.put(&property, value.clone(), edm),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Map<String, Value>> {
        if !self.rest.is_empty() {
            let rest = Value::Object(std::mem::take(&mut self.rest));
            self.put_json(REST, &rest)?;
        }
        if !self.split.is_empty() {
            let split = serde_json::to_string(&self.split)?;
            self.put(SPLIT, split.into(), Edm::Text);
        }
        if self.size > MAX_ENTITY {
            return Err(Error::invalid(format!(
                "the record has {} bytes on the service, which takes {MAX_ENTITY}: put large data into a blob",
                self.size
            )));
        }
        Ok(self.properties)
    }
}

/// Cuts text after so many bytes at most, at boundaries of characters.
fn pieces(text: &str, most: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > most {
        let (piece, behind) = rest.split_at(rest.floor_char_boundary(most));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}

/// Cuts text into what one property holds each.
fn text_parts(text: &str) -> Vec<&str> {
    let (mut parts, mut begun, mut units) = (Vec::new(), 0, 0);
    // No more units than bytes: most texts are looked at no closer.
    if text.len() <= TEXT_UNITS {
        return vec![text];
    }
    for (at, c) in text.char_indices() {
        if units + c.len_utf16() > TEXT_UNITS {
            parts.push(&text[begun..at]);
            (begun, units) = (at, 0);
        }
        units += c.len_utf16();
    }
    parts.push(&text[begun..]);
    parts
}

/// The record as the service is given it.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) where it is too large for the service.
pub(crate) fn encode(table: &Table, place: &Place, record: &Record) -> Result<Map<String, Value>> {
    let schema = &table.schema;
    let mut builder = Builder::new(place);
    if table.generation() > 0 {
        builder.put(GENERATION, table.generation().to_string().into(), Edm::Int64);
    }
    builder.put(VERSION, record.version.0.to_string().into(), Edm::Int64);
    builder.put(UPDATED, moment(clamped(record.updated_at)).into(), Edm::DateTime);
    if let Some(expires) = record.expires_at {
        builder.put(EXPIRES, moment(clamped(expires)).into(), Edm::DateTime);
    }
    for column in &schema.columns {
        if let Some(value) = record.fields.get(column.name.as_str()) {
            builder.field(column.name.as_str(), value, Some(column.kind), property_of(schema, column.name.as_str()))?;
        }
    }
    for (name, value) in record.fields.iter().filter(|(name, _)| schema.column(name).is_none()) {
        let property = if builder.fields < MAX_FIELDS { names::property(name) } else { None };
        builder.field(name, value, None, property)?;
    }
    builder.finish()
}

/// An entity that says: here is none. It counts as expired, whoever reads it.
pub(crate) fn vacant(place: &Place) -> Map<String, Value> {
    let mut builder = Builder::new(place);
    builder.put(VERSION, "0".into(), Edm::Int64);
    builder.put(EXPIRES, "1970-01-01T00:00:00Z".into(), Edm::DateTime);
    builder.properties
}

/// The keys alone, for a merge that changes nothing.
pub(crate) fn bare(place: &Place) -> Map<String, Value> {
    Builder::new(place).properties
}

impl Entity {
    /// # Errors
    /// [`Unavailable`](storage_core::ErrorKind::Unavailable) where an answer is none.
    pub(crate) fn new(answer: Value) -> Result<Self> {
        let bad = || Error::unavailable("the service's answer is no entity");
        let Value::Object(mut properties) = answer else { return Err(bad()) };
        let mut text = |name: &str| match properties.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(bad()),
        };
        let place = Place { partition: text("PartitionKey")?, row: text("RowKey")? };
        let etag = text("odata.etag").unwrap_or_default();
        Ok(Self { place, etag, properties })
    }

    /// True where it counts as absent, by what it says itself.
    pub(crate) fn is_expired(&self, now: DateTime<Utc>) -> Result<bool> {
        Ok(self.time(EXPIRES)?.is_some_and(|at| at <= now))
    }

    fn corrupt(&self, what: impl std::fmt::Display) -> Error {
        Error::corrupt(format!("the entity {:?}, {:?}: {what}", self.place.partition, self.place.row))
    }

    fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>> {
        let Some(value) = self.properties.get(name) else { return Ok(None) };
        let time = value.as_str().and_then(|text| parse_timestamp(text).ok());
        time.map(Some).ok_or_else(|| self.corrupt(format_args!("property `{name}` is no time")))
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.properties.get(&format!("{name}@odata.type"))?.as_str()
    }

    /// The record.
    ///
    /// # Errors
    /// [`Corrupt`](storage_core::ErrorKind::Corrupt) where it is none of this table.
    pub(crate) fn into_record(self, table: &Table) -> Result<(Record, String)> {
        let key = keys::key(&table.schema, &self.place).ok_or_else(|| self.corrupt("no record of this table has these keys"))?;
        // Other programs' entities have no version: the first. When they were written, the service knows.
        let version = match self.properties.get(VERSION) {
            None => Version::FIRST,
            Some(_) => match self.value(VERSION, Some(ColumnType::Integer))?.as_u64() {
                Some(version) => Version(version),
                None => return Err(self.corrupt("its version is no number")),
            },
        };
        let updated_at = match self.time(UPDATED)? {
            Some(time) => time,
            None => self.time("Timestamp")?.unwrap_or_default(),
        };
        let expires_at = self.time(EXPIRES)?;
        // What says that no record is here has no fields.
        let fields = if version == Version::NONE { Fields::new() } else { self.fields(table)? };
        Ok((Record { key, version, updated_at, expires_at, fields }, self.etag))
    }

    /// The fields, with the changes of the table that came since they were written. Other programs write by what the table is now.
    fn fields(&self, table: &Table) -> Result<Fields> {
        let generation = match (self.properties.get(GENERATION), self.properties.get(VERSION)) {
            (Some(_), _) => self.value(GENERATION, Some(ColumnType::Integer))?.as_u64().and_then(|n| usize::try_from(n).ok()),
            (None, Some(_)) => Some(0),
            (None, None) => Some(table.generation()),
        };
        let (schema, later) = generation
            .and_then(|generation| table.since(generation))
            .ok_or_else(|| self.corrupt("it was written after changes that the table has not seen"))?;
        let mut fields = self.fields_by(schema)?;
        later.iter().for_each(|past| past.change.carry_fields(&mut fields));
        Ok(fields)
    }

    fn fields_by(&self, schema: &TableSchema) -> Result<Fields> {
        let mut fields = Fields::new();
        let keeps = schema.undeclared == Undeclared::Keep;
        let split = self.split()?;
        for (property, value) in &self.properties {
            if value.is_null() || property.contains('@') || property == "Timestamp" || property.starts_with("odata.") {
                continue;
            }
            let Some(field) = names::field(property) else { continue };
            let declared = schema.column(&field).map(|column| column.kind);
            if declared.is_none() && (!keeps || schema.key_columns().any(|key| key.name == *field)) {
                continue;
            }
            let value = match split.get(property) {
                Some(bytes) => self.joined(property, declared, *bytes)?,
                None => self.value(property, declared)?,
            };
            fields.insert(field, value);
        }
        self.add_rest(schema, &split, &mut fields)?;
        match schema.columns.iter().find(|column| column.required && !fields.contains_key(column.name.as_str())) {
            Some(missing) => Err(self.corrupt(format_args!("it lacks `{}`, which the table requires", missing.name))),
            None => Ok(fields),
        }
    }

    fn add_rest(&self, schema: &TableSchema, split: &BTreeMap<String, usize>, fields: &mut Fields) -> Result<()> {
        if !self.properties.contains_key(REST) {
            return Ok(());
        }
        let text = match split.get(REST) {
            Some(bytes) => self.joined(REST, Some(ColumnType::Text), *bytes)?,
            None => self.value(REST, Some(ColumnType::Text))?,
        };
        let rest: Option<Fields> = text.as_str().and_then(|text| serde_json::from_str(text).ok());
        let rest = rest.ok_or_else(|| self.corrupt(format_args!("property `{REST}` is no JSON object")))?;
        fields
            .extend(rest.into_iter().filter(|(name, _)| schema.undeclared == Undeclared::Keep || schema.column(name).is_some()));
        Ok(())
    }

    fn split(&self) -> Result<BTreeMap<String, usize>> {
        match self.properties.get(SPLIT) {
            None => Ok(BTreeMap::new()),
            Some(value) => {
                let split = value.as_str().and_then(|text| serde_json::from_str(text).ok());
                split.ok_or_else(|| self.corrupt(format_args!("property `{SPLIT}` is no JSON object of numbers")))
            }
        }
    }

    /// The value of a property that goes on in others.
    fn joined(&self, property: &str, declared: Option<ColumnType>, bytes: usize) -> Result<Value> {
        let mut text = String::with_capacity(bytes.min(MAX_ENTITY));
        for n in 1.. {
            let Some(part) = self.properties.get(&names::part(property, n)).and_then(Value::as_str) else { break };
            text.push_str(part);
        }
        if text.len() != bytes {
            return Err(self.corrupt(format_args!(
                "the parts of property `{property}` have {} bytes, not {bytes}: another program changed some of them",
                text.len()
            )));
        }
        match declared {
            Some(ColumnType::Json) => self.json(property, &text),
            _ => Ok(text.into()),
        }
    }

    fn json(&self, property: &str, text: &str) -> Result<Value> {
        serde_json::from_str(text).map_err(|_| self.corrupt(format_args!("property `{property}` is no JSON")))
    }

    /// The value of a property, in canonical form.
    fn value(&self, property: &str, declared: Option<ColumnType>) -> Result<Value> {
        let value = self.properties.get(property).unwrap_or(&Value::Null);
        let annotation = self.annotation(property).unwrap_or(match value {
            Value::String(_) => "Edm.String",
            Value::Bool(_) => "Edm.Boolean",
            Value::Number(n) if n.is_f64() => "Edm.Double",
            Value::Number(_) => "Edm.Int32",
            _ => "",
        });
        let found = match (annotation, value) {
            ("Edm.Int64", Value::String(text)) => text.parse::<i64>().ok().map(Value::from),
            ("Edm.DateTime", Value::String(text)) => parse_timestamp(text).ok().map(|time| timestamp(time).into()),
            ("Edm.Int64" | "Edm.DateTime", _) | ("", _) => None,
            (_, value) => Some(value.clone()),
        };
        let fits = match declared {
            None => true,
            Some(ColumnType::Text | ColumnType::Json) => matches!(annotation, "Edm.String" | "Edm.Guid"),
            Some(ColumnType::Integer) => matches!(annotation, "Edm.Int64" | "Edm.Int32"),
            Some(ColumnType::Real) => matches!(annotation, "Edm.Double" | "Edm.Int32"),
            Some(ColumnType::Boolean) => annotation == "Edm.Boolean",
            Some(ColumnType::Timestamp) => annotation == "Edm.DateTime",
            Some(ColumnType::Bytes) => annotation == "Edm.Binary",
        };
        let Some(found) = found.filter(|_| fits) else {
            return Err(self.corrupt(format_args!(
                "property `{property}` is {annotation} of a kind or value that does not fit the table's schema"
            )));
        };
        match (declared, found) {
            (Some(ColumnType::Json), Value::String(text)) => self.json(property, &text),
            (Some(kind), found) => value::canonical(kind, found)
                .map_err(|error| self.corrupt(format_args!("property `{property}`: {}", error.message()))),
            (None, found) => Ok(found),
        }
    }
}
