//! [`Entity`] and [`Repository`]: records as a program's own types.

use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Batch, ColumnType, Error, Expect, Fields, Filter, Key, KeyPart, KeyType, PageToken, Query, Record, RecordStore, Result,
    TableName, TableSchema, Version, Write,
};

/// A type whose values are records of one table. Usually derived, with `#[derive(Entity)]` (feature `derive`).
pub trait Entity: Sized + Send + Sync + 'static {
    /// The table.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where names or defaults are not acceptable.
    fn schema() -> Result<TableSchema>;

    /// The value's key.
    fn key(&self) -> Key;

    /// The version it was read as; `None` where the type does not keep it. [`Version::NONE`]: it was not read, it is new.
    fn version(&self) -> Option<Version> {
        None
    }

    /// Notes the version after it was written.
    fn set_version(&mut self, version: Version) {
        let _ = version;
    }

    /// The fields of its record, without the key columns.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where a field can't be written as JSON.
    fn to_fields(&self) -> Result<Fields>;

    /// The value of a record.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) naming the column that does not fit.
    fn from_record(record: Record) -> Result<Self>;
}

/// A type that a column can hold, and what kind of column that is.
///
/// Implement it for your own types to name their column type once; for a single field, `#[entity(text)]`, `#[entity(json)]` and so on do.
#[diagnostic::on_unimplemented(
    message = "no column type is known for `{Self}`",
    note = "name it at the field: `#[entity(text)]`, `integer`, `real`, `boolean`, `timestamp`, `json` or `bytes`; or implement `ColumnValue`"
)]
pub trait ColumnValue: Serialize + DeserializeOwned {
    /// The column's type.
    const KIND: ColumnType;
    /// False where the value may be missing.
    const REQUIRED: bool = true;
}

/// A type that a key column can hold.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a key",
    note = "keys are `String`, `uuid::Uuid`, an integer of up to `i64` or `u32`, or a type that implements `KeyValue`"
)]
pub trait KeyValue: Clone {
    /// The key column's type.
    const KIND: KeyType;

    /// The key part.
    fn to_part(&self) -> KeyPart;

    /// The value of a key part.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) where it does not fit.
    fn from_part(part: KeyPart) -> Result<Self>;
}

macro_rules! column_values {
    ($($kind:ident: $($type:ty),+;)+) => {
        $($(impl ColumnValue for $type {
            const KIND: ColumnType = ColumnType::$kind;
        })+)+
    };
}

column_values! {
    Text: String, char, uuid::Uuid, std::path::PathBuf;
    Integer: i8, i16, i32, i64, u8, u16, u32, u64, usize, isize;
    Real: f32, f64;
    Boolean: bool;
    Timestamp: DateTime<Utc>;
}

impl ColumnValue for Value {
    const KIND: ColumnType = ColumnType::Json;
    // It may be null, and null is the same as missing.
    const REQUIRED: bool = false;
}

impl<T: ColumnValue> ColumnValue for Option<T> {
    const KIND: ColumnType = T::KIND;
    const REQUIRED: bool = false;
}

impl<T: Serialize + DeserializeOwned> ColumnValue for Vec<T> {
    const KIND: ColumnType = ColumnType::Json;
}

impl<T: Serialize + DeserializeOwned> ColumnValue for std::collections::BTreeMap<String, T> {
    const KIND: ColumnType = ColumnType::Json;
}

impl<T: Serialize + DeserializeOwned, S: std::hash::BuildHasher + Default> ColumnValue
    for std::collections::HashMap<String, T, S>
{
    const KIND: ColumnType = ColumnType::Json;
}

fn misfit(part: &KeyPart, wanted: &str) -> Error {
    Error::corrupt(format!("the key part {part:?} is not {wanted}"))
}

impl KeyValue for String {
    const KIND: KeyType = KeyType::Text;

    fn to_part(&self) -> KeyPart {
        KeyPart::Text(self.clone())
    }

    fn from_part(part: KeyPart) -> Result<Self> {
        match part {
            KeyPart::Text(text) => Ok(text),
            other @ KeyPart::Integer(_) => Err(misfit(&other, "text")),
        }
    }
}

impl KeyValue for uuid::Uuid {
    const KIND: KeyType = KeyType::Text;

    fn to_part(&self) -> KeyPart {
        KeyPart::Text(self.to_string())
    }

    fn from_part(part: KeyPart) -> Result<Self> {
        let parsed = match &part {
            KeyPart::Text(text) => text.parse().ok(),
            KeyPart::Integer(_) => None,
        };
        parsed.ok_or_else(|| misfit(&part, "a UUID"))
    }
}

macro_rules! integer_keys {
    ($($type:ty),+) => {
        $(impl KeyValue for $type {
            const KIND: KeyType = KeyType::Integer;

            fn to_part(&self) -> KeyPart {
                KeyPart::Integer(i64::from(*self))
            }

            fn from_part(part: KeyPart) -> Result<Self> {
                let fitting = match &part {
                    KeyPart::Integer(n) => Self::try_from(*n).ok(),
                    KeyPart::Text(_) => None,
                };
                fitting.ok_or_else(|| misfit(&part, concat!("a number within ", stringify!($type))))
            }
        })+
    };
}

integer_keys!(i8, i16, i32, i64, u8, u16, u32);

/// A type that a column of bytes can hold.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a column of bytes",
    note = "columns of bytes are `Vec<u8>`, `bytes::Bytes`, an `Option` of these, or a type that implements `BytesValue`"
)]
pub trait BytesValue: Sized {
    /// False where the value may be missing.
    const REQUIRED: bool = true;

    /// The bytes; `None` where they are missing.
    fn as_bytes(&self) -> Option<&[u8]>;

    /// The value of these bytes; `None` where there is none for them.
    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self>;
}

impl BytesValue for Vec<u8> {
    fn as_bytes(&self) -> Option<&[u8]> {
        Some(self)
    }

    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self> {
        bytes
    }
}

impl BytesValue for bytes::Bytes {
    fn as_bytes(&self) -> Option<&[u8]> {
        Some(self)
    }

    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self> {
        bytes.map(Self::from)
    }
}

impl<T: BytesValue> BytesValue for Option<T> {
    const REQUIRED: bool = false;

    fn as_bytes(&self) -> Option<&[u8]> {
        self.as_ref().and_then(T::as_bytes)
    }

    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self> {
        match bytes {
            Some(bytes) => T::from_bytes(Some(bytes)).map(Some),
            None => Some(None),
        }
    }
}

/// The value of a key part, for derived code.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) where it is missing or does not fit.
pub fn take_part<T: KeyValue>(part: Option<&KeyPart>, table: &str, column: &str) -> Result<T> {
    let missing = || Error::corrupt("the key lacks this part");
    part.ok_or_else(missing)
        .and_then(|part| T::from_part(part.clone()))
        .map_err(|e| Error::corrupt(format!("key column `{column}` of table `{table}`: {}", e.message())).with_source(e))
}

/// Takes the bytes of `column` out of `fields`, as `T`: for derived code.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) where it is not a `T`.
pub fn take_bytes<T: BytesValue>(fields: &mut Fields, table: &str, key: &Key, column: &str) -> Result<T> {
    let decoded = match fields.remove(column) {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => BASE64.decode(text).ok().map(Some),
        Some(_) => None,
    };
    decoded.and_then(T::from_bytes).ok_or_else(|| {
        Error::corrupt(format!("column `{column}` of record `{key}` in table `{table}`: missing, or not bytes in base64"))
    })
}

/// Puts bytes into `fields`: for derived code.
pub fn put_bytes<T: BytesValue>(fields: &mut Fields, column: &str, value: &T) {
    if let Some(bytes) = value.as_bytes() {
        fields.insert(column.to_owned(), Value::String(BASE64.encode(bytes)));
    }
}

/// Takes the value of `column` out of `fields`, as `T`: for derived code.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) where it is not a `T`.
pub fn take_field<T: DeserializeOwned>(fields: &mut Fields, table: &str, key: &Key, column: &str) -> Result<T> {
    let value = fields.remove(column).unwrap_or(Value::Null);
    serde_json::from_value(value)
        .map_err(|e| Error::corrupt(format!("column `{column}` of record `{key}` in table `{table}`: {e}")).with_source(e))
}

/// Puts `value` into `fields`: for derived code. A null is left out.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it can't be written as JSON.
pub fn put_field<T: Serialize>(fields: &mut Fields, column: &str, value: &T) -> Result<()> {
    let value =
        serde_json::to_value(value).map_err(|e| Error::invalid(format!("column `{column}` can't be written as JSON: {e}")))?;
    if !value.is_null() {
        fields.insert(column.to_owned(), value);
    }
    Ok(())
}

/// The records of one table, as values of `E`. Cheap to clone.
#[derive(Debug)]
pub struct Repository<E> {
    store: RecordStore,
    schema: Arc<TableSchema>,
    kind: PhantomData<fn(E) -> E>,
}

impl<E> Clone for Repository<E> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), schema: Arc::clone(&self.schema), kind: PhantomData }
    }
}

impl<E: Entity> Repository<E> {
    /// Opens the entity's table; creates it where it is not there.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists): the table is there with another schema.
    pub async fn open(store: &RecordStore) -> Result<Self> {
        let schema = E::schema()?;
        store.create_table(&schema).await?;
        Ok(Self { store: store.clone(), schema: Arc::new(schema), kind: PhantomData })
    }

    /// The store it is in.
    #[must_use]
    pub fn store(&self) -> &RecordStore {
        &self.store
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &TableName {
        &self.schema.name
    }

    /// A query of this table, to be narrowed and passed to [`find`](Self::find), [`stream`](Self::stream) or [`count`](Self::count).
    #[must_use]
    pub fn query(&self) -> Query {
        Query { table: self.schema.name.clone(), filter: Filter::All, order: Vec::new(), limit: 100, after: None, stale: false }
    }

    fn save_write(&self, entity: &E) -> Result<Write> {
        let expect = match entity.version() {
            None => Expect::Anything,
            Some(Version::NONE) => Expect::Absent,
            Some(version) => Expect::Version(version),
        };
        Ok(Write::Put {
            table: self.schema.name.clone(),
            key: entity.key(),
            fields: entity.to_fields()?,
            expect,
            expires_at: None,
        })
    }

    /// Writes a value by what the caller holds: a type that keeps its version inserts what is new and updates what was read, if nobody else has
    /// changed it meanwhile; a type that doesn't is written whatever is there.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) or [`Conflict`](crate::ErrorKind::Conflict) with a version;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput).
    pub async fn save(&self, entity: &mut E) -> Result<Version> {
        self.save_all(std::slice::from_mut(entity)).await?;
        Ok(entity.version().unwrap_or_default())
    }

    /// Writes all values as [`save`](Self::save) does, or none.
    ///
    /// # Errors
    /// See [`save`](Self::save), with the index of the value; [`Unsupported`](crate::ErrorKind::Unsupported) where the backend is not atomic over a table.
    pub async fn save_all(&self, entities: &mut [E]) -> Result<()> {
        let writes = entities.iter().map(|e| self.save_write(e)).collect::<Result<Vec<_>>>()?;
        let versions = self.store.commit(Batch::from(writes)).await?;
        for (entity, version) in entities.iter_mut().zip(versions) {
            entity.set_version(version);
        }
        Ok(())
    }

    /// The value with that key.
    ///
    /// # Errors
    /// See [`RecordStore::get`].
    pub async fn find_by_id(&self, key: impl Into<Key>) -> Result<Option<E>> {
        self.store.get(&self.schema.name, key).await?.map(E::from_record).transpose()
    }

    /// Every value, by key. For tables that fit into memory; else [`stream`](Self::stream).
    ///
    /// # Errors
    /// See [`RecordStore::scan`].
    pub async fn find_all(&self) -> Result<Vec<E>> {
        let mut all = Vec::new();
        let mut stream = self.stream(self.query().limit(1000));
        while let Some(entity) = stream.next().await {
            all.push(entity?);
        }
        Ok(all)
    }

    /// One page of values, and where the next one starts.
    ///
    /// # Errors
    /// See [`RecordStore::scan`].
    pub async fn find(&self, query: &Query) -> Result<(Vec<E>, Option<PageToken>)> {
        let page = self.store.scan(query).await?;
        let entities = page.records.into_iter().map(E::from_record).collect::<Result<_>>()?;
        Ok((entities, page.next))
    }

    /// All values of a query, fetched page by page.
    pub fn stream(&self, query: Query) -> BoxStream<'static, Result<E>> {
        self.store.stream(query).map(|record| record.and_then(E::from_record)).boxed()
    }

    /// Changes some fields of a value; `null` removes one.
    ///
    /// # Errors
    /// See [`RecordStore::update`].
    pub async fn update(&self, key: impl Into<Key>, fields: Fields, expect: Expect) -> Result<Version> {
        self.store.update(&self.schema.name, key, fields, expect).await
    }

    /// Removes the value with that key. `false`: there was none.
    ///
    /// # Errors
    /// The backend's.
    pub async fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        self.store.delete(&self.schema.name, key, Expect::Anything).await
    }

    /// How many values match the query's filter.
    ///
    /// # Errors
    /// See [`RecordStore::count`].
    pub async fn count(&self, query: &Query) -> Result<u64> {
        self.store.count(query).await
    }

    /// True where there is a value with that key.
    ///
    /// # Errors
    /// See [`RecordStore::get`].
    pub async fn exists(&self, key: impl Into<Key>) -> Result<bool> {
        Ok(self.store.get(&self.schema.name, key).await?.is_some())
    }

    /// The kept versions of a value, newest first.
    ///
    /// # Errors
    /// See [`RecordStore::history`].
    pub async fn history(&self, key: impl Into<Key>) -> Result<Vec<E>> {
        self.store.history(&self.schema.name, key).await?.into_iter().map(E::from_record).collect()
    }
}
