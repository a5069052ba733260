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

type Maker = fn() -> Option<Box<dyn RecordSubject>>;

/// How much is done per round.
struct Sizes {
    rows: i64,
    gets: usize,
    queries: usize,
    batches: usize,
    batch: usize,
    callers: usize,
    singles: usize,
}

impl Sizes {
    fn of(context: &Context) -> Self {
        if context.quick {
            return Self { rows: 10_000, gets: 500, queries: 20, batches: 2, batch: 1_000, callers: 64, singles: 2 };
        }
        Self { rows: 1_000_000, gets: 20_000, queries: 500, batches: 20, batch: 1_000, callers: 64, singles: 50 }
    }
}

/// Measures the four tables.
pub async fn run(context: &Context) -> Result<Section> {
    let sizes = Sizes::of(context);
    let makers: Vec<Maker> =
        vec![ours::records::subject, || Some(Box::new(sqlx::Raw::new(1))), || Some(Box::new(rusqlite::Raw::default()))];
    let dirs = makers.iter().map(|_| context.folder()).collect::<Result<Vec<_>>>()?;
    let mut subjects: Vec<Arc<dyn RecordSubject>> = Vec::new();
    for (maker, dir) in makers.iter().zip(&dirs) {
        let Some(mut subject) = maker() else { continue };
        context.progress(&format!("records: loading {} rows into {}", sizes.rows, subject.name()));
        subject.load(dir.path(), &mut (0..sizes.rows).map(|n| row(n, n % (sizes.rows / PER_BUCKET)))).await?;
        subjects.push(Arc::from(subject));
    }

    let mut tables = Vec::new();
    context.progress("records: point gets");
    tables.push(gets(context, &sizes, &subjects).await);
    context.progress("records: indexed queries");
    tables.push(queries(context, &sizes, &subjects).await);
    context.progress("records: batches of writes");
    tables.push(batches(context, &sizes, &subjects).await);
    context.progress("records: concurrent single inserts");
    tables.push(singles(context, &sizes).await);
    Ok(context.section("records", "SQLite records", INTRO, tables))
}

fn lanes(subjects: &[Arc<dyn RecordSubject>]) -> Vec<Lane> {
    subjects
        .iter()
        .map(|subject| Lane { subject: subject.name(), role: subject.role(), note: subject.note(), unable: None })
        .collect()
}

fn table(title: String, unit: &str, entries: Vec<Entry>, at_least: f64, group: &str) -> Table {
    Table {
        title,
        metrics: vec![Metric { name: "rate".to_owned(), unit: unit.to_owned(), better: Better::Higher }],
        entries,
        targets: vec![Target { metric: 0, goal: Goal::Ratio { against: Role::Baseline, at_least }, group: group.to_owned() }],
    }
}

async fn gets(context: &Context, sizes: &Sizes, subjects: &[Arc<dyn RecordSubject>]) -> Table {
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
        0.8,
        "records: point get, raw sqlx on a held connection",
    )
}

async fn queries(context: &Context, sizes: &Sizes, subjects: &[Arc<dyn RecordSubject>]) -> Table {
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
    table(format!("indexed query, 100 of {} rows", sizes.rows), "queries/s", entries, 0.8, "records: indexed query, raw sqlx")
}

async fn batches(context: &Context, sizes: &Sizes, subjects: &[Arc<dyn RecordSubject>]) -> Table {
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
    let title = format!("batches of {} writes into {} rows, synchronous=FULL", sizes.batch, sizes.rows);
    table(title, "rows/s", entries, 0.8, "records: batch of 1,000, raw sqlx with prepared statements")
}

async fn singles(context: &Context, sizes: &Sizes) -> Table {
    let makers: Vec<Maker> =
        vec![ours::records::subject, || Some(Box::new(sqlx::Raw::new(8))), || Some(Box::new(sqlx::Raw::new(1))), || {
            Some(Box::new(rusqlite::Raw::default()))
        }];
    let (makers, subjects): (Vec<Maker>, Vec<Arc<dyn RecordSubject>>) =
        makers.into_iter().filter_map(|maker| Some((maker, Arc::from(maker()?)))).unzip();
    let entries = interleave(lanes(&subjects), context.rounds, async |index| {
        let Some(subject) = makers[index]() else { anyhow::bail!("the subject is gone") };
        let dir = context.folder()?;
        insert_concurrently(subject, dir.path(), sizes).await.map(|rate| vec![rate])
    })
    .await;
    let title = format!("{} concurrent single inserts, synchronous=FULL", sizes.callers);
    table(title, "rows/s", entries, 4.0, "records: 64 single inserts, one transaction each on a sqlx pool")
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
