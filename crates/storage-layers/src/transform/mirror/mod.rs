//! [`Mirror`]: the same blobs in several places.
//!
//! The first copy is the *primary*: it decides conditions, and its marks are the blobs' marks. A write goes to it first and is then brought to the others.
//! A read goes to the first copy that has the blob and can be reached; a listing shows what any copy has.
//!
//! - A write that reaches the primary and not [enough](Require) others is an error that names the copy. It has taken effect on the primary, where reads find it;
//!   [`repair`](Mirror::repair) brings it over. The same holds for a put that is dropped behind the primary's answer.
//! - A delete has to reach every copy, whatever is required: what one kept would come back. It begins with the others, so that one that fails half-way leaves the blob there to be read.
//! - A blob that was read from another copy has a mark that says so. It is good for conditional reads; a conditional write with it is a
//!   [`Conflict`](ErrorKind::Conflict), since the primary can't compare it.
//! - Writers of one blob within one mirror leave all copies with what the primary has. Writers in several processes may not: `repair` finds that.
//! - Signed URLs and storage options are the primary's: what is written by them is on the primary alone until `repair`.

mod list;
mod read;
mod repair;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, ETag, Engine, Error,
    ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result, Secret, SignedAccess,
};
use tokio::sync::{Mutex, MutexGuard};

pub use self::repair::{RepairFailure, RepairOptions, RepairReport};
use super::wrap;

/// How many copies there are at most.
const MAX_COPIES: usize = 8;
/// Writers of one blob take turns at the copies; so many can be at work at once.
const STRIPES: usize = 64;

/// How many copies a write must reach, the primary being one, to be good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Require {
    /// All.
    #[default]
    All,
    /// The primary alone: the others are brought up to date as far as they can be reached.
    Primary,
    /// So many.
    #[serde(untagged)]
    Copies(u8),
}

impl Require {
    fn count(self, copies: usize) -> usize {
        match self {
            Self::All => copies,
            Self::Primary => 1,
            Self::Copies(count) => usize::from(count),
        }
    }

    /// Checks that a mirror can have so many copies, and require so many of them.
    pub(super) fn check(self, copies: usize) -> Result<()> {
        if !(2..=MAX_COPIES).contains(&copies) {
            return Err(Error::config(format!("a mirror has 2 to {MAX_COPIES} copies, the primary being one, not {copies}")));
        }
        if !(1..=copies).contains(&self.count(copies)) {
            return Err(Error::config(format!("a mirror of {copies} copies can't require {self} of them")));
        }
        Ok(())
    }
}

impl fmt::Display for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Primary => f.write_str("primary"),
            Self::Copies(count) => write!(f, "{count}"),
        }
    }
}

/// The same blobs in several backends. See the [module](self).
#[derive(Clone, Debug)]
pub struct Mirror {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    /// The primary first.
    copies: Vec<Arc<dyn BlobBackend>>,
    require: Require,
    info: BackendInfo,
    capabilities: BlobCapabilities,
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Mirror {
    /// Mirrors `primary` to `others`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): no others or more than 7, two copies that are one place, or more required than there are.
    pub fn new(primary: Arc<dyn BlobBackend>, others: Vec<Arc<dyn BlobBackend>>, require: Require) -> Result<Self> {
        let copies: Vec<_> = std::iter::once(primary).chain(others).collect();
        require.check(copies.len())?;
        for (index, copy) in copies.iter().enumerate() {
            if copies[..index].iter().any(|other| other.info() == copy.info()) {
                return Err(Error::config(format!("two copies of a mirror are the same place, {}", copy.info())));
            }
        }
        let places: Vec<_> = copies.iter().map(|copy| copy.info().to_string()).collect();
        let info = BackendInfo::new("mirror", places.join(" | "));
        let capabilities = capabilities(&copies);
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Ok(Self { core: Arc::new(Core { copies, require, info, capabilities, stripes, hasher: RandomState::new() }) })
    }

    fn explain<'a>(&'a self, operation: &'static str, path: &'a BlobPath) -> impl FnOnce(Error) -> Error + 'a {
        wrap::explain(&self.core.info, operation, path)
    }
}

/// What the primary decides is the primary's; what all copies must keep is what all can.
fn capabilities(copies: &[Arc<dyn BlobBackend>]) -> BlobCapabilities {
    let all = || copies.iter().map(|copy| copy.capabilities());
    let mut declared = copies[0].capabilities().clone();
    declared.attributes = all().all(|copy| copy.attributes);
    declared.max_blob_bytes = all().map(|copy| copy.max_blob_bytes).min().unwrap_or_default();
    declared
}

impl Core {
    fn primary(&self) -> &Arc<dyn BlobBackend> {
        &self.copies[0]
    }

    /// The copies but the primary, by their number.
    fn others(&self) -> impl Iterator<Item = (usize, &Arc<dyn BlobBackend>)> {
        self.copies.iter().enumerate().skip(1)
    }

    /// The turn of whoever brings this blob to the copies.
    async fn turn(&self, path: &BlobPath) -> MutexGuard<'_, ()> {
        let stripe = usize::try_from(self.hasher.hash_one(path) % STRIPES as u64).unwrap_or_default();
        self.stripes[stripe].lock().await
    }
}

/// What a mark begins with that is not the primary's.
const FOREIGN: &str = "mirror-";

/// What copy `index` says of a blob, with a mark that says whose it is.
fn of_copy(index: usize, mut meta: BlobMeta) -> BlobMeta {
    if index > 0 {
        meta.etag = meta.etag.map(|ETag(mark)| ETag(format!("{FOREIGN}{index}:{mark}")));
    }
    meta
}

/// Whose mark it is, and the mark as that copy knows it.
fn owner(mark: &ETag) -> (usize, ETag) {
    let foreign = mark.0.strip_prefix(FOREIGN).and_then(|rest| rest.split_once(':'));
    let foreign = foreign.and_then(|(index, mark)| Some((index.parse::<usize>().ok()?, ETag(mark.to_owned()))));
    foreign.unwrap_or_else(|| (0, mark.clone()))
}

/// True where another copy may have what this one could not give.
fn is_elsewhere(error: &Error) -> bool {
    use ErrorKind as Kind;
    matches!(error.kind(), Kind::NotFound | Kind::Unavailable | Kind::Timeout | Kind::Throttled | Kind::Corrupt)
}

#[async_trait]
impl BlobBackend for Mirror {
    fn info(&self) -> &BackendInfo {
        &self.core.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &self.core.capabilities
    }

    async fn create_container(&self) -> Result<bool> {
        let mut created = false;
        for copy in &self.core.copies {
            created |= copy.create_container().await?;
        }
        Ok(created)
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.core.put(path, body, options).await.map_err(self.explain("blobs.put", path))
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.core.get(path, options).await.map_err(self.explain("blobs.get", path))
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.core.head(path).await.map_err(self.explain("blobs.head", path))
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.core.delete(path, if_match).await.map_err(self.explain("blobs.delete", path))
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        self.core.copy(from, to, mode).await.map_err(self.explain("blobs.copy", to))
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        list::merged(&self.core.copies, options)
    }

    fn uri(&self, path: &BlobPath) -> String {
        self.core.primary().uri(path)
    }

    async fn signed_url(&self, path: &BlobPath, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        self.core.primary().signed_url(path, access, expires_in).await
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        self.core.primary().storage_options(engine)
    }

    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        self.core.primary().engine_uri(path, engine)
    }

    async fn ping(&self) -> Result<()> {
        let mut failed = None;
        let mut reached = 0;
        for (index, copy) in self.core.copies.iter().enumerate() {
            match copy.ping().await {
                Ok(()) => reached += 1,
                Err(error) if index == 0 => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if reached < self.core.require.count(self.core.copies.len()) => Err(error),
            _ => Ok(()),
        }
    }

    async fn close(&self) -> Result<()> {
        let mut outcome = Ok(());
        for copy in &self.core.copies {
            outcome = outcome.and(copy.close().await);
        }
        outcome
    }
}
