//! Section `brokers`: queues on servers, against the same work by the servers' own clients and against peers.
//!
//! The servers are found by the variables in which `cargo xtask bench` tells where it has started them.

mod apalis;
mod azure;
mod bullmq;
mod celery;
mod nats;
mod peers;
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
use peers::Peers;

const INTRO: &str = "\
Producers send every message to a queue that starts empty, then as many consumers receive, check and delete until nothing is left. \
*Send* is messages per second of the first part, *drain* of the second. After each round: every message arrived with its own body, and \
the queue is empty. Each server is a process of its own on this machine, shares its two cores with the subjects, and has every message on \
its disk before it says so, as far as it offers that. Of Celery the sending alone is measured, into a durable classic queue as it makes \
them; after each round all tasks are in the broker.";

/// The bodies.
const BODY: usize = 100;
/// Messages to a call.
const BATCH: usize = 100;
/// Producers, and consumers, at once.
const WORKERS: [usize; 2] = [1, 8];

/// Where the servers are told that peers have to be installed for.
const RABBITMQ: &str = "XTASK_TEST_RABBITMQ";
const REDIS: &str = "XTASK_TEST_REDIS";

/// A broker: where tests find it, and who is compared on it.
struct Broker {
    name: &'static str,
    variable: &'static str,
    /// Messages in a round: small sizes, and all.
    messages: [usize; 2],
    subjects: fn(&Place<'_>) -> Vec<Box<dyn Subject>>,
    targets: fn() -> Vec<Target>,
}

/// What subjects are made from.
struct Place<'a> {
    address: &'a str,
    peers: &'a Peers,
}

const BROKERS: [Broker; 4] = [
    Broker {
        name: "RabbitMQ",
        variable: RABBITMQ,
        messages: [1_600, 16_000],
        subjects: |place| rabbitmq::subjects(place.address),
        targets: rabbitmq::targets,
    },
    Broker { name: "Redis", variable: REDIS, messages: [1_600, 16_000], subjects: redis::subjects, targets: redis::targets },
    Broker {
        name: "NATS",
        variable: "XTASK_TEST_NATS",
        messages: [1_600, 16_000],
        subjects: |place| nats::subjects(place.address),
        targets: nats::targets,
    },
    // Its emulator takes a few hundred messages a second.
    Broker {
        name: "Azure Storage Queue",
        variable: "XTASK_TEST_AZURITE_QUEUE",
        messages: [800, 1_600],
        subjects: azure::subjects,
        targets: azure::targets,
    },
];

/// A queue on a server.
#[async_trait]
pub(crate) trait Subject: Named + Send + Sync {
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
    let peers = Peers::install(context).await;
    let (mut tables, mut absent) = (Vec::new(), Vec::new());
    for broker in &BROKERS {
        let Ok(address) = std::env::var(broker.variable) else {
            context.progress(&format!("brokers: no {}: `cargo xtask bench` starts it where it is installed", broker.name));
            absent.extend(WORKERS.map(|workers| title(broker.name, workers)));
            absent.extend((broker.variable == RABBITMQ).then(celery::title));
            continue;
        };
        let subjects = || (broker.subjects)(&Place { address: &address, peers: &peers });
        tables.extend(measure(context, broker.name, broker.messages, subjects, broker.targets).await);
        if broker.variable == RABBITMQ && celery::title().contains(&context.case) {
            context.progress(&format!("brokers: {}", celery::title()));
            tables.push(celery::table(context, &celery::Place { address: &address, python: peers.python.as_ref() }).await);
        }
    }
    ensure!(!tables.is_empty(), "no broker is there to measure: use `cargo xtask bench -- --section brokers`");
    Ok(Section { absent, ..context.section("brokers", "Queues on brokers", INTRO, tables) })
}

fn title(server: &str, workers: usize) -> String {
    format!("{server}, {workers} at once, batches of {BATCH}, bodies of {BODY} B")
}

/// Measures a server's queues, with one at once and with eight. `messages` in a round: small sizes, and all.
pub(crate) async fn measure(
    context: &Context,
    server: &str,
    messages: [usize; 2],
    subjects: impl Fn() -> Vec<Box<dyn Subject>>,
    targets: fn() -> Vec<Target>,
) -> Vec<Table> {
    let [few, all] = messages;
    let messages = if context.quick { few } else { all };
    let mut tables = Vec::new();
    for workers in WORKERS {
        let title = title(server, workers);
        if !title.contains(&context.case) {
            continue;
        }
        context.progress(&title);
        let case = QueueCase { sync: Durability::Full, workers, batch: BATCH, body: BODY, messages };
        let mut subjects = subjects();
        subjects.retain(|subject| subject.name().contains(&context.subject));
        tables.push(table(context, title, &subjects, &case, targets()).await);
    }
    tables
}

async fn table(context: &Context, title: String, subjects: &[Box<dyn Subject>], case: &QueueCase, targets: Vec<Target>) -> Table {
    let lane = |subject: &dyn Subject| Lane {
        subject: subject.name(),
        role: subject.role(),
        note: subject.note(),
        unable: subject.unable(case),
    };
    let entries = interleave(subjects.iter().map(|subject| lane(&**subject)).collect(), context.rounds, async |index| {
        let round = subjects[index].round(case).await?;
        ensure!(round.delivered == case.messages, "{} of {} messages were delivered", round.delivered, case.messages);
        ensure!(round.left == 0, "{} messages were left in the queue", round.left);
        ensure!(round.duplicates == 0, "{} messages came twice", round.duplicates);
        Ok(vec![rate(case.messages, round.send_seconds), rate(case.messages, round.drain_seconds)])
    })
    .await;
    let metrics = ["send", "drain"].map(|name| metric(name, "messages/s")).into();
    Table { title, metrics, entries, targets }
}

fn metric(name: &str, unit: &str) -> Metric {
    Metric { name: name.to_owned(), unit: unit.to_owned(), better: Better::Higher }
}

/// So many in so many seconds.
#[allow(clippy::cast_precision_loss)] // counts of messages are far below 2^52
fn rate(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// So many times as good as a side, in sending (0) or draining (1).
pub(crate) fn at_least(metric: usize, against: Role, at_least: f64, group: &str) -> Target {
    Target { metric, goal: Goal::Ratio { against, at_least }, group: group.to_owned() }
}

/// What a part of a round's messages took, as if it had been all of them, which are so many times as many: rates are compared.
pub(crate) fn stand_for(mut round: QueueRound, times: usize) -> QueueRound {
    #[allow(clippy::cast_precision_loss)] // a small number
    let factor = times as f64;
    (round.send_seconds, round.drain_seconds) = (round.send_seconds * factor, round.drain_seconds * factor);
    round.delivered *= times;
    round
}

/// A name that no other round has.
pub(crate) fn fresh_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The toolkit on a broker.
pub(crate) struct Ours {
    name: &'static str,
    role: Role,
    note: &'static str,
    driver: &'static (dyn Driver + Sync),
    address: String,
}

impl Ours {
    pub(crate) fn new(name: &'static str, driver: &'static (dyn Driver + Sync), address: &str) -> Self {
        Self { name, role: Role::Ours, note: "", driver, address: address.to_owned() }
    }
}

impl Named for Ours {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn role(&self) -> Role {
        self.role
    }

    fn note(&self) -> String {
        self.note.to_owned()
    }
}

#[async_trait]
impl Subject for Ours {
    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let backends = crate::ours::open(self.driver, &self.address, &[]).await?;
        let store = QueueStore::new(backends.queue.context("the driver has no queues")?);
        let name = QueueName::new(fresh_name())?;
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
