//! Section `records`: a table of records on SQLite at `synchronous=FULL`.

mod rusqlite;
mod sqlx;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::corpus::{Random, row};
use crate::measure::{Entry, Lane, interleave, per_second};
use crate::ours;
use crate::report::{Better, Goal, Metric, Section, Table, Target};
use crate::subject::{RecordSubject, Role, Row};

const INTRO: &str = "\
A table with a text key and five more columns, one of them indexed. The raw sides use sqlx 0.9 with prepared statements on one held \
connection (a pool for the single inserts); rusqlite is printed for orientation. The index finds 100 rows, which lie scattered over \
the table.";

/// Rows that share a bucket.
const PER_BUCKET: i64 = 100;
/// Buckets of rows that are inserted while the clock runs begin here, so that a query still finds what was loaded.
const NEW_BUCKETS: i64 = 1 << 40;

/// Makes a subject that has nothing open yet.
pub(crate) type Maker = Box<dyn Fn() -> Box<dyn RecordSubject>>;

/// Who is measured on what.
pub(crate) struct Plan {
    /// What the groups of targets begin with.
    pub(crate) group: &'static str,
    /// What a commit promises.
    pub(crate) durability: &'static str,
    pub(crate) sizes: Sizes,
    /// Those that have a loaded table.
    pub(crate) loaded: Vec<Maker>,
    /// Those that insert single rows into an empty one.
    pub(crate) singles: Vec<Maker>,
    /// So many times as good as the raw side, in gets, queries and batches; and in single inserts.
    pub(crate) at_least: f64,
    pub(crate) singles_at_least: f64,
}

/// How much is done per round.
pub(crate) struct Sizes {
    pub(crate) rows: i64,
    pub(crate) gets: usize,
    pub(crate) queries: usize,
    pub(crate) batches: usize,
    pub(crate) batch: usize,
    pub(crate) callers: usize,
    pub(crate) singles: usize,
}

impl Sizes {
    /// Small ones, which show that it works.
    pub(crate) const QUICK: Self =
        Self { rows: 10_000, gets: 500, queries: 20, batches: 2, batch: 1_000, callers: 64, singles: 2 };
}

/// Measures the four tables on SQLite.
pub async fn run(context: &Context) -> Result<Section> {
    let whole = Sizes { rows: 1_000_000, gets: 20_000, queries: 500, batches: 20, batch: 1_000, callers: 64, singles: 50 };
    let plan = Plan {
        group: "records",
        durability: "synchronous=FULL",
        sizes: if context.quick { Sizes::QUICK } else { whole },
        loaded: vec![
            Box::new(ours::records::subject),
            Box::new(|| Box::new(sqlx::Raw::new(1))),
            Box::new(|| Box::new(rusqlite::Raw::default())),
        ],
        singles: vec![
            Box::new(ours::records::subject),
            Box::new(|| Box::new(sqlx::Raw::new(8))),
            Box::new(|| Box::new(sqlx::Raw::new(1))),
            Box::new(|| Box::new(rusqlite::Raw::default())),
        ],
        at_least: 0.8,
        singles_at_least: 4.0,
    };
    let tables = tables(context, &plan).await?;
    Ok(context.section("records", "SQLite records", INTRO, tables))
}

/// Measures the four tables of a plan.
pub(crate) async fn tables(context: &Context, plan: &Plan) -> Result<Vec<Table>> {
    let sizes = &plan.sizes;
    let dirs = plan.loaded.iter().map(|_| context.folder()).collect::<Result<Vec<_>>>()?;
    let mut subjects: Vec<Arc<dyn RecordSubject>> = Vec::new();
    for (maker, dir) in plan.loaded.iter().zip(&dirs) {
        let mut subject = maker();
        context.progress(&format!("{}: loading {} rows into {}", plan.group, sizes.rows, subject.name()));
        subject.load(dir.path(), &mut (0..sizes.rows).map(|n| row(n, n % (sizes.rows / PER_BUCKET)))).await?;
        subjects.push(Arc::from(subject));
    }
    let mut tables = Vec::new();
    context.progress(&format!("{}: point gets", plan.group));
    tables.push(gets(context, plan, &subjects).await);
    context.progress(&format!("{}: indexed queries", plan.group));
    tables.push(queries(context, plan, &subjects).await);
    context.progress(&format!("{}: batches of writes", plan.group));
    tables.push(batches(context, plan, &subjects).await);
    context.progress(&format!("{}: concurrent single inserts", plan.group));
    tables.push(singles(context, plan).await);
    Ok(tables)
}

fn lanes(subjects: &[Arc<dyn RecordSubject>]) -> Vec<Lane> {
    subjects
        .iter()
        .map(|subject| Lane { subject: subject.name(), role: subject.role(), note: subject.note(), unable: None })
        .collect()
}

fn table(title: String, unit: &str, entries: Vec<Entry>, at_least: f64, group: String) -> Table {
    Table {
        title,
        metrics: vec![Metric { name: "rate".to_owned(), unit: unit.to_owned(), better: Better::Higher }],
        entries,
        targets: vec![Target { metric: 0, goal: Goal::Ratio { against: Role::Baseline, at_least }, group }],
    }
}

async fn gets(context: &Context, plan: &Plan, subjects: &[Arc<dyn RecordSubject>]) -> Table {
    let sizes = &plan.sizes;
    let mut random = Random::new(1);
    let entries = interleave(lanes(subjects), context.rounds, async |index| {
        let ids: Vec<String> = (0..sizes.gets).map(|_| row(random.below(sizes.rows), 0).id).collect();
        let started = Instant::now();
        let found = subjects[index].get_all(ids).await?;
        let rate = per_second(sizes.gets, started);
        ensure!(found == sizes.gets, "{found} of {} rows were found", sizes.gets);
        Ok(vec![rate])
    })
    .await;
    table(
        format!("point get, 1 of {} rows", sizes.rows),
        "gets/s",
        entries,
        plan.at_least,
        format!("{}: point get, raw sqlx on a held connection", plan.group),
    )
}

async fn queries(context: &Context, plan: &Plan, subjects: &[Arc<dyn RecordSubject>]) -> Table {
    let sizes = &plan.sizes;
    let mut random = Random::new(2);
    let entries = interleave(lanes(subjects), context.rounds, async |index| {
        let buckets: Vec<i64> = (0..sizes.queries).map(|_| random.below(sizes.rows / PER_BUCKET)).collect();
        let started = Instant::now();
        let found = subjects[index].query_all(buckets).await?;
        let rate = per_second(sizes.queries, started);
        let wanted = sizes.queries * usize::try_from(PER_BUCKET)?;
        ensure!(found == wanted, "{found} of {wanted} rows were found");
        Ok(vec![rate])
    })
    .await;
    let title = format!("indexed query, 100 of {} rows", sizes.rows);
    table(title, "queries/s", entries, plan.at_least, format!("{}: indexed query, raw sqlx", plan.group))
}

async fn batches(context: &Context, plan: &Plan, subjects: &[Arc<dyn RecordSubject>]) -> Table {
    let sizes = &plan.sizes;
    let mut next = vec![sizes.rows; subjects.len()];
    let entries = interleave(lanes(subjects), context.rounds, async |index| {
        let subject = &subjects[index];
        let mut take = || {
            next[index] += 1;
            row(next[index], NEW_BUCKETS + next[index])
        };
        let batches: Vec<Vec<Row>> = (0..sizes.batches).map(|_| (0..sizes.batch).map(|_| take()).collect()).collect();
        let before = subject.count().await?;
        let started = Instant::now();
        subject.insert_all(batches).await?;
        let rate = per_second(sizes.batches * sizes.batch, started);
        let (added, wanted) = (subject.count().await? - before, (sizes.batches * sizes.batch) as u64);
        ensure!(added == wanted, "{added} of {wanted} rows were added");
        Ok(vec![rate])
    })
    .await;
    let title = format!("batches of {} writes into {} rows, {}", sizes.batch, sizes.rows, plan.durability);
    let group = format!("{}: batch of 1,000, raw sqlx with prepared statements", plan.group);
    table(title, "rows/s", entries, plan.at_least, group)
}

async fn singles(context: &Context, plan: &Plan) -> Table {
    let sizes = &plan.sizes;
    let subjects: Vec<Arc<dyn RecordSubject>> = plan.singles.iter().map(|maker| Arc::from(maker())).collect();
    let entries = interleave(lanes(&subjects), context.rounds, async |index| {
        let dir = context.folder()?;
        insert_concurrently(plan.singles[index](), dir.path(), sizes).await.map(|rate| vec![rate])
    })
    .await;
    let title = format!("{} concurrent single inserts, {}", sizes.callers, plan.durability);
    let group = format!("{}: 64 single inserts, one transaction each on a sqlx pool", plan.group);
    table(title, "rows/s", entries, plan.singles_at_least, group)
}

async fn insert_concurrently(mut subject: Box<dyn RecordSubject>, dir: &Path, sizes: &Sizes) -> Result<f64> {
    subject.load(dir, &mut std::iter::empty()).await?;
    let subject: Arc<dyn RecordSubject> = Arc::from(subject);
    let shares: Vec<Vec<Row>> = (0..sizes.callers)
        .map(|caller| (0..sizes.singles).map(|n| i64::try_from(n * sizes.callers + caller).map(|n| row(n, n))).collect())
        .collect::<Result<_, _>>()?;
    let started = Instant::now();
    let callers: Vec<_> = shares
        .into_iter()
        .map(|rows| {
            let subject = subject.clone();
            tokio::spawn(async move {
                for row in rows {
                    subject.insert_one(row).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    let rate = per_second(sizes.callers * sizes.singles, started);
    let (count, wanted) = (subject.count().await?, (sizes.callers * sizes.singles) as u64);
    ensure!(count == wanted, "{count} of {wanted} rows are there");
    Ok(rate)
}
