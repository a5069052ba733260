//! Where results are kept, and told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use storage_core::backoff::Backoff;
use storage_core::{ErrorKind, KeyedValues, Result};
use tokio::time::Instant;

use super::outcome::{self, Outcome, State};
use super::send::Sender;
use super::task::{Embed, Task};
use super::{Failure, letter};
use crate::publish::Letter;

/// What keys of results begin with.
const KEY: &str = "celery-task-meta-";
/// How soon one who waits for a result that is kept elsewhere looks again; doubles up to [`LONGEST_LOOK`].
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// Where an app keeps the results of its tasks.
#[derive(Clone, Debug)]
pub(super) enum Results {
    /// In messages to whoever sent the task: Celery's `rpc://`.
    Messages,
    /// As values by key, for so long: Celery's `redis://`.
    Values { values: Arc<dyn KeyedValues>, keep: Duration },
    /// Nowhere.
    Nowhere,
}

impl Results {
    /// What is known of these tasks, in their order, where that can be looked up.
    pub(super) async fn look_up(&self, ids: &[String]) -> Result<Vec<Option<State>>> {
        let Self::Values { values, .. } = self else { return Ok(vec![None; ids.len()]) };
        let keys: Vec<String> = ids.iter().map(|id| format!("{KEY}{id}")).collect();
        let found = values.get(&keys).await?;
        let read = |(value, key): (Option<Bytes>, &String)| match outcome::read(&value?) {
            Ok((_, state)) => Some(state),
            Err(error) => {
                tracing::warn!(key, %error, "what is there is no result of a task");
                None
            }
        };
        Ok(found.into_iter().zip(&keys).map(read).collect())
    }

    /// Forgets the results of tasks that had these ids before: they would pass for those of the new ones.
    pub(super) async fn forget(&self, ids: impl Iterator<Item = &String>) -> Result<()> {
        let Self::Values { values, .. } = self else { return Ok(()) };
        let keys: Vec<String> = ids.map(|id| format!("{KEY}{id}")).collect();
        values.remove(&keys).await
    }

    /// Waits for a result that is kept as a value.
    pub(super) async fn wait(&self, id: &str, wait: Duration) -> Result<Option<Outcome>> {
        let (deadline, ids) = (Instant::now() + wait, [id.to_owned()]);
        let mut backoff = Backoff::new(FIRST_LOOK, LONGEST_LOOK);
        loop {
            let state = self.look_up(&ids).await?.pop().flatten();
            if let Some(outcome) = state.and_then(State::outcome) {
                return Ok(Some(outcome));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            tokio::time::sleep(backoff.next_delay().min(left)).await;
        }
    }

    /// Tells whoever sent a task how it ended, and sends on what is to follow it: to the queue that it names, else to the one that the task came from.
    pub(super) async fn tell(&self, sender: &Sender, queue: &str, task: &Task, outcome: &Outcome) -> Result<()> {
        for (task, to) in followers(task, outcome)? {
            let to = to.map_or_else(|| queue.to_owned(), |to| sender.at_broker(&to));
            sender.send_all(&to, &[task], None, true).await?;
        }
        let id = task.id.as_deref().unwrap_or_default();
        match self {
            _ if task.ignore_result => Ok(()),
            Self::Values { values, keep } => {
                let key = format!("{KEY}{id}");
                values.put(&key, outcome::write(id, outcome, Utc::now())?.into(), *keep).await
            }
            Self::Messages => {
                let Some(to) = task.reply_to.clone().filter(|to| !to.is_empty()) else { return Ok(()) };
                match sender.publish(vec![Letter { to, parcel: outcome::reply(id, outcome)? }]).await {
                    // Whoever asked has gone.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                    told => told,
                }
            }
            Self::Nowhere => Ok(()),
        }
    }
}

/// What is to follow a task that ended so, each with the queue that it names.
fn followers(task: &Task, outcome: &Outcome) -> Result<Vec<(Task, Option<String>)>> {
    let Embed { callbacks, errbacks, chain, .. } = &task.embed;
    let mut following = Vec::new();
    match outcome {
        Outcome::Success(result) => {
            for callback in callbacks.iter().flatten() {
                following.push(letter::follow(callback, result.clone(), task, None)?);
            }
            if let Some((next, rest)) = chain.as_deref().and_then(<[_]>::split_last) {
                let rest = Some(rest.to_vec()).filter(|rest| !rest.is_empty());
                following.push(letter::follow(next, result.clone(), task, rest)?);
            }
        }
        Outcome::Failure(_) => {
            let id = task.id.clone().unwrap_or_default();
            for errback in errbacks.iter().flatten() {
                following.push(letter::follow(errback, id.clone().into(), task, None)?);
            }
        }
        Outcome::Revoked(_) => {}
    }
    Ok(following)
}

/// Why a task can't be run here: what is to follow it would not.
pub(super) fn refusal(task: &Task) -> Option<Failure> {
    task.embed.chord.as_ref()?;
    Some(Failure::new("NotImplementedError", "this worker does not count the tasks of a chord: route them to a Python worker"))
}
