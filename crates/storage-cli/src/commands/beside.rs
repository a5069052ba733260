//! What runs beside a worker or a scheduler.

use std::time::Duration;

use storage_core::Error;
use storage_facade::Storage;
use storage_tasks::{FollowOptions, OutboxRelay, RelayOptions, TaskFollower, TaskStore};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often what crashes may have left behind is looked for.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long what is in hand may take at the end.
const GRACE: Duration = Duration::from_secs(5);

/// Sends messages that are owed, learns what became of tasks that another system's workers run, and completes what crashes have left behind.
pub(crate) struct Beside {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Beside {
    /// Begins with it.
    pub(crate) async fn start(storage: &Storage, tasks: &TaskStore) -> Result<Self, Error> {
        let (outbox, tasks) = (storage.outbox().await?, tasks.clone());
        let (stop, stopped) = watch::channel(false);
        let stopped = move || {
            let mut stopped = stopped.clone();
            async move {
                // An error: whoever would say so is gone.
                let _ = stopped.wait_for(|stop| *stop).await;
            }
        };
        let task = tokio::spawn(async move {
            let messages = async {
                if let Some(outbox) = outbox {
                    outbox.run(stopped()).await;
                }
            };
            let owed = async {
                if !tasks.is_one_batch() {
                    let relay = OutboxRelay::new(&tasks, RelayOptions::default());
                    let follower = TaskFollower::new(&tasks, FollowOptions::default());
                    tokio::join!(relay.run(stopped()), follower.run(stopped()));
                }
            };
            let recovery = async {
                tokio::select! {
                    () = stopped() => {}
                    () = recover(&tasks) => {}
                }
            };
            tokio::join!(messages, owed, recovery);
        });
        Ok(Self { stop, task })
    }

    /// Ends it.
    pub(crate) async fn end(self) {
        let Self { stop, mut task } = self;
        let _ = stop.send(true);
        if tokio::time::timeout(GRACE, &mut task).await.is_err() {
            task.abort();
        }
    }
}

async fn recover(tasks: &TaskStore) {
    let mut tick = tokio::time::interval(RECOVERY);
    loop {
        tick.tick().await;
        if let Err(error) = tasks.recover().await {
            tracing::warn!(%error, "can't look for what crashes have left behind");
        }
    }
}
