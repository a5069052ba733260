//! Sending tasks, with their confirms in flight together.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use storage_core::{Attributes, Error, ErrorKind, QueueBackend as _, Result};

use super::letter::{self, TaskLetter};
use super::task::Task;
use crate::AmqpQueue;
use crate::config::QueueType;
use crate::declare::ready;
use crate::publish::Letter;

/// How many tasks go in one call to the broker, whose time is bounded.
const AT_ONCE: usize = 5_000;

/// The ids of a sent task: its own, and that of the last of its chain.
pub(super) type Ids = (String, String);

/// The way to the broker's queues.
#[derive(Debug)]
pub(super) struct Sender {
    queues: Arc<AmqpQueue>,
    /// Queues that are known to be there.
    known: Mutex<HashSet<String>>,
}

impl Sender {
    pub(super) fn new(queues: Arc<AmqpQueue>) -> Self {
        Self { queues, known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name on the broker of the queue that the app calls so.
    pub(super) fn at_broker(&self, queue: &str) -> String {
        format!("{}{queue}", self.queues.link().settings().prefix)
    }

    /// Sends tasks to a queue of the broker. `makes`: also where that queue is missing. After an error some may have been sent; one that can't be sent keeps
    /// all of up to 5,000 back.
    pub(super) async fn send_all(&self, to: &str, tasks: &[Task], reply_to: Option<&str>, makes: bool) -> Result<Vec<Ids>> {
        let none = Attributes::new();
        let mut ids = Vec::with_capacity(tasks.len());
        for (part, tasks) in tasks.chunks(AT_ONCE).enumerate() {
            let encode = || {
                let encoded = tasks.iter().enumerate().map(|(index, task)| {
                    letter::encode(task, &none, reply_to).map_err(|error| error.with_failed_write(part * AT_ONCE + index))
                });
                encoded.collect::<Result<Vec<_>>>()
            };
            ids.extend(self.send_part(to, encode, makes).await?);
        }
        Ok(ids)
    }

    /// Sends what `encode` makes: again, where the queue had to be made first.
    pub(super) async fn send_part(
        &self,
        to: &str,
        encode: impl Fn() -> Result<Vec<TaskLetter>> + Send + Sync,
        makes: bool,
    ) -> Result<Vec<Ids>> {
        if makes && !self.known().contains(to) {
            self.make(to, None).await?;
        }
        let send = async || {
            let letters = encode()?;
            let ids = letters.iter().map(|letter| (letter.id.clone(), letter.last_id.clone())).collect();
            let parcels = letters.into_iter().map(|letter| Letter { to: to.to_owned(), parcel: letter.parcel });
            self.publish(parcels.collect()).await.map(|()| ids)
        };
        match send().await {
            Err(error) if error.kind() == ErrorKind::NotFound && makes => {
                // Removed meanwhile: nothing has arrived.
                self.make(to, None).await?;
                send().await
            }
            sent => sent,
        }
    }

    /// Sends letters. One who gives up does not send a part.
    pub(super) async fn publish(&self, letters: Vec<Letter>) -> Result<()> {
        let publisher = Arc::clone(self.queues.publisher());
        let publish = tokio::spawn(async move { publisher.publish(letters).await });
        publish.await.map_err(|_| Error::unavailable("the runtime is shutting down"))?
    }

    /// Makes a queue as Celery does, where it is missing. `false`: it was there, however it was made.
    pub(super) async fn make(&self, queue: &str, keep_millis: Option<i64>) -> Result<bool> {
        let link = self.queues.link();
        let is_missing = ready(link, queue).await?.is_none();
        if is_missing {
            let mut arguments = FieldTable::default();
            if link.settings().queue_type == QueueType::Quorum {
                arguments.insert("x-queue-type".into(), AMQPValue::LongString(QueueType::Quorum.as_str().into()));
            }
            if let Some(millis) = keep_millis {
                arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(millis));
            }
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            link.briefly(async |channel| channel.queue_declare(queue.into(), options, arguments).await).await?;
        }
        self.known().insert(queue.to_owned());
        Ok(is_missing)
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.queues.close().await
    }
}
