//! Tasks that programs of another system send and run: what a queue of such a system offers beside its messages.
//!
//! A queue whose messages are the tasks of, say, Celery, answers [`QueueBackend::foreign_tasks`](crate::QueueBackend::foreign_tasks). `storage-tasks`
//! then writes its tasks in that system's own form, runs those that others have sent, and learns from its results what became of its own.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{BackendInfo, DriverConfig, Message, NewMessage, QueueName, Receipt, Result};

/// A task as one program asks another to run it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskCall {
    /// Its id, by which its result is known.
    pub id: String,
    /// What is to be done: the other system's name for it.
    pub name: String,
    /// What it is called with. Sent: a list is positional arguments, an object named ones, one of `args` and `kwargs` alone both, null none, anything else the
    /// one argument. Received: always an object of `args` and `kwargs`.
    pub input: Value,
    /// It is not to be run before.
    pub not_before: Option<DateTime<Utc>>,
    /// It is not to be run after.
    pub start_by: Option<DateTime<Utc>>,
    /// Higher ones are run first, where the other system has priorities.
    pub priority: u8,
    /// True where it was sent from here, and the worker decides whether a failure is tried again. False: the sender takes the first failure for the task's.
    pub is_own: bool,
}

/// How a task ended, in words that both systems have.
#[derive(Clone, Debug, PartialEq)]
pub enum CallEnd {
    /// It answered this.
    Succeeded(Value),
    /// It failed. Where it was raised, line by line, and in the last line its kind and message: `ValueError: no such thing`.
    Failed(String),
    /// It was not run, or stopped, for this reason.
    Cancelled(String),
}

/// What is known of a task that was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum CallNews {
    /// A worker has begun.
    Started,
    /// It has ended.
    Ended(CallEnd),
}

/// News that came by themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// The task's id.
    pub id: String,
    /// What is known of it.
    pub news: CallNews,
    /// By which they are [settled](ForeignTasks::settle). Else they come again.
    pub receipt: Receipt,
}

/// The tasks of another system, as its queues hold them.
#[async_trait]
pub trait ForeignTasks: Debug + Send + Sync + 'static {
    /// The queue that the other system uses where nobody names one.
    fn default_queue(&self) -> &'static str;

    /// The message that asks for a task, to be sent to one of the backend's queues.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what the other system's messages can't hold.
    fn message(&self, call: &TaskCall) -> Result<NewMessage>;

    /// The task that a received message asks for.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput): it asks for none.
    fn call(&self, message: &Message) -> Result<TaskCall>;

    /// Why the task of a received message can't be run from here at all, as the text of [`CallEnd::Failed`]. `None`: it can.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn refusal(&self, message: &Message) -> Result<Option<String>>;

    /// Tells whoever sent a task how it ended, and sends on what is to follow it. Safe to repeat, with the same `end`.
    async fn answer(&self, queue: &QueueName, message: &Message, end: &CallEnd) -> Result<()>;

    /// True where results are kept to be looked at; false where they come as messages.
    fn keeps_results(&self) -> bool;

    /// What is known of these tasks, where results are kept to be looked at. `None`: nothing, or nothing yet.
    async fn news_of(&self, ids: &[String]) -> Result<Vec<Option<CallNews>>>;

    /// Up to `max` news that came by themselves, where results come as messages. Waits for the first as long as told.
    async fn arrivals(&self, max: u32, wait: Duration) -> Result<Vec<Arrival>>;

    /// Says that news were written down.
    async fn settle(&self, arrivals: &[Receipt]) -> Result<()>;
}

/// Values by key, each kept for a while: where another system keeps the results of its tasks.
#[async_trait]
pub trait KeyedValues: Debug + Send + Sync + 'static {
    /// Which backend this is.
    fn info(&self) -> &BackendInfo;

    /// The values of these keys, in the keys' order.
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>>;

    /// Sets a value for so long, and tells programs that wait for the key.
    async fn put(&self, key: &str, value: Bytes, keep: Duration) -> Result<()>;

    /// Removes what is there under these keys.
    async fn remove(&self, keys: &[String]) -> Result<()>;

    /// Lets go of everything.
    async fn close(&self) -> Result<()>;
}

/// How a backend of values by key is opened from configuration, within that of a queue.
pub trait ValuesDriver: Debug + Send + Sync + 'static {
    /// URL schemes that mean this driver.
    fn schemes(&self) -> &'static [&'static str];

    /// Opens the values. Does not connect yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a bad address or option.
    fn open_values(&self, config: &DriverConfig) -> Result<Arc<dyn KeyedValues>>;
}
