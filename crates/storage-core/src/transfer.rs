//! Files and folders, up and down.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};

use crate::{
    BlobBody, BlobContent, BlobMeta, BlobPath, BlobStore, ByteRange, Error, ErrorKind, GetOptions, PutOptions, Result, ResultExt,
};

/// How many bytes of a large blob are fetched in one request.
const PART: u64 = 8 << 20;
/// How many local bytes are moved between two progress reports.
const STEP: u64 = 16 << 20;

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes moved so far, those of an earlier, broken run included.
    pub bytes: u64,
    /// Bytes in all, as far as known.
    pub total_bytes: u64,
    /// Files finished.
    pub files: u64,
    /// Files in all, as far as known.
    pub total_files: u64,
}

/// Is told how far a transfer has come, from any thread, and should return at once.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// How files are transferred.
#[derive(Clone)]
pub struct TransferOptions {
    /// How many files, or parts of one file, are under way at once. The memory used is bounded by this times 8 MiB.
    pub parallel: usize,
    /// True: a folder's file that is at its target already, with the same size and not written since, is left out. Downloaded files bear the time of
    /// their blob.
    pub skip_unchanged: bool,
    /// Is told how far it has come.
    pub progress: Option<ProgressFn>,
    /// For uploads: mode and attributes.
    pub put: PutOptions,
}

impl Default for TransferOptions {
    /// 4 at once, everything, no reports.
    fn default() -> Self {
        Self { parallel: 4, skip_unchanged: false, progress: None, put: PutOptions::default() }
    }
}

impl fmt::Debug for TransferOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferOptions")
            .field("parallel", &self.parallel)
            .field("skip_unchanged", &self.skip_unchanged)
            .field("progress", &self.progress.is_some())
            .field("put", &self.put)
            .finish()
    }
}

/// What a folder's transfer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferReport {
    /// Files moved.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files left out, since they were there already.
    pub skipped: u64,
}

/// Counts what several tasks move, and reports it.
#[derive(Clone)]
struct Meter {
    counts: Arc<[AtomicU64; 4]>,
    report: Option<ProgressFn>,
}

impl Meter {
    fn new(report: Option<ProgressFn>) -> Self {
        Self { counts: Arc::default(), report }
    }

    fn add(&self, by: Progress) {
        let Some(report) = &self.report else { return };
        let [bytes, total_bytes, files, total_files] = &*self.counts;
        let add = |count: &AtomicU64, n: u64| count.fetch_add(n, Ordering::Relaxed) + n;
        report(Progress {
            bytes: add(bytes, by.bytes),
            total_bytes: add(total_bytes, by.total_bytes),
            files: add(files, by.files),
            total_files: add(total_files, by.total_files),
        });
    }

    fn expect(&self, files: u64, bytes: u64) {
        self.add(Progress { total_files: files, total_bytes: bytes, ..Progress::default() });
    }

    fn moved(&self, bytes: u64) {
        self.add(Progress { bytes, ..Progress::default() });
    }

    fn finished(&self) {
        self.add(Progress { files: 1, ..Progress::default() });
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("a thread that moves files ended").with_source(e))?
}

fn file_subject(path: &Path) -> String {
    format!("file {}", path.display())
}

impl BlobStore {
    /// Writes a local file as a blob: wholly or not at all.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): no such file; see [`put_with`](Self::put_with).
    pub async fn upload_file(&self, local: &Path, path: &BlobPath, options: &TransferOptions) -> Result<BlobMeta> {
        let meter = Meter::new(options.progress.clone());
        let size = blocking({
            let local = local.to_owned();
            move || file_size(&local)
        })
        .await
        .context("blobs.upload", || file_subject(local))?;
        meter.expect(1, size);
        self.upload_metered(local, path, options, &meter).await
    }

    async fn upload_metered(&self, local: &Path, path: &BlobPath, options: &TransferOptions, meter: &Meter) -> Result<BlobMeta> {
        let owned = local.to_owned();
        let opened = blocking(move || {
            file_size(&owned)?;
            Ok(File::open(&owned)?)
        });
        let file = opened.await.context("blobs.upload", || file_subject(local))?;
        let body = match &meter.report {
            None => BlobBody::File(file),
            Some(_) => {
                let meter = meter.clone();
                let stream = crate::blob::file_stream(file, u64::MAX);
                BlobBody::Stream { stream: stream.inspect_ok(move |piece| meter.moved(piece.len() as u64)).boxed(), size: None }
            }
        };
        let meta = self.put_with(path, body, &options.put).await?;
        meter.finished();
        Ok(meta)
    }

    /// Reads a blob into a local file, which appears when it is whole. Broken off and called again, it goes on where it was, if the blob is still the same.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): no such blob; [`Conflict`](ErrorKind::Conflict): it was written again while it was read.
    pub async fn download_file(&self, path: &BlobPath, local: &Path, options: &TransferOptions) -> Result<BlobMeta> {
        let meta = self.head(path).await?;
        let meter = Meter::new(options.progress.clone());
        meter.expect(1, meta.size);
        self.download_metered(meta, path, local, options.parallel, &meter).await
    }

    async fn download_metered(
        &self,
        meta: BlobMeta,
        path: &BlobPath,
        local: &Path,
        parallel: usize,
        meter: &Meter,
    ) -> Result<BlobMeta> {
        let part = part_path(local, &meta);
        let opened = blocking({
            let (part, resumable, size) = (part.clone(), meta.etag.is_some(), meta.size);
            move || open_part(&part, resumable, size)
        });
        let (file, have) = opened.await.context("blobs.download", || file_subject(local))?;
        meter.moved(have);
        self.fetch_rest(&meta, path, file, have, parallel, meter).await.context("blobs.download", || format!("blob `{path}`"))?;
        let renamed = blocking({
            let local = local.to_owned();
            move || {
                std::fs::rename(&part, &local)?;
                sync_folder_of(&local)
            }
        });
        renamed.await.context("blobs.download", || file_subject(local))?;
        meter.finished();
        Ok(meta)
    }

    /// Appends what is missing to the part file and makes it durable.
    async fn fetch_rest(
        &self,
        meta: &BlobMeta,
        path: &BlobPath,
        file: File,
        have: u64,
        parallel: usize,
        meter: &Meter,
    ) -> Result<()> {
        let pinned = |range: ByteRange| {
            GetOptions::default().range(range).if_match(meta.etag.clone().filter(|_| self.capabilities().conditional))
        };
        let mut file = file;
        if have < meta.size {
            let first_end = (have + PART).min(meta.size);
            let mut first = self.get_with(path, &pinned(ByteRange::From(have))).await?;
            if let BlobContent::File(source) = first.content {
                file = move_local(source, file, meta.size - have, meter.clone()).await?;
            } else if meta.size - have <= PART {
                file = append(file, first.bytes().await?, meter).await?;
            } else {
                // The first request was only to see what kind of answer comes: the parts are fetched side by side.
                first.content = BlobContent::Stream(futures::stream::empty().boxed());
                drop(first);
                let starts = (0..).map(|i| have + i * PART).take_while(|start| *start < meta.size);
                debug_assert!(first_end > have);
                let parts = futures::stream::iter(starts).map(|start| {
                    let range = ByteRange::Bounded(start..(start + PART).min(meta.size));
                    let options = pinned(range);
                    async move { self.get_with(path, &options).await?.bytes().await }
                });
                let mut parts = parts.buffered(parallel.max(1));
                while let Some(part) = parts.next().await {
                    file = append(file, part?, meter).await?;
                }
            }
        }
        let modified_at = meta.modified_at;
        blocking(move || {
            if file.metadata()?.len() != file.stream_position()? {
                return Err(Error::internal("the part file is not as long as what was written to it"));
            }
            // The blob's own time, so that `skip_unchanged` can tell a later write of it; a file system that can't hold it keeps its own.
            let _ = file.set_modified(modified_at.into());
            Ok(file.sync_all()?)
        })
        .await
    }

    /// Uploads every file below `local`, under the same relative paths below `prefix`. Links are followed; what is neither file nor folder is left out.
    ///
    /// # Errors
    /// Those of the first file that fails; the others under way are broken off. [`InvalidInput`](ErrorKind::InvalidInput) for a file name that is not UTF-8 or
    /// can't be part of a blob path.
    pub async fn upload_dir(&self, local: &Path, prefix: Option<&BlobPath>, options: &TransferOptions) -> Result<TransferReport> {
        let owned = local.to_owned();
        let files =
            blocking(move || files_below(&owned)).await.context("blobs.upload", || format!("folder {}", local.display()))?;
        let meter = Meter::new(options.progress.clone());
        meter.expect(files.len() as u64, files.iter().map(|f| f.size).sum());
        let uploads = futures::stream::iter(files.into_iter().map(Ok)).map_ok(|file| {
            let meter = &meter;
            async move {
                let relative = BlobPath::new(&file.relative)?;
                let path = prefix.map_or_else(|| Ok(relative.clone()), |prefix| prefix.join(&relative))?;
                if options.skip_unchanged && self.is_uploaded(&path, &file).await? {
                    meter.moved(file.size);
                    meter.finished();
                    return Ok(TransferReport { skipped: 1, ..TransferReport::default() });
                }
                self.upload_metered(&file.path, &path, options, meter).await?;
                Ok::<_, Error>(TransferReport { files: 1, bytes: file.size, skipped: 0 })
            }
        });
        uploads.try_buffer_unordered(options.parallel.max(1)).try_fold(TransferReport::default(), sum).await
    }

    async fn is_uploaded(&self, path: &BlobPath, file: &LocalFile) -> Result<bool> {
        match self.head(path).await {
            Ok(meta) => Ok(meta.size == file.size && file.modified_at.is_some_and(|at| meta.modified_at >= at)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Downloads every blob below `prefix` to the same relative path below `local`, folders created as needed.
    ///
    /// # Errors
    /// Those of the first blob that fails; the others under way are broken off.
    pub async fn download_dir(
        &self,
        prefix: Option<&BlobPath>,
        local: &Path,
        options: &TransferOptions,
    ) -> Result<TransferReport> {
        let meter = Meter::new(options.progress.clone());
        let downloads = self.list_all(prefix.cloned()).map_ok(|meta| {
            meter.expect(1, meta.size);
            let meter = &meter;
            async move {
                // A blob path has no empty, `.` or `..` segment, so the target can't leave the folder.
                let relative = prefix.and_then(|prefix| meta.path.below(prefix)).unwrap_or_else(|| meta.path.clone());
                let target = relative.segments().fold(local.to_owned(), |folder, segment| folder.join(segment));
                if options.skip_unchanged && is_downloaded(&target, &meta).await? {
                    meter.moved(meta.size);
                    meter.finished();
                    return Ok(TransferReport { skipped: 1, ..TransferReport::default() });
                }
                if let Some(folder) = target.parent() {
                    tokio::fs::create_dir_all(folder)
                        .await
                        .context("blobs.download", || format!("folder {}", folder.display()))?;
                }
                let path = meta.path.clone();
                // Listings carry no attributes and may carry no mark: the download pins the state that it finds.
                let meta = if meta.etag.is_some() { meta } else { self.head(&path).await? };
                let size = meta.size;
                self.download_metered(meta, &path, &target, options.parallel, meter).await?;
                Ok::<_, Error>(TransferReport { files: 1, bytes: size, skipped: 0 })
            }
        });
        downloads.try_buffer_unordered(options.parallel.max(1)).try_fold(TransferReport::default(), sum).await
    }
}

async fn sum(a: TransferReport, b: TransferReport) -> Result<TransferReport> {
    Ok(TransferReport { files: a.files + b.files, bytes: a.bytes + b.bytes, skipped: a.skipped + b.skipped })
}

async fn is_downloaded(target: &Path, meta: &BlobMeta) -> Result<bool> {
    match tokio::fs::metadata(target).await {
        Ok(found) => {
            let modified = found.modified().ok().map(chrono::DateTime::<chrono::Utc>::from);
            Ok(found.is_file() && found.len() == meta.size && modified.is_some_and(|at| at >= meta.modified_at))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::from(error)).context("blobs.download", || file_subject(target)),
    }
}

/// Beside the target, so that the rename stays within one file system; named after the blob's mark, so that a part of another state is not gone on with.
fn part_path(local: &Path, meta: &BlobMeta) -> PathBuf {
    let mark = meta.etag.as_ref().map_or("", |etag| etag.0.as_str());
    let hash = mark.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let name =
        local.file_name().map_or_else(Default::default, |name| name.to_string_lossy().chars().take(60).collect::<String>());
    local.with_file_name(format!(".{name}.{hash:016x}.part"))
}

fn open_part(part: &Path, resumable: bool, size: u64) -> Result<(File, u64)> {
    let mut file = File::options().create(true).read(true).write(true).truncate(!resumable).open(part)?;
    let have = file.metadata()?.len();
    let have = if have > size {
        file.set_len(0)?;
        0
    } else {
        have
    };
    file.seek(SeekFrom::Start(have))?;
    Ok((file, have))
}

async fn append(mut file: File, bytes: Bytes, meter: &Meter) -> Result<File> {
    let len = bytes.len() as u64;
    let file = blocking(move || {
        file.write_all(&bytes)?;
        Ok(file)
    })
    .await?;
    meter.moved(len);
    Ok(file)
}

/// Moves bytes between two local files at the disk's speed.
async fn move_local(source: File, mut target: File, len: u64, meter: Meter) -> Result<File> {
    blocking(move || {
        let mut left = len;
        while left > 0 {
            // On Linux `io::copy` between files is `copy_file_range`.
            let moved = std::io::copy(&mut (&source).take(left.min(STEP)), &mut target)?;
            if moved == 0 {
                return Err(Error::unavailable(format!("the blob ended {left} bytes early")));
            }
            left -= moved;
            meter.moved(moved);
        }
        Ok(target)
    })
    .await
}

/// Makes a rename durable. Where a folder can't be opened as a file, the system has no such notion.
fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

fn file_size(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(Error::invalid("it is not a plain file"));
    }
    Ok(metadata.len())
}

struct LocalFile {
    path: PathBuf,
    /// `/`-separated.
    relative: String,
    size: u64,
    modified_at: Option<chrono::DateTime<chrono::Utc>>,
}

/// How deep folders may be nested; a link that leads back up ends here.
const MAX_FOLDERS: usize = 64;

fn files_below(root: &Path) -> Result<Vec<LocalFile>> {
    let mut files = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        if depth > MAX_FOLDERS {
            return Err(Error::invalid(format!(
                "folder {} lies more than {MAX_FOLDERS} deep: does a link lead back up?",
                folder.display()
            )));
        }
        let entries = std::fs::read_dir(&folder).context("blobs.upload", || format!("folder {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name else { return Err(Error::invalid(format!("the file name {} is not UTF-8", path.display()))) };
            let relative = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let metadata = std::fs::metadata(&path).context("blobs.upload", || file_subject(&path))?;
            if metadata.is_dir() {
                folders.push((path, relative, depth + 1));
            } else if metadata.is_file() {
                let modified_at = metadata.modified().ok().map(Into::into);
                files.push(LocalFile { path, relative, size: metadata.len(), modified_at });
            }
        }
    }
    files.sort_unstable_by(|a, b| a.relative.cmp(&b.relative));
    Ok(files)
}
