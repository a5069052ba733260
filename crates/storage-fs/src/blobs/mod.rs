//! Blobs as files.
//!
//! ```text
//! blobs/<path>                          the user's files, and nothing else (see [`path`])
//! _storage/attributes/<xx>/<hash>.json  what is kept beside a blob's bytes
//! _storage/uploads/<id>                 blobs that are being written
//! ```

mod attributes;
mod list;
mod path;
mod write;

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead, ByteRange, ETag,
    Engine, Error, GetOptions, ListOptions, OpenFlag, PutMode, PutOptions, Result, Secret,
};

use self::attributes::Stamp;
use self::list::Walk;
use self::write::Target;
use crate::base::{Base, CONTROL};
use crate::cached::Found;
use crate::file::{self, at, create_folders};
use crate::lock::{Held, LockFile, is_abandoned};
use crate::store::{Core, blocking};

const UPLOADS: &str = "_storage/uploads";
/// Where blobs and what belongs to them are.
pub(crate) const FOLDERS: [&str; 3] = [path::BLOBS, path::LONG, attributes::ATTRIBUTES];
/// A file that nobody works on and that has not been written for so long was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(60);
/// So many bytes are read as the blob is opened: a second hop to a thread that may block would cost more.
const SMALL: u64 = 64 << 10;
/// How often a blob is opened anew where it was replaced between the looks at its bytes and at its attributes.
const ATTEMPTS: usize = 100;

/// The lock under which blobs change their places.
pub(crate) fn lock(base: &Base) -> Result<Held> {
    LockFile::new(&base.root.join(CONTROL), "blobs.lock").exclusive()
}

fn uploads(base: &Base) -> Result<PathBuf> {
    let folder = base.path(UPLOADS);
    create_folders(&folder, false)?;
    Ok(folder)
}

/// Removes what writers that died have left.
pub(crate) fn clean_up(base: &Base) -> Result<()> {
    let folder = base.path(UPLOADS);
    for name in file::names(&folder)? {
        let path = folder.join(name);
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        let old = found.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_BEHIND));
        if old && found.is_dir() {
            file::remove_tree(&path)?;
        } else if old && File::open(&path).is_ok_and(|file| is_abandoned(&file)) {
            file::remove(&path)?;
        }
    }
    Ok(())
}

/// The blobs of an [`FsStore`](crate::FsStore).
#[derive(Debug)]
pub struct FsBlobs {
    core: Arc<Core>,
    open: Arc<OpenFlag>,
    capabilities: BlobCapabilities,
}

fn not_there() -> Error {
    Error::not_found("there is no such blob")
}

/// A blob's file, open, with what is known of it: all of one state.
fn open(base: &Base, path: &BlobPath) -> Result<(File, BlobMeta)> {
    for _ in 0..ATTEMPTS {
        let place = path::find(base, path)?.ok_or_else(not_there)?;
        let Some(file) = file::if_there(open_file(&place)).map_err(at(&place))? else { continue };
        let found = file.metadata().map_err(at(&place))?;
        let stamp = Stamp::of(&found);
        if let Some(attributes) = attributes::of(base, path, &stamp)? {
            return Ok((file, attributes::meta(path, &found, attributes)));
        }
        // None known: as long as this is still the blob, it has none.
        let now = file::if_there(std::fs::symlink_metadata(&place)).map_err(at(&place))?;
        if now.is_some_and(|now| Stamp::of(&now) == stamp) {
            return Ok((file, attributes::meta(path, &found, Default::default())));
        }
    }
    Err(Error::unavailable("the blob is replaced faster than it can be opened"))
}

fn open_file(place: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(target_os = "linux")]
    {
        // Not through a link that somebody has just put there.
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    options.open(place)
}

/// A small blob that is in memory already, without ever waiting for the disk. `None`: only a read that may block can tell.
fn read_cached(base: &Base, path: &BlobPath, options: &GetOptions) -> Option<BlobRead> {
    let place = path::plain_relative(path);
    let open = || match base.open_cached(&place) {
        Found::There(file) => file.metadata().ok().filter(Metadata::is_file).map(|found| (file, found)),
        Found::Missing | Found::Unknown => None,
    };
    let (file, found) = open()?;
    let stamp = Stamp::of(&found);
    let attributes = match attributes::of_cached(base, path, &stamp)? {
        Some(attributes) => attributes,
        // None known: as long as this is still the blob, it has none.
        None => open().filter(|(_, now)| Stamp::of(now) == stamp).map(|_| Default::default())?,
    };
    let meta = attributes::meta(path, &found, attributes);
    let range = options.range.as_ref().unwrap_or(&ByteRange::From(0)).resolve(meta.size).ok()?;
    if options.if_match.is_some() && options.if_match != meta.etag {
        return None;
    }
    let len = usize::try_from(range.end - range.start).ok().filter(|len| *len <= crate::cached::MAX)?;
    let bytes = base.read_cached_at(&file, range.start, len)?;
    Some(BlobRead { meta, range, content: in_memory(bytes) })
}

fn in_memory(bytes: Vec<u8>) -> BlobContent {
    BlobContent::Stream(futures::stream::once(std::future::ready(Ok(bytes.into()))).boxed())
}

fn read(base: &Base, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
    let (mut file, meta) = open(base, path)?;
    if let Some(expected) = &options.if_match
        && meta.etag.as_ref() != Some(expected)
    {
        let stamp = file.metadata().map(|found| Stamp::of(&found)).map_err(Error::from)?;
        write::check_mark(expected, Some(&stamp))?;
    }
    let range = options.range.as_ref().unwrap_or(&ByteRange::From(0)).resolve(meta.size)?;
    file.seek(SeekFrom::Start(range.start))?;
    let len = range.end - range.start;
    if len > SMALL {
        return Ok(BlobRead { meta, range, content: BlobContent::File(file) });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
    file.take(len).read_to_end(&mut bytes)?;
    Ok(BlobRead { meta, range, content: in_memory(bytes) })
}

impl FsBlobs {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let capabilities = BlobCapabilities {
            create: true,
            conditional: true,
            attributes: true,
            signed_url: false,
            max_blob_bytes: i64::MAX.unsigned_abs(),
            durable: core.base.durable,
        };
        Self { core, open: Arc::default(), capabilities }
    }

    async fn blocking<T: Send + 'static>(&self, act: impl FnOnce(&Arc<Base>) -> Result<T> + Send + 'static) -> Result<T> {
        self.open.check()?;
        let base = Arc::clone(&self.core.base);
        blocking(move || act(&base)).await
    }

    fn target(&self, path: &BlobPath, options: &PutOptions) -> Target {
        let PutOptions { mode, attributes } = options.clone();
        Target { base: Arc::clone(&self.core.base), path: path.clone(), mode, attributes }
    }
}

#[async_trait]
impl BlobBackend for FsBlobs {
    fn info(&self) -> &BackendInfo {
        &self.core.base.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &self.capabilities
    }

    async fn create_container(&self) -> Result<bool> {
        self.blocking(|base| {
            let folder = base.path(path::BLOBS);
            let _held = lock(base)?;
            let new = !folder.is_dir();
            create_folders(&folder, base.durable).map(|()| new)
        })
        .await
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.open.check()?;
        write::put(self.target(path, options), body).await
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.open.check()?;
        if let Some(read) = read_cached(&self.core.base, path, options) {
            return Ok(read);
        }
        let (wanted, options) = (path.clone(), options.clone());
        self.blocking(move |base| read(base, &wanted, &options)).await
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        let wanted = path.clone();
        self.blocking(move |base| open(base, &wanted).map(|(_, meta)| meta)).await
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        let (wanted, mark) = (path.clone(), if_match.cloned());
        self.blocking(move |base| write::delete(base, &wanted, mark.as_ref())).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        let source = from.clone();
        let (file, meta) = self.blocking(move |base| open(base, &source)).await?;
        let options = PutOptions { mode: mode.clone(), attributes: meta.attributes };
        write::put_file(self.target(to, &options), file).await
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        let (base, open, options) = (Arc::clone(&self.core.base), Arc::clone(&self.open), options.clone());
        let pages = futures::stream::try_unfold(None::<Walk>, move |walk| {
            let (base, open, options) = (Arc::clone(&base), Arc::clone(&open), options.clone());
            async move {
                open.check()?;
                let next = blocking(move || {
                    let mut walk = match walk {
                        Some(walk) => walk,
                        None => Walk::new(base, &options)?,
                    };
                    let page = walk.page()?;
                    Ok((page, walk))
                });
                let (page, walk) = next.await?;
                Ok::<_, Error>((!page.is_empty()).then(|| (futures::stream::iter(page).map(Ok), Some(walk))))
            }
        });
        pages.try_flatten().boxed()
    }

    fn uri(&self, path: &BlobPath) -> String {
        let place = path::plain(&self.core.base, path);
        let mut uri = String::from("file://");
        for byte in place.display().to_string().bytes() {
            match byte {
                b'/' | b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(byte)),
                b'\\' if cfg!(windows) => uri.push('/'),
                byte => uri.push_str(&format!("%{byte:02X}")),
            }
        }
        uri
    }

    /// Files need no options.
    fn storage_options(&self, _engine: Engine) -> Result<BTreeMap<String, Secret>> {
        Ok(BTreeMap::new())
    }

    /// Not encoded: Polars decodes the address of a file that it reads, not of one that it writes, and Hadoop decodes none.
    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        let place = path::plain(&self.core.base, path).display().to_string();
        Ok(match engine {
            Engine::ObjectStore | Engine::DuckDb => place,
            Engine::Spark => format!("file://{place}"),
        })
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()?;
        self.core.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.open.close();
        Ok(())
    }
}
