//! [`CancelCheck`]: whether somebody asked a running task to stop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use storage_core::Result;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{Task, TaskId, TaskStatus, TaskStore};

/// How often the record is read at most.
const INTERVAL: Duration = Duration::from_millis(500);

/// Tells a handler whether it should stop: somebody cancelled the task, or it is no longer this attempt's. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CancelCheck {
    tasks: TaskStore,
    id: TaskId,
    uid: Uuid,
    generation: u32,
    attempt: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    read_at: Instant,
    cancelled: bool,
}

impl CancelCheck {
    pub(crate) fn new(tasks: &TaskStore, task: &Task) -> Self {
        let state = State { read_at: Instant::now(), cancelled: task.cancel_requested };
        Self {
            tasks: tasks.clone(),
            id: task.id(),
            uid: task.uid,
            generation: task.generation,
            attempt: task.attempts,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// True where the handler should stop. Reads the task's record twice a second at most, so it may be asked in a tight loop.
    ///
    /// # Errors
    /// The backend's.
    pub async fn is_cancelled(&self) -> Result<bool> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.cancelled || state.read_at.elapsed() < INTERVAL {
                return Ok(state.cancelled);
            }
            state.read_at = Instant::now();
        }
        self.read().await
    }

    async fn read(&self) -> Result<bool> {
        let mine = |task: &Task| {
            task.is_same_run(self.uid, self.generation) && task.status == TaskStatus::Running && task.attempts == self.attempt
        };
        let cancelled = match self.tasks.get_task(self.id.clone()).await? {
            Some(task) => task.cancel_requested || !mine(&task),
            None => true,
        };
        if cancelled {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).cancelled = true;
        }
        Ok(cancelled)
    }

    /// Ready when the handler should stop: for a `select!`. At once where this process cancels, else within half a second. A backend that does not answer is
    /// asked again.
    pub async fn cancelled(&self) {
        let waiter = self.tasks.inner.cancels.register(&self.id);
        loop {
            let mut rung = std::pin::pin!(waiter.rung());
            rung.as_mut().enable();
            match self.read().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(task = %self.id, %error, "can't tell whether a task is cancelled"),
            }
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}
