//! Section `brokers`: queues on servers, against the same work by the servers' own clients and against peers.
//!
//! The servers are found by the variables in which `cargo xtask bench` tells where it has started them.

mod nats;
mod rabbitmq;
mod redis;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use storage_core::{Driver, NewMessage, QueueName, QueueSpec, QueueStore, Receipt, Receive};

use crate::context::Context;
use crate::measure::{Lane, interleave};
use crate::queue::drive::{AsyncQueue, Durability, QueueCase, QueueRound, drive_async};
use crate::report::{Better, Goal, Metric, Section, Table, Target};
use crate::subject::{Named, Role};

const INTRO: &str = "\
Producers send every message to a queue that starts empty, then as many consumers receive, check and delete until nothing is left. \
*Send* is messages per second of the first part, *drain* of the second. After each round: every message arrived with its own body, and \
the queue is empty. Each server is a process of its own on this machine, shares its two cores with the subjects, and has every message on \
its disk before it says so, as far as it offers that.";

/// The bodies.
const BODY: usize = 100;
/// Messages to a call.
const BATCH: usize = 100;

/// A broker: where tests find it, and who is compared on it.
struct Broker {
    name: &'static str,
    variable: &'static str,
    subjects: fn(&str) -> Vec<Box<dyn Subject>>,
    targets: fn() -> Vec<Target>,
}

const BROKERS: [Broker; 3] = [
    Broker { name: "RabbitMQ", variable: "XTASK_TEST_RABBITMQ", subjects: rabbitmq::subjects, targets: rabbitmq::targets },
    Broker { name: "Redis", variable: "XTASK_TEST_REDIS", subjects: redis::subjects, targets: redis::targets },
    Broker { name: "NATS", variable: "XTASK_TEST_NATS", subjects: nats::subjects, targets: nats::targets },
];

/// A queue on a server.
#[async_trait]
trait Subject: Named + Send + Sync {
    /// Why it can't run the case, if it can't.
    fn unable(&self, _case: &QueueCase) -> Option<String> {
        None
    }
    /// Runs the workload once, on a queue of its own.
    async fn round(&self, case: &QueueCase) -> Result<QueueRound>;
}

/// Measures every broker that is there.
///
/// # Errors
///
/// Where none is.
pub async fn run(context: &Context) -> Result<Section> {
    let mut tables = Vec::new();
    for broker in &BROKERS {
        let Ok(address) = std::env::var(broker.variable) else {
            context.progress(&format!("brokers: no {}: `cargo xtask bench` starts it where it is installed", broker.name));
            continue;
        };
        for workers in [1, 8] {
            let title = format!("{}, {workers} at once, batches of {BATCH}, bodies of {BODY} B", broker.name);
            if !title.contains(&context.case) {
                continue;
            }
            context.progress(&format!("brokers: {title}"));
            let messages = if context.quick { 1_600 } else { 16_000 };
            let case = QueueCase { sync: Durability::Full, workers, batch: BATCH, body: BODY, messages };
            let subjects: Vec<_> =
                (broker.subjects)(&address).into_iter().filter(|subject| subject.name().contains(&context.subject)).collect();
            tables.push(table(context, title, &subjects, &case, (broker.targets)()).await);
        }
    }
    ensure!(!tables.is_empty(), "no broker is there to measure: use `cargo xtask bench -- --section brokers`");
    Ok(context.section("brokers", "Queues on brokers", INTRO, tables))
}

async fn table(context: &Context, title: String, subjects: &[Box<dyn Subject>], case: &QueueCase, targets: Vec<Target>) -> Table {
    let lane = |subject: &Box<dyn Subject>| Lane {
        subject: subject.name(),
        role: subject.role(),
        note: subject.note(),
        unable: subject.unable(case),
    };
    let entries = interleave(subjects.iter().map(lane).collect(), context.rounds, async |index| {
        let round = subjects[index].round(case).await?;
        ensure!(round.delivered == case.messages, "{} of {} messages were delivered", round.delivered, case.messages);
        ensure!(round.left == 0, "{} messages were left in the queue", round.left);
        ensure!(round.duplicates == 0, "{} messages came twice", round.duplicates);
        #[allow(clippy::cast_precision_loss)] // counts of messages are far below 2^52
        let messages = case.messages as f64;
        Ok(vec![messages / round.send_seconds, messages / round.drain_seconds])
    })
    .await;
    let metric = |name: &str| Metric { name: name.to_owned(), unit: "messages/s".to_owned(), better: Better::Higher };
    Table { title, metrics: vec![metric("send"), metric("drain")], entries, targets }
}

/// So many times as good as a side, in sending (0) or draining (1).
fn at_least(metric: usize, against: Role, at_least: f64, group: &str) -> Target {
    Target { metric, goal: Goal::Ratio { against, at_least }, group: group.to_owned() }
}

/// A name that no other round has.
fn fresh_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The toolkit on a broker.
struct Ours {
    name: &'static str,
    driver: &'static (dyn Driver + Sync),
    address: String,
}

impl Named for Ours {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn role(&self) -> Role {
        Role::Ours
    }
}

#[async_trait]
impl Subject for Ours {
    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let backends = crate::ours::open(self.driver, &self.address, &[]).await?;
        let store = QueueStore::new(backends.queue.context("the driver has no queues")?);
        let name = QueueName::new(&fresh_name())?;
        store.create_queue(&name, &QueueSpec::default()).await?;
        let round = drive_async(Arc::new(OurQueue { store: store.clone(), name: name.clone() }), *case).await;
        store.delete_queue(&name).await?;
        store.close().await?;
        round
    }
}

struct OurQueue {
    store: QueueStore,
    name: QueueName,
}

#[async_trait]
impl AsyncQueue for OurQueue {
    type Receipt = Receipt;

    async fn send(&self, _worker: usize, bodies: &[Bytes]) -> Result<()> {
        self.store.send_all(&self.name, bodies.iter().cloned().map(NewMessage::new).collect()).await?;
        Ok(())
    }

    async fn receive(&self, _worker: usize, max: usize) -> Result<Vec<(Receipt, Bytes)>> {
        let request = Receive::up_to(u32::try_from(max)?);
        let deliveries = self.store.receive(&self.name, &request).await?;
        Ok(deliveries.into_iter().map(|delivery| (delivery.receipt, delivery.message.body)).collect())
    }

    async fn delete(&self, _worker: usize, receipts: Vec<Receipt>) -> Result<()> {
        for outcome in self.store.delete_all(&self.name, &receipts).await? {
            outcome?;
        }
        Ok(())
    }

    async fn left(&self) -> Result<u64> {
        let stats = self.store.stats(&self.name).await?;
        Ok([stats.ready, stats.delayed, stats.leased, stats.dead].iter().filter_map(|count| count.value()).sum())
    }

    async fn settings(&self) -> Result<String> {
        Ok(String::new())
    }
}
