//! A database: its threads, and who may use them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use storage_core::{BackendInfo, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::catalog::SharedCatalog;
use crate::config::{Settings, Synchronous};
use crate::connection::{open_writer, patient};
use crate::jobs::{Jobs, Taken, closed};
use crate::layout;
use crate::news::News;
use crate::reader::{Pool, Snapshot, snapshot};
use crate::session::Session;
use crate::writer::{Job, Size, Task, Writer, is_busy, no_thread, work};

/// How large, in KiB, the writes may be together that wait for the writer. Further ones wait with their callers.
const ROOM_KIB: u32 = 64 * 1_024;
/// How many reads may wait for a thread.
const ROOM_READS: usize = 4_096;

/// How many callers at most read on their own threads at once.
const MAX_HERE: usize = 32;

type ReadJob = Box<dyn FnOnce(&Shared) + Send>;

/// What callers and threads share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) catalog: SharedCatalog,
    /// Until the database is closed.
    writer: Mutex<Option<Writer>>,
    pub(crate) writes: Jobs<Box<dyn Job>>,
    reads: Jobs<ReadJob>,
    pub(crate) pool: Pool,
    pub(crate) news: News,
    /// How many transactions the writer has committed.
    pub(crate) commits: AtomicU64,
}

/// An open database. Handles on one file share one.
pub(crate) struct Database {
    pub(crate) shared: Arc<Shared>,
    pub(crate) info: BackendInfo,
    write_room: Arc<Semaphore>,
    read_room: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How many handles are open. At zero the database closes, for good.
    users: Mutex<Option<usize>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What makes two files the same, and two ways of opening one compatible.
type Identity = (u64, u64, Synchronous);

fn registry() -> MutexGuard<'static, HashMap<Identity, Weak<Database>>> {
    static OPEN: OnceLock<Mutex<HashMap<Identity, Weak<Database>>>> = OnceLock::new();
    OPEN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The database at the path in `settings`: the one that is open already, or newly opened. Counts the caller as a user. Blocks.
pub(crate) fn open(settings: Settings) -> Result<Arc<Database>> {
    let create = prepare_path(&settings)?;
    // A clock of its own is a reason for a database of its own: each sees the other's writes all the same.
    if settings.clock.is_manual() {
        return Database::start(settings, create);
    }
    if !create
        && let Some(identity) = identity(&settings)
        && let Some(database) = registry().get(&identity).and_then(Weak::upgrade)
        && database.join()
    {
        return Ok(database);
    }
    // Not under the lock, since it may wait for another process. If somebody else is as quick there are two, which is as well.
    let database = Database::start(settings, create)?;
    if let Some(identity) = identity(&database.shared.settings) {
        let mut open = registry();
        open.retain(|_, database| database.strong_count() > 0);
        open.insert(identity, Arc::downgrade(&database));
    }
    Ok(database)
}

/// True where the file is still to be made.
fn prepare_path(settings: &Settings) -> Result<bool> {
    let path = &settings.path;
    let missing = || Error::not_found(format!("there is no database `{}`, and auto_create is off", path.display()));
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(Error::config(format!("`{}` is a folder: name a file in it", path.display())));
        }
        // SQLite takes a file of one byte for an empty one, and would write over what is there.
        Ok(found) if found.len() == 1 => {
            return Err(Error::corrupt(format!(
                "`{}` holds one byte and is not a SQLite database: name another file, or remove this one",
                path.display()
            )));
        }
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    if !settings.auto_create {
        return Err(missing());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::from(e).with_subject(format_args!("folder `{}`", folder.display())))?;
    }
    Ok(true)
}

#[cfg(unix)]
fn identity(settings: &Settings) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(&settings.path).ok()?;
    Some((found.dev(), found.ino(), settings.synchronous))
}

#[cfg(not(unix))]
fn identity(settings: &Settings) -> Option<Identity> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    std::fs::canonicalize(&settings.path).ok()?.hash(&mut hasher);
    Some((0, hasher.finish(), settings.synchronous))
}

impl Database {
    fn start(settings: Settings, create: bool) -> Result<Arc<Self>> {
        let connection = patient(settings.timeout, || {
            let connection = open_writer(&settings, create)?;
            layout::ensure(&connection)?;
            Ok::<_, Error>(connection)
        })?;
        let path = std::fs::canonicalize(&settings.path).unwrap_or_else(|_| settings.path.clone());
        let readers = settings.readers;
        let parallelism = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shared = Arc::new(Shared {
            catalog: SharedCatalog::default(),
            writer: Mutex::new(Some(Writer::new(connection))),
            writes: Jobs::new(),
            reads: Jobs::new(),
            // One for each reading thread, and for each thread on which callers may read at once.
            pool: Pool::new(readers as usize + parallelism.min(MAX_HERE)),
            news: News::default(),
            commits: AtomicU64::new(0),
            settings,
        });
        let shared_by_writer = Arc::clone(&shared);
        let mut threads = vec![spawn("sqlite-write", move || work(&shared_by_writer))?];
        for _ in 0..readers {
            let shared_by_thread = Arc::clone(&shared);
            match spawn("sqlite-read", move || read_all(&shared_by_thread)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.writes.close();
                    shared.reads.close();
                    return Err(error);
                }
            }
        }
        Ok(Arc::new(Self {
            shared,
            info: BackendInfo::new("sqlite", path.display().to_string()),
            write_room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            read_room: Arc::new(Semaphore::new(ROOM_READS)),
            threads: Mutex::new(threads),
            users: Mutex::new(Some(1)),
        }))
    }

    /// Does `work` in a write transaction that may be shared with others.
    ///
    /// A caller that goes away before it was begun takes it back; once begun it is finished.
    pub(crate) async fn write<T, F>(&self, size: Size, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Session<'_>) -> Result<T> + Send + 'static,
    {
        let work = match self.write_here(size, work) {
            Ok(result) => return result,
            Err(work) => work,
        };
        let share = (size.kib + 1).min(ROOM_KIB);
        let room = room(&self.write_room, share).await?;
        let (reply, answer) = oneshot::channel();
        let task = Task { work: Some(work), result: None, reply, size, _room: room };
        self.shared.writes.push(Box::new(task))?;
        answer.await.map_err(|_| closed())?
    }

    /// Does it at once on the caller's thread, if it is brief, nobody else writes and no disk is waited for; else it comes back.
    fn write_here<T, F>(&self, size: Size, work: F) -> std::result::Result<Result<T>, F>
    where
        F: FnOnce(&mut Session<'_>) -> Result<T>,
    {
        let shared = &*self.shared;
        if !size.is_brief() || !shared.settings.writes_here() || !shared.writes.is_free() {
            return Err(work);
        }
        match shared.writer.try_lock().as_deref_mut() {
            Ok(Some(writer)) => writer.alone(shared, work),
            _ => Err(work),
        }
    }

    /// Reads one state of the database, on a thread for reading.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Snapshot<'_>) -> Result<T> + Send + 'static,
    {
        let room = room(&self.read_room, 1).await?;
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |shared| {
            let _room = room;
            if !reply.is_closed() {
                let _ = reply.send(shared.read(read));
            }
        });
        self.shared.reads.push(job)?;
        answer.await.map_err(|_| closed())?
    }

    /// Reads one state of the database on the caller's thread, which is for reads of a few microseconds: two changes of thread cost more
    /// than a record does. `None`: all connections are in use, or one would have to wait.
    pub(crate) fn read_here<T>(&self, read: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Option<Result<T>> {
        let shared = &*self.shared;
        if shared.writes.is_closed() {
            return Some(Err(closed()));
        }
        let connection = match shared.pool.try_take(&shared.settings) {
            Ok(connection) => connection?,
            Err(error) if is_busy(&error) => return None,
            Err(error) => return Some(Err(error)),
        };
        // No patience: who has to wait does so on a thread for it.
        let result = snapshot(&connection, &shared.catalog, &shared.settings.clock, read);
        shared.pool.give(connection);
        match result {
            Err(error) if is_busy(&error) => None,
            result => Some(result),
        }
    }

    /// Counts one more user. `false`: the database is closing.
    pub(crate) fn join(&self) -> bool {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        *users = users.map(|count| count + 1);
        users.is_some()
    }

    /// Counts one user less. True: it was the last, and the database is closing.
    pub(crate) fn leave(&self) -> bool {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        match *users {
            Some(count) if count > 1 => {
                *users = Some(count - 1);
                false
            }
            Some(_) => {
                *users = None;
                drop(users);
                self.stop();
                true
            }
            None => false,
        }
    }

    /// Lets no more work in. What is in is done, then the threads end.
    fn stop(&self) {
        self.shared.reads.close();
        self.shared.pool.close();
        self.shared.writes.close();
        self.shared.news.close();
    }

    /// Waits until the threads have ended. Blocks.
    pub(crate) fn wait_for_end(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The connection that writes, once nobody else uses it.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, read: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        patient(self.settings.timeout, || {
            let connection = self.pool.take(&self.settings)?;
            let result = snapshot(&connection, &self.catalog, &self.settings.clock, read);
            self.pool.give(connection);
            result
        })
    }
}

/// A share of the room for waiting jobs, once there is that much.
async fn room(room: &Arc<Semaphore>, share: u32) -> Result<OwnedSemaphorePermit> {
    match Arc::clone(room).try_acquire_many_owned(share) {
        Ok(permit) => Ok(permit),
        Err(_) => Arc::clone(room).acquire_many_owned(share).await.map_err(|_| closed()),
    }
}

/// A reading thread.
fn read_all(shared: &Shared) {
    loop {
        // One at a time: the others are there for the next.
        match shared.reads.take(Duration::from_secs(3600), |_| false) {
            Taken::Jobs(jobs) => jobs.into_iter().for_each(|job| job(shared)),
            Taken::Nothing => {}
            Taken::Closed => return,
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(no_thread)
}
