//! The queue to which workers send results.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use storage_core::backoff::Backoff;
use storage_core::{Error, Result};
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::outcome::{self, Outcome, State};
use crate::error::{lapin, within};
use crate::link::{Link, Role};

/// How many results are kept: the oldest go first.
const KEPT: usize = 10_000;
/// How long the broker keeps a queue that nobody listens at, as Celery does.
const EXPIRES_MILLIS: i64 = 86_400_000;
const READ_AHEAD: u16 = 100;

#[derive(Debug, Default)]
struct Results {
    by_task: HashMap<String, Outcome>,
    in_order: VecDeque<String>,
}

#[derive(Debug)]
struct Shared {
    results: Mutex<Results>,
    /// Turns with each result.
    came: watch::Sender<u64>,
}

/// Results as they come in. Listens as long as it lives, over broken connections.
#[derive(Debug)]
pub(super) struct Inbox {
    link: Arc<Link>,
    address: String,
    shared: Arc<Shared>,
    listener: OnceCell<JoinHandle<()>>,
}

impl Inbox {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let shared = Shared { results: Mutex::default(), came: watch::Sender::new(0) };
        let address = format!("{}storage.results.{}", link.settings().prefix, Uuid::new_v4());
        Self { link, address, shared: Arc::new(shared), listener: OnceCell::new() }
    }

    /// The queue's name on the broker, where it is from now on.
    pub(super) async fn address(&self) -> Result<&str> {
        let listen = async || {
            declare(&self.link, &self.address).await?;
            Ok::<_, Error>(tokio::spawn(listen(Arc::clone(&self.link), self.address.clone(), Arc::clone(&self.shared))))
        };
        self.listener.get_or_try_init(listen).await?;
        Ok(&self.address)
    }

    /// What became of a task; `None` where that is not known after `wait`.
    pub(super) async fn result(&self, id: &str, wait: Duration) -> Option<Outcome> {
        let find = || self.shared.results.lock().unwrap_or_else(PoisonError::into_inner).by_task.get(id).cloned();
        let mut came = self.shared.came.subscribe();
        let look = async {
            loop {
                if let Some(outcome) = find() {
                    return outcome;
                }
                if came.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(wait, look).await.ok()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.abort();
        }
    }
}

async fn declare(link: &Link, address: &str) -> Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(EXPIRES_MILLIS));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    link.briefly(async |channel| channel.queue_declare(address.into(), options, arguments).await).await.map(drop)
}

async fn listen(link: Arc<Link>, address: String, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let outcome = take_in(&link, &address, &shared, &mut backoff).await;
        if let Err(error) = outcome {
            tracing::debug!(%error, "results can't be received, trying again");
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn take_in(link: &Link, address: &str, shared: &Shared, backoff: &mut Backoff) -> Result<()> {
    let channel = link.channel(Role::Receive).await?;
    let consume = async {
        channel.basic_qos(READ_AHEAD, BasicQosOptions::default()).await.map_err(lapin)?;
        let options = BasicConsumeOptions::default();
        channel.basic_consume(address.into(), "".into(), options, FieldTable::default()).await.map_err(lapin)
    };
    let mut consumer = within(link.settings().timeout, consume).await?;
    backoff.reset();
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.map_err(lapin)?;
        match outcome::read(&delivery.data) {
            Ok((id, State::Ended(outcome))) => shared.keep(id, outcome),
            Ok((_, State::Waiting | State::Started)) => {}
            Err(error) => tracing::warn!(%error, "what came is no result of a task"),
        }
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.map_err(lapin)?;
    }
    Ok(())
}

impl Shared {
    fn keep(&self, id: String, outcome: Outcome) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if results.by_task.insert(id.clone(), outcome).is_none() {
            results.in_order.push_back(id);
        }
        if results.in_order.len() > KEPT
            && let Some(oldest) = results.in_order.pop_front()
        {
            results.by_task.remove(&oldest);
        }
        drop(results);
        self.came.send_modify(|n| *n += 1);
    }
}
