//! Batches: the write primitive.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::record::Fields;
use crate::{Error, Key, NewMessage, QueueName, Record, Result, TableName, Version};

/// How many writes one batch may hold.
pub const MAX_BATCH: usize = 10_000;

/// What must be true of the record that a write is about. If it is not, the whole batch changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Whatever is there.
    #[default]
    Anything,
    /// There is none. Else [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
    Absent,
    /// There is one. Else [`NotFound`](crate::ErrorKind::NotFound).
    Present,
    /// There is one of this version. Else [`Conflict`](crate::ErrorKind::Conflict). [`Version::NONE`]: there is none, which is a conflict as well
    /// where there is one.
    ///
    /// Versions start at 1 again after a delete (or expiry), so that version 1 may be that of another record than was read. Where keys come back and
    /// that matters, mark records as deleted instead of deleting them, or give each a unique field and compare it.
    Version(Version),
}

impl Expect {
    /// Holds the expectation against the version that is there ([`Version::NONE`]: no record).
    ///
    /// # Errors
    /// The kinds named at the variants.
    pub fn check(self, table: &TableName, key: &Key, found: Version) -> Result<()> {
        let there = found != Version::NONE;
        match self {
            Self::Absent if there => Err(Error::already_exists(format!("table `{table}` has a record `{key}`"))),
            Self::Present if !there => Err(Error::not_found(format!("table `{table}` has no record `{key}`"))),
            Self::Version(version) if version != found => Err(Error::conflict(match there {
                true => format!("record `{key}` of table `{table}` has version {found}, not {version}"),
                false => format!("record `{key}` of table `{table}` is gone, expected version {version}"),
            })),
            _ => Ok(()),
        }
    }
}

/// One write of a batch. Writes take effect in order, each seeing those before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Writes a whole record.
    Put {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// All fields; what is not named is gone afterwards.
        fields: Fields,
        /// The precondition.
        expect: Expect,
        /// From when on the record counts as absent. `None`: never.
        expires_at: Option<DateTime<Utc>>,
    },
    /// Changes some fields of a record that is there; its expiry stays.
    Merge {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// The changed fields; `null` removes one.
        fields: Fields,
        /// The precondition. [`Expect::Anything`] is the same as [`Expect::Present`] here; [`Expect::Absent`] is refused.
        expect: Expect,
    },
    /// Removes a record. With [`Expect::Anything`], one that is not there is fine.
    Delete {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// The precondition.
        expect: Expect,
    },
    /// Only checks.
    Check {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// The precondition.
        expect: Expect,
    },
    /// Sends a message, if and only if the batch takes effect (transactional outbox).
    Enqueue {
        /// The queue, of the same backend.
        queue: QueueName,
        /// The message.
        message: NewMessage,
    },
}

impl Write {
    /// The record that the write is about.
    #[must_use]
    pub fn target(&self) -> Option<(&TableName, &Key)> {
        match self {
            Self::Put { table, key, .. }
            | Self::Merge { table, key, .. }
            | Self::Delete { table, key, .. }
            | Self::Check { table, key, .. } => Some((table, key)),
            Self::Enqueue { .. } => None,
        }
    }

    /// The precondition.
    #[must_use]
    pub fn expect(&self) -> Expect {
        match self {
            Self::Merge { expect: Expect::Anything, .. } => Expect::Present,
            Self::Put { expect, .. } | Self::Merge { expect, .. } | Self::Delete { expect, .. } | Self::Check { expect, .. } => {
                *expect
            }
            Self::Enqueue { .. } => Expect::Anything,
        }
    }

    /// Holds the precondition against what is there and computes what will be there: the one definition of what a write does.
    ///
    /// # Errors
    /// See [`Expect`].
    pub fn apply(&self, current: Option<&Record>, now: DateTime<Utc>) -> Result<Applied> {
        let Some((table, key)) = self.target() else { return Ok(Applied::Unchanged(Version::NONE)) };
        let current = current.filter(|r| !r.is_expired(now));
        let found = current.map_or(Version::NONE, |r| r.version);
        self.expect().check(table, key, found)?;
        let put = |fields, expires_at| {
            Applied::Put(Record { key: key.clone(), version: found.next(), updated_at: now, expires_at, fields })
        };
        Ok(match (self, current) {
            (Self::Put { fields, expires_at, .. }, _) => put(fields.clone(), *expires_at),
            (Self::Merge { fields, .. }, Some(record)) => {
                let mut merged = record.fields.clone();
                merge(&mut merged, fields);
                put(merged, record.expires_at)
            }
            (Self::Delete { .. }, Some(_)) => Applied::Deleted(found),
            _ => Applied::Unchanged(found),
        })
    }
}

/// Puts the changed fields over `into`; `null` removes one.
pub fn merge(into: &mut Fields, changed: &Fields) {
    for (name, value) in changed {
        if value.is_null() {
            into.remove(name);
        } else {
            into.insert(name.clone(), value.clone());
        }
    }
}

/// What a write does to its record.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// The record is now this.
    Put(Record),
    /// The record, of this version, is gone.
    Deleted(Version),
    /// Nothing changed; this version is there ([`Version::NONE`]: no record).
    Unchanged(Version),
}

impl Applied {
    /// What [`commit`](crate::RecordBackend::commit) answers for the write.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Put(record) => record.version,
            Self::Deleted(version) | Self::Unchanged(version) => *version,
        }
    }
}

/// What a batch about one record does to it: see [`Batch::apply_to`].
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedBatch {
    /// What [`commit`](crate::RecordBackend::commit) answers.
    pub versions: Vec<Version>,
    /// False: there is nothing to be written.
    pub changed: bool,
    /// What is there afterwards.
    pub record: Option<Record>,
}

/// How far an atomic batch reaches. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Atomicity {
    /// Writes to one record.
    Record,
    /// Writes to one partition of one table.
    Partition,
    /// Writes to one table.
    Table,
    /// Everything in the store, messages included where [`enqueue`](crate::RecordCapabilities::enqueue) is declared.
    Store,
}

/// Writes that take effect together or not at all.
///
/// ```
/// use storage_core::{Batch, Expect, fields};
/// use serde_json::json;
/// let accounts = "accounts".parse()?;
/// let batch = Batch::new()
///     .put(&accounts, "alice", fields(json!({"cents": 50})), Expect::Absent)
///     .delete(&accounts, "bob", Expect::Present);
/// assert_eq!(batch.len(), 2);
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The writes, in order.
    pub writes: Vec<Write>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self { writes: Vec::new() }
    }

    /// Adds a write.
    #[must_use]
    pub fn with(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    /// Adds a [`Write::Put`] that does not expire.
    #[must_use]
    pub fn put(self, table: &TableName, key: impl Into<Key>, fields: Fields, expect: Expect) -> Self {
        self.with(Write::Put { table: table.clone(), key: key.into(), fields, expect, expires_at: None })
    }

    /// Adds a [`Write::Merge`].
    #[must_use]
    pub fn merge(self, table: &TableName, key: impl Into<Key>, fields: Fields, expect: Expect) -> Self {
        self.with(Write::Merge { table: table.clone(), key: key.into(), fields, expect })
    }

    /// Adds a [`Write::Delete`].
    #[must_use]
    pub fn delete(self, table: &TableName, key: impl Into<Key>, expect: Expect) -> Self {
        self.with(Write::Delete { table: table.clone(), key: key.into(), expect })
    }

    /// Adds a [`Write::Check`].
    #[must_use]
    pub fn check(self, table: &TableName, key: impl Into<Key>, expect: Expect) -> Self {
        self.with(Write::Check { table: table.clone(), key: key.into(), expect })
    }

    /// Adds a [`Write::Enqueue`].
    #[must_use]
    pub fn enqueue(self, queue: &QueueName, message: NewMessage) -> Self {
        self.with(Write::Enqueue { queue: queue.clone(), message })
    }

    /// How many writes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// True for a batch without writes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How far the batch reaches: the least atomicity that a backend needs to take it.
    #[must_use]
    pub fn reach(&self) -> Atomicity {
        let mut targets = self.writes.iter().map(Write::target);
        let Some(first) = targets.next() else { return Atomicity::Record };
        targets.fold(Atomicity::Record, |reach, target| {
            reach.max(match (first, target) {
                (Some((table_a, a)), Some((table_b, b))) if table_a == table_b => {
                    if a == b {
                        Atomicity::Record
                    } else if a.partition.is_some() && a.partition == b.partition {
                        Atomicity::Partition
                    } else {
                        Atomicity::Table
                    }
                }
                _ => Atomicity::Store,
            })
        })
    }

    /// The one record that all writes are about, for backends that are atomic within a record. `None`: there are no writes.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where they are about several, or send messages.
    pub fn one_record(&self) -> Result<Option<(&TableName, &Key)>> {
        let mut targets = self.writes.iter().map(Write::target);
        let Some(first) = targets.next() else { return Ok(None) };
        match first {
            Some(target) if targets.all(|other| other == first) => Ok(Some(target)),
            _ => Err(Error::unsupported("a batch on this backend holds writes of one record alone, and no messages")),
        }
    }

    /// What the writes, all about one record, make of it.
    ///
    /// # Errors
    /// What [`Write::apply`] says of the first that can't be done, with its index.
    pub fn apply_to(&self, mut record: Option<Record>, now: DateTime<Utc>) -> Result<AppliedBatch> {
        let (mut versions, mut changed) = (Vec::with_capacity(self.len()), false);
        for (index, write) in self.writes.iter().enumerate() {
            let applied = write.apply(record.as_ref(), now).map_err(|error| error.with_failed_write(index))?;
            versions.push(applied.version());
            match applied {
                Applied::Put(after) => record = Some(after),
                Applied::Deleted(_) => record = None,
                Applied::Unchanged(_) => continue,
            }
            changed = true;
        }
        Ok(AppliedBatch { versions, changed, record })
    }

    /// True where a message is sent.
    #[must_use]
    pub fn enqueues(&self) -> bool {
        self.writes.iter().any(|w| matches!(w, Write::Enqueue { .. }))
    }
}

impl From<Vec<Write>> for Batch {
    fn from(writes: Vec<Write>) -> Self {
        Self { writes }
    }
}

impl FromIterator<Write> for Batch {
    fn from_iter<I: IntoIterator<Item = Write>>(writes: I) -> Self {
        Self { writes: writes.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fields;

    #[test]
    fn reach_is_the_least_that_covers_all_writes() {
        let (a, b): (TableName, TableName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let reach = |batch: Batch| batch.reach();
        let any = Expect::Anything;
        assert_eq!(reach(Batch::new().delete(&a, 1, any).delete(&a, 1, any)), Atomicity::Record);
        assert_eq!(reach(Batch::new().delete(&a, ("p", 1), any).delete(&a, ("p", 2), any)), Atomicity::Partition);
        assert_eq!(reach(Batch::new().delete(&a, ("p", 1), any).delete(&a, ("q", 2), any)), Atomicity::Table);
        assert_eq!(reach(Batch::new().delete(&a, 1, any).delete(&a, 2, any)), Atomicity::Table);
        assert_eq!(reach(Batch::new().delete(&a, 1, any).delete(&b, 1, any)), Atomicity::Store);
        let queue = "q".parse().unwrap();
        assert_eq!(reach(Batch::new().enqueue(&queue, NewMessage::new("x")).delete(&a, 1, any)), Atomicity::Store);
    }

    #[test]
    fn a_batch_about_one_record_applies_in_order() {
        let (a, now, any) = ("a".parse::<TableName>().unwrap(), Utc::now(), Expect::Anything);
        let batch = Batch::new().put(&a, 1, fields(json!({"n": 1})), Expect::Absent).merge(&a, 1, fields(json!({"m": 2})), any);
        assert_eq!(batch.one_record().unwrap(), Some((&a, &1.into())));
        let applied = batch.apply_to(None, now).unwrap();
        assert_eq!((applied.versions, applied.changed), (vec![Version(1), Version(2)], true));
        let record = applied.record.unwrap();
        assert_eq!(record.fields, fields(json!({"n": 1, "m": 2})));
        let error = batch.clone().check(&a, 1, Expect::Absent).apply_to(None, now).unwrap_err();
        assert_eq!((error.kind(), error.failed_write()), (crate::ErrorKind::AlreadyExists, Some(2)));
        let gone = Batch::new().delete(&a, 1, any).apply_to(Some(record.clone()), now).unwrap();
        assert_eq!((gone.versions, gone.changed, gone.record), (vec![Version(2)], true, None));
        let checked = Batch::new().check(&a, 1, Expect::Present).apply_to(Some(record.clone()), now).unwrap();
        assert_eq!((checked.changed, checked.record), (false, Some(record)));
        assert_eq!(Batch::new().one_record().unwrap(), None);
        let queue = "q".parse().unwrap();
        for several in [batch.clone().delete(&a, 2, any), batch.enqueue(&queue, NewMessage::new("x"))] {
            assert_eq!(several.one_record().unwrap_err().kind(), crate::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn writes_apply_as_documented() {
        let now = Utc::now();
        let table: TableName = "t".parse().unwrap();
        let record = Record {
            key: 1.into(),
            version: Version(3),
            updated_at: now,
            expires_at: None,
            fields: fields(json!({"a": 1, "b": 2})),
        };
        let merge = Write::Merge {
            table: table.clone(),
            key: 1.into(),
            fields: fields(json!({"a": null, "c": 3})),
            expect: Expect::Anything,
        };
        let Applied::Put(merged) = merge.apply(Some(&record), now).unwrap() else { panic!("a merge puts") };
        assert_eq!((merged.version, merged.fields), (Version(4), fields(json!({"b": 2, "c": 3}))));
        assert_eq!(merge.apply(None, now).unwrap_err().kind(), crate::ErrorKind::NotFound);
        let expired = Record { expires_at: Some(now), ..record };
        let put = Write::Put { table, key: 1.into(), fields: Fields::new(), expect: Expect::Absent, expires_at: None };
        assert_eq!(put.apply(Some(&expired), now).unwrap().version(), Version::FIRST);
    }
}
