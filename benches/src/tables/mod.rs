//! Section `tables`: records on Azure Table Storage, against Python's official client, on the emulator (Azurite).
//!
//! The emulator is found by the variable in which `cargo xtask bench` tells where it has started it.

mod python;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use storage_conformance::requests::RequestCounter;

use crate::brokers::{at_least, fresh_name};
use crate::context::Context;
use crate::corpus::{Random, row};
use crate::measure::{Entry, Lane, Outcome, interleave};
use crate::ours;
use crate::report::{Better, Metric, Section, Table, Target};
use crate::subject::{Role, Row};

const VARIABLE: &str = "XTASK_TEST_AZURITE_TABLE";

const INTRO: &str = "\
Entities with two keys and five properties, in 16 partitions of a table of the emulator (Azurite), which is a process of its own on this \
machine, works on one request at a time, keeps everything in memory, and shares two cores with the subjects. Azure's clients for Rust have \
no tables, so the official Python one stands against the toolkit: each with 1, 4, 8 and 16 calls at once, and the best of the \
one is compared with the best of the other. Each reads what it wrote itself: the toolkit's entities have a version and a time of writing \
beside the five, and what a query finds is held against the filter once more. Entities are ready when the clock starts, and are counted \
afterwards. *Requests* are those of one more pass, which goes through a proxy that counts them; once in ten seconds the toolkit asks what \
the table is like, which it has done before the count.";

const PEER: &str = "in one process of Python, by asyncio and aiohttp; of the time of its batches most is its own work, on their text, not the emulator's";

/// Calls at once.
const AT_ONCE: [usize; 4] = [1, 4, 8, 16];
/// Entities in a transaction: as many as the service takes.
const BATCH: usize = 100;
const PARTITIONS: usize = 16;
/// A query finds one part in so many of a partition.
const BUCKETS: usize = 5;

/// An entity: its row key is the row's key.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entity {
    pub(crate) partition: String,
    #[serde(flatten)]
    pub(crate) row: Row,
}

/// What a client is asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ask<'a> {
    pub(crate) table: &'a str,
    pub(crate) at_once: usize,
    #[serde(flatten)]
    pub(crate) work: &'a Work,
}

/// What there is to do with a table.
#[derive(Debug, Serialize)]
#[serde(tag = "do", content = "with", rename_all = "snake_case")]
pub(crate) enum Work {
    Create,
    Drop,
    Count,
    /// Transactions, each of one partition; of one entity, a plain insert.
    Insert(Vec<Vec<Entity>>),
    /// By partition and row key.
    Get(Vec<(String, String)>),
    /// By partition and bucket.
    Query(Vec<(String, i64)>),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Done {
    pub(crate) seconds: f64,
    /// Entities written or found.
    pub(crate) count: usize,
}

/// A client of the tables.
#[async_trait]
pub(crate) trait Client: Send + Sync {
    async fn work(&self, ask: &Ask<'_>) -> Result<Done>;
}

/// How much is done per round.
struct Sizes {
    /// Transactions of each partition: of the table that is read, and of one that is written.
    loaded: usize,
    batches: usize,
    gets: usize,
    queries: usize,
    singles: usize,
}

impl Sizes {
    fn of(context: &Context) -> Self {
        if context.quick {
            Self { loaded: 1, batches: 1, gets: 32, queries: 16, singles: 32 }
        } else {
            Self { loaded: 5, batches: 2, gets: 480, queries: 80, singles: 480 }
        }
    }
}

/// One side: its client, and another one that is counted. Or why it can't take part.
struct Side {
    name: &'static str,
    role: Role,
    note: &'static str,
    clients: Result<[Arc<dyn Client>; 2], String>,
    /// The table that it reads.
    loaded: String,
}

/// A table of the document.
struct Phase {
    title: String,
    unit: &'static str,
    /// Each round has a table of its own, which is empty.
    writes: bool,
    work: Work,
    /// What a rate is reckoned from.
    done: usize,
    /// Entities that are written or found.
    entities: usize,
    targets: Vec<Target>,
}

/// Measures batches, gets, queries and single inserts.
///
/// # Errors
///
/// Where there is no emulator.
pub async fn run(context: &Context) -> Result<Section> {
    let address = std::env::var(VARIABLE).context(
        "there is no Azurite to measure: use `cargo xtask bench --section tables`, which starts it where it is installed",
    )?;
    let sizes = Sizes::of(context);
    let counter = RequestCounter::start(&address).await;
    let mut sides = sides(context, &address, &counter.url()).await;
    for side in &mut sides {
        if let Ok([client, _]) = &side.clients {
            context.progress(&format!("tables: loading {}", side.name));
            let loaded = async {
                ask(&**client, &side.loaded, &Work::Create, 1).await?;
                ask(&**client, &side.loaded, &Work::Insert(batches(sizes.loaded)), 4).await
            };
            if let Err(error) = loaded.await {
                side.clients = Err(format!("failed: {error:#}"));
            }
        }
    }
    let mut tables = Vec::new();
    for phase in phases(&sizes) {
        context.progress(&format!("tables: {}", phase.title));
        tables.push(table(context, phase, &sides, &counter).await);
    }
    for side in &sides {
        if let Ok([client, _]) = &side.clients {
            ask(&**client, &side.loaded, &Work::Drop, 1).await?;
        }
    }
    Ok(context.section("tables", "Records on Azure Table Storage", INTRO, tables))
}

async fn sides(context: &Context, address: &str, counted: &str) -> Vec<Side> {
    let side = |name, role, note, clients: Result<_>| Side {
        name,
        role,
        note,
        clients: clients.map_err(|error| format!("{error:#}")),
        loaded: table_name(),
    };
    let ours = async { Ok([ours::tables::client(address).await?, ours::tables::client(counted).await?]) };
    let mut sides = vec![side("storage-table-azure", Role::Ours, "", ours.await)];
    if !context.no_peers {
        let clients = python::clients(context, [address, counted]).await;
        sides.push(side("azure-data-tables 12.7", Role::Peer, PEER, clients));
    }
    sides
}

fn phases(sizes: &Sizes) -> [Phase; 4] {
    let (rows, written) = (sizes.loaded * BATCH, sizes.batches * BATCH * PARTITIONS);
    let found = rows / BUCKETS;
    let mut random = Random::new(1);
    let mut any = |end: usize| usize::try_from(random.below(i64::try_from(end).unwrap_or(i64::MAX))).unwrap_or_default();
    let gets = (0..sizes.gets).map(|_| entity(any(PARTITIONS), any(rows))).map(|it| (it.partition, it.row.id)).collect();
    let queries =
        (0..sizes.queries).map(|_| entity(any(PARTITIONS), any(rows))).map(|it| (it.partition, it.row.bucket)).collect();
    let singles = (0..sizes.singles).map(|n| vec![entity(n % PARTITIONS, n / PARTITIONS)]).collect();
    let others = "Azure tables: gets, queries and single inserts, the Python client at its best";
    let phase = |title, unit, work, done, entities, group| {
        let targets =
            vec![at_least(0, Role::Peer, 0.9, group), at_least(1, Role::Peer, 1.0, "Azure tables: requests, the Python client")];
        Phase { title, unit, writes: matches!(work, Work::Insert(_)), work, done, entities, targets }
    };
    [
        phase(
            format!("{} batches of {BATCH} inserts into {PARTITIONS} partitions", sizes.batches * PARTITIONS),
            "entities/s",
            Work::Insert(batches(sizes.batches)),
            written,
            written,
            "Azure tables: parallel batches, the Python client at its best",
        ),
        phase(
            format!("point get, 1 of {} entities", rows * PARTITIONS),
            "gets/s",
            Work::Get(gets),
            sizes.gets,
            sizes.gets,
            others,
        ),
        phase(
            format!("query of a partition with a filter, {found} of {rows} entities"),
            "queries/s",
            Work::Query(queries),
            sizes.queries,
            sizes.queries * found,
            others,
        ),
        phase("single inserts".to_owned(), "entities/s", Work::Insert(singles), sizes.singles, sizes.singles, others),
    ]
}

/// So many for each partition, in turn.
fn batches(each: usize) -> Vec<Vec<Entity>> {
    let batch = |batch: usize, partition| (0..BATCH).map(|n| entity(partition, batch * BATCH + n)).collect();
    (0..each).flat_map(|number| (0..PARTITIONS).map(move |partition| batch(number, partition))).collect()
}

/// The entity with this number within its partition. Those that share a bucket lie scattered over it.
fn entity(partition: usize, number: usize) -> Entity {
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Entity { partition: format!("p{partition:02}"), row: row(whole(number), whole(number % BUCKETS)) }
}

async fn table(context: &Context, phase: Phase, sides: &[Side], counter: &RequestCounter) -> Table {
    let lanes: Vec<(&Side, usize)> = sides.iter().flat_map(|side| AT_ONCE.map(|at_once| (side, at_once))).collect();
    let lane = |(side, at_once): &(&Side, usize)| Lane {
        subject: format!("{}, {at_once} at once", side.name),
        role: side.role,
        note: side.note.to_owned(),
        unable: side.clients.as_ref().err().cloned(),
    };
    let mut entries = interleave(lanes.iter().map(lane).collect(), context.rounds, async |index| {
        let (side, at_once) = lanes[index];
        Ok(vec![round(side, &phase, at_once).await?])
    })
    .await;
    for (entry, (side, at_once)) in entries.iter_mut().zip(&lanes) {
        count(entry, side, &phase, *at_once, counter).await;
    }
    let metrics = vec![metric("rate", phase.unit, Better::Higher), metric("requests", "in all", Better::Lower)];
    Table { title: phase.title, metrics, entries, targets: phase.targets }
}

fn metric(name: &str, unit: &str, better: Better) -> Metric {
    Metric { name: name.to_owned(), unit: unit.to_owned(), better }
}

/// The rate of a pass that nobody counts.
#[allow(clippy::cast_precision_loss)] // counts are far below 2^52
async fn round(side: &Side, phase: &Phase, at_once: usize) -> Result<f64> {
    let [client, _] = side.clients.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))?;
    let done = pass(&**client, &**client, side, phase, at_once, || {}).await?;
    Ok(phase.done as f64 / done.seconds)
}

/// Adds the requests of a pass to what was measured.
#[allow(clippy::cast_precision_loss)] // as above
async fn count(entry: &mut Entry, side: &Side, phase: &Phase, at_once: usize, counter: &RequestCounter) {
    let (Outcome::Measured(metrics), Ok([client, counted])) = (&mut entry.outcome, &side.clients) else { return };
    match pass(&**client, &**counted, side, phase, at_once, || _ = counter.take()).await {
        Ok(_) => metrics.push(vec![counter.take() as f64]),
        Err(error) => entry.outcome = Outcome::NotRun(format!("failed where requests were counted: {error:#}")),
    }
}

/// Does the work by one client, and what goes before and after it by another one.
async fn pass(
    other: &dyn Client,
    client: &dyn Client,
    side: &Side,
    phase: &Phase,
    at_once: usize,
    begin: impl FnOnce(),
) -> Result<Done> {
    let table = if phase.writes { table_name() } else { side.loaded.clone() };
    if phase.writes {
        ask(other, &table, &Work::Create, 1).await?;
    }
    // Connected, and told what the table is like.
    ask(client, &table, &Work::Count, 1).await?;
    begin();
    let done = ask(client, &table, &phase.work, at_once).await?;
    ensure!(done.count == phase.entities, "{} of {} entities were written or found", done.count, phase.entities);
    if phase.writes {
        let there = ask(other, &table, &Work::Count, 1).await?.count;
        ensure!(there == phase.entities, "{there} of {} entities are there", phase.entities);
        ask(other, &table, &Work::Drop, 1).await?;
    }
    Ok(done)
}

async fn ask(client: &dyn Client, table: &str, work: &Work, at_once: usize) -> Result<Done> {
    client.work(&Ask { table, at_once, work }).await
}

/// A name that no other table has: letters and digits are all that the service takes.
fn table_name() -> String {
    fresh_name().replace('-', "x")
}
