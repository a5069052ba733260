//! Section `blobs`: a store of blobs in a folder.

mod child;
mod copy;
mod local;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

pub use child::TransferArgs;
pub(crate) use child::peak_kib;

use crate::context::Context;
use crate::corpus::Random;
use crate::measure::{Lane, interleave, per_second};
use crate::ours;
use crate::report::{Better, Goal, Metric, Section, Table, Target};
use crate::subject::{BlobSubject, Role};

const INTRO: &str = "\
A large file goes into the store and out again, durable on return; every transfer runs in a process of its own, so that the peak of \
its resident memory is its own. object_store is told to sync, writes through its multipart upload and reads the file that it \
answers with, both in pieces of 8 MiB. Small gets come from the page cache.";

/// Every subject of the section.
fn subjects() -> Vec<Box<dyn BlobSubject>> {
    let mut subjects: Vec<Box<dyn BlobSubject>> = Vec::new();
    subjects.extend(ours::blobs::subject());
    subjects.push(Box::new(copy::Copy::default()));
    subjects.push(Box::new(local::Local::default()));
    subjects
}

/// Runs one transfer in this process, which exists for that alone.
pub async fn transfer(args: &TransferArgs) -> Result<()> {
    child::run(args, subjects()).await
}

/// Measures the large transfers and the small gets.
pub async fn run(context: &Context) -> Result<Section> {
    let mib = if context.quick { 32 } else { 1_024 };
    let source = context.folder()?;
    let file = source.path().join("source");
    write_source(&file, mib).context("writing the file to copy")?;
    let mut tables = Vec::new();
    for up in [true, false] {
        let way = if up { "up" } else { "down" };
        context.progress(&format!("blobs: {mib} MiB {way}"));
        tables.push(large(context, &file, mib, up).await?);
    }
    context.progress("blobs: 4 KiB gets");
    tables.push(small(context).await?);
    Ok(context.section("blobs", "Blobs in a folder", INTRO, tables))
}

fn lanes(subjects: &[Box<dyn BlobSubject>]) -> Vec<Lane> {
    subjects.iter().map(|s| Lane { subject: s.name(), role: s.role(), note: s.note(), unable: None }).collect()
}

pub(crate) fn write_source(path: &Path, mib: u32) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    let mut random = Random::new(5);
    let mut piece = vec![0; 1 << 20];
    for _ in 0..mib {
        random.fill(&mut piece);
        std::io::Write::write_all(&mut file, &piece)?;
    }
    Ok(file.sync_all()?)
}

async fn large(context: &Context, source: &Path, mib: u32, up: bool) -> Result<Table> {
    let subjects = subjects();
    let stores = subjects.iter().map(|_| context.folder()).collect::<Result<Vec<_>>>()?;
    if !up {
        for (subject, store) in subjects.iter().zip(&stores) {
            child::spawn(&subject.name(), store.path(), source, true).await?;
        }
    }
    let entries = interleave(lanes(&subjects), context.rounds, async |index| {
        let subject = subjects[index].name();
        let (fresh, target) = (context.folder()?, context.folder()?);
        let transfer = if up {
            child::spawn(&subject, fresh.path(), source, true).await?
        } else {
            let copy = target.path().join("copy");
            let transfer = child::spawn(&subject, stores[index].path(), &copy, false).await?;
            same(source, &copy)?;
            transfer
        };
        #[allow(clippy::cast_precision_loss)] // memory is far below 2^52 KiB
        let peak = transfer.peak_kib as f64 / 1_024.0;
        Ok(vec![f64::from(mib) / transfer.seconds, peak])
    })
    .await;
    let way = if up { "up" } else { "down" };
    Ok(Table {
        title: format!("{mib} MiB {way}, durable"),
        metrics: vec![
            Metric { name: "rate".to_owned(), unit: "MiB/s".to_owned(), better: Better::Higher },
            Metric { name: "peak memory".to_owned(), unit: "MiB".to_owned(), better: Better::Lower },
        ],
        entries,
        targets: vec![
            Target {
                metric: 0,
                goal: Goal::Ratio { against: Role::Baseline, at_least: 0.9 },
                group: "blobs: 1 GiB, copy + fsync".to_owned(),
            },
            Target { metric: 1, goal: Goal::AtMost(64.0), group: "blobs: 1 GiB, peak memory in MiB".to_owned() },
        ],
    })
}

/// Compares two files a piece at a time.
pub(crate) fn same(a: &Path, b: &Path) -> Result<()> {
    use std::io::Read;
    let (mut a, mut b) = (std::fs::File::open(a)?, std::fs::File::open(b)?);
    ensure!(a.metadata()?.len() == b.metadata()?.len(), "the copy has another length");
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = a.read(&mut left)?;
        if count == 0 {
            return Ok(());
        }
        b.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            bail!("the copy differs");
        }
    }
}

async fn small(context: &Context) -> Result<Table> {
    const SIZE: usize = 4_096;
    let (blobs, gets) = if context.quick { (200, 500) } else { (10_000_i64, 20_000_usize) };
    let mut subjects = subjects();
    let stores = subjects.iter().map(|_| context.folder()).collect::<Result<Vec<_>>>()?;
    for (subject, store) in subjects.iter_mut().zip(&stores) {
        subject.open(store.path()).await?;
        let mut random = Random::new(6);
        for number in 0..blobs {
            let mut bytes = vec![0; SIZE];
            random.fill(&mut bytes);
            subject.put(&name(number), bytes).await?;
        }
    }
    let mut random = Random::new(7);
    let entries = interleave(lanes(&subjects), context.rounds, async |index| {
        let names: Vec<String> = (0..gets).map(|_| name(random.below(blobs))).collect();
        let started = Instant::now();
        let bytes = subjects[index].get_all(names).await?;
        let rate = per_second(gets, started);
        ensure!(bytes == gets * SIZE, "{bytes} bytes were read, not {}", gets * SIZE);
        Ok(vec![rate])
    })
    .await;
    Ok(Table {
        title: format!("4 KiB gets, 1 of {blobs} blobs"),
        metrics: vec![Metric { name: "rate".to_owned(), unit: "gets/s".to_owned(), better: Better::Higher }],
        entries,
        targets: vec![Target {
            metric: 0,
            goal: Goal::Ratio { against: Role::Peer, at_least: 0.9 },
            group: "blobs: 4 KiB gets, object_store".to_owned(),
        }],
    })
}

fn name(number: i64) -> String {
    format!("{:02}/{number:06}", number % 100)
}
