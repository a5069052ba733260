//! What a backend says of itself.
//!
//! A capability that is not declared is refused with [`Unsupported`](crate::ErrorKind::Unsupported), never ignored. The conformance suites
//! hold every declaration against what the backend does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::batch::Atomicity;
use crate::{Error, Result};

/// Which backend this is, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BackendInfo {
    /// The driver's name: `sqlite`, `fs`, …
    pub driver: String,
    /// Where the data is: an absolute path, a URL without credentials, or a name that is unique in this process. Two backends
    /// of one driver and one location are the same store.
    pub location: String,
}

impl BackendInfo {
    /// Driver and location.
    pub fn new(driver: impl Into<String>, location: impl Into<String>) -> Self {
        Self { driver: driver.into(), location: location.into() }
    }
}

impl fmt::Display for BackendInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.driver, self.location)
    }
}

/// What a [`RecordBackend`](crate::RecordBackend) can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCapabilities {
    /// How far one batch reaches.
    pub atomic: Atomicity,
    /// Batches may send messages to queues of the same store.
    pub enqueue: bool,
    /// Records may expire.
    pub expiry: bool,
    /// Earlier versions may be kept.
    pub history: bool,
    /// Unique columns and indexes are enforced.
    pub unique: bool,
    /// [`alter_table`](crate::RecordBackend::alter_table) works.
    pub alter: bool,
    /// [`backup`](crate::RecordBackend::backup) works.
    pub backup: bool,
    /// How many writes one batch may hold.
    pub max_batch: usize,
    /// How many bytes one record's fields may have as JSON.
    pub max_record_bytes: usize,
    /// Filters and orders run inside the backend: a selective query does not read the whole table.
    pub pushdown: bool,
    /// What was written is there after a crash or power cut.
    pub durable: bool,
}

/// What a [`QueueBackend`](crate::QueueBackend) can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCapabilities {
    /// Messages may be sent with a delay.
    pub delay: bool,
    /// Messages may have a time to live.
    pub ttl: bool,
    /// Higher priorities are received first.
    pub priority: bool,
    /// Dedup ids work.
    pub dedup: bool,
    /// Within one priority, a single consumer receives in the order of sending.
    pub fifo: bool,
    /// [`peek`](crate::QueueBackend::peek) works and changes nothing.
    pub peek: bool,
    /// [`update`](crate::QueueBackend::update) can change body and attributes, not the visibility alone.
    pub update_body: bool,
    /// The delivery cap holds and dead letters are kept.
    pub dead_letter: bool,
    /// A call sends all its messages or none, also where it fails half-way. Where not, one that fails with
    /// [`Timeout`](crate::ErrorKind::Timeout), [`Unavailable`](crate::ErrorKind::Unavailable) or [`Throttled`](crate::ErrorKind::Throttled) may have sent
    /// some of them; what is wrong with a message keeps all of them back everywhere.
    pub atomic_send: bool,
    /// A receipt works in another process than the one that received.
    pub receipts_across_processes: bool,
    /// A waiting receive is woken when a message arrives, rather than looking again and again.
    pub wakes: bool,
    /// How many bytes a body may have.
    pub max_body_bytes: usize,
    /// A sent message is there after a crash or power cut.
    pub durable: bool,
}

/// What a [`BlobBackend`](crate::BlobBackend) can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobCapabilities {
    /// [`PutMode::Create`](crate::PutMode::Create) holds.
    pub create: bool,
    /// [`PutMode::Update`](crate::PutMode::Update) and `if_match` hold.
    pub conditional: bool,
    /// Content type, metadata and the other attributes are kept.
    pub attributes: bool,
    /// [`signed_url`](crate::BlobBackend::signed_url) works.
    pub signed_url: bool,
    /// How many bytes a blob may have.
    pub max_blob_bytes: u64,
    /// A written blob is there after a crash or power cut.
    pub durable: bool,
}

/// `Unsupported`, unless `declared`.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported), naming what the backend lacks.
pub fn require(declared: bool, info: &BackendInfo, what: &str) -> Result<()> {
    if declared {
        return Ok(());
    }
    Err(Error::unsupported(format!("this backend does not offer {what}")).with_backend(info))
}
