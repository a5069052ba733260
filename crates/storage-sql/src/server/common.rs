//! What every open store on a server has.

use std::time::Duration;

use storage_core::{BackendInfo, Result};

use super::{Committer, KnownQueues, SharedCatalog, Statements, Time, Users, late};

/// What every open store on a server has, beside its connections.
#[derive(Debug)]
pub struct Common<S> {
    /// The store.
    pub info: BackendInfo,
    /// How long a call may take.
    pub timeout: Duration,
    /// The server's time.
    pub time: Time,
    /// The tables.
    pub catalog: SharedCatalog<S>,
    /// All who write.
    pub committer: Committer,
    /// Queues as they were found last.
    pub queues: KnownQueues,
    /// How many handles are open.
    pub users: Users,
}

impl<S: Statements> Common<S> {
    /// Of a store that is just being opened, by one user.
    #[must_use]
    pub fn new(info: BackendInfo, timeout: Duration, time: Time) -> Self {
        Self {
            info,
            timeout,
            time,
            catalog: SharedCatalog::default(),
            committer: Committer::default(),
            queues: KnownQueues::default(),
            users: Users::default(),
        }
    }

    /// What `work` answers.
    ///
    /// # Errors
    /// [`Timeout`](storage_core::ErrorKind::Timeout) where it takes too long.
    pub async fn in_time<T>(&self, work: impl Future<Output = T> + Send) -> Result<T> {
        tokio::time::timeout(self.timeout, work).await.map_err(|_| late(self.timeout))
    }
}
