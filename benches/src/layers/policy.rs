//! What a policy adds to a call on a store in memory.

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use storage_core::{Backends, BlobPath, BlobStore, Expect, RecordStore, TableName, TableSchema};

use super::Stopwatch;
use crate::context::Context;
use crate::corpus::document;
use crate::measure::{Lane, Spread, interleave};
use crate::ours;
use crate::report::{Better, Goal, Metric, Table, Target};
use crate::subject::Role;

/// Turns of a round; an odd number of each kind would have a middle turn, an even one has two.
const TURNS: u32 = 20;
/// The most that the whole chain may add, in nanoseconds.
const MOST: f64 = 1_000.0;

/// A store in memory, and the same behind a guard.
pub struct Guard {
    /// What guards.
    pub name: &'static str,
    /// [`Role::Ours`] for the whole chain; the rest is for orientation.
    pub role: Role,
    /// What a reader should know.
    pub note: &'static str,
    /// The store.
    pub bare: Backends,
    /// The same store, guarded.
    pub guarded: Backends,
}

/// What is called.
#[derive(Clone, Copy)]
enum Call {
    Record,
    Head,
}

/// Measures a small read of each kind.
pub(super) async fn run(context: &Context) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for (title, call) in [("get of a record", Call::Record), ("head of a blob", Call::Head)] {
        context.progress(&format!("layers: {title}"));
        tables.push(table(context, title, call).await?);
    }
    Ok(tables)
}

async fn table(context: &Context, title: &str, call: Call) -> Result<Table> {
    let calls = if context.quick { 2_000 } else { 200_000 };
    let guards = ours::layers::guards()?;
    let mut pairs = Vec::with_capacity(guards.len());
    for guard in &guards {
        let bare = Side::open(&guard.bare).await?;
        pairs.push((bare, Side::open(&guard.guarded).await?));
    }
    let lane =
        |guard: &Guard| Lane { subject: guard.name.to_owned(), role: guard.role, note: guard.note.to_owned(), unable: None };
    let entries = interleave(guards.iter().map(lane).collect(), context.rounds, async |index| {
        let (bare, guarded) = &pairs[index];
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            without.push(bare.time(call, calls / TURNS).await?);
            with.push(guarded.time(call, calls / TURNS).await?);
        }
        let middle = |turns: &[f64]| Spread::of(turns).map(|spread| spread.median).context("there are turns");
        let (without, with) = (middle(&without)?, middle(&with)?);
        Ok(vec![with, with - without])
    })
    .await;
    Ok(Table {
        title: format!("{title} in memory, guarded"),
        metrics: ["time", "added"]
            .map(|name| Metric { name: name.to_owned(), unit: "ns".to_owned(), better: Better::Lower })
            .to_vec(),
        entries,
        targets: vec![Target {
            metric: 1,
            goal: Goal::AtMost(MOST),
            group: "layers: nanoseconds that the whole policy chain adds to a call in memory".to_owned(),
        }],
    })
}

/// One side of a pair.
struct Side {
    records: RecordStore,
    blobs: BlobStore,
    table: TableName,
    id: String,
    path: BlobPath,
}

impl Side {
    /// Both sides of a pair put the same things into the one store.
    async fn open(backends: &Backends) -> Result<Self> {
        let records = ours::records(backends)?;
        let blobs = BlobStore::new(backends.blobs.clone().context("the driver has no blobs")?);
        let schema = TableSchema::builder("documents").keep_undeclared().build()?;
        records.create_table(&schema).await?;
        let (id, fields) = document(1);
        let batch = storage_core::Batch::new().put(&schema.name, id.as_str(), fields, Expect::Anything);
        records.commit(batch).await?;
        let path = BlobPath::new("a/blob")?;
        blobs.put(&path, vec![1; 100]).await?;
        Ok(Self { records, blobs, table: schema.name, id, path })
    }

    /// Nanoseconds per call.
    async fn time(&self, call: Call, calls: u32) -> Result<f64> {
        let mut found = 0;
        let started = Stopwatch::start()?;
        for _ in 0..calls {
            found += match call {
                Call::Record => u32::from(black_box(self.records.get(&self.table, self.id.as_str()).await?).is_some()),
                Call::Head => u32::from(black_box(self.blobs.head(&self.path).await?).size == 100),
            };
        }
        let nanoseconds = started.seconds()? * 1e9 / f64::from(calls);
        ensure!(found == calls, "{found} of {calls} calls found what is there");
        Ok(nanoseconds)
    }
}
