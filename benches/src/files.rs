//! Section `fs`: records as JSON files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::corpus::{Random, document};
use crate::measure::{Lane, interleave, per_second};
use crate::ours;
use crate::report::{Better, Goal, Metric, Section, Table, Target};
use crate::subject::{Document, FileSubject, Named, Role};

const INTRO: &str = "\
One JSON object of about 350 bytes per record. The bare side writes a temporary file, syncs it, renames it and syncs the folder; it \
gets a record with `fs::read` and serde_json. Gets are of random records and come from the page cache.";

/// Measures puts and gets.
pub async fn run(context: &Context) -> Result<Section> {
    let (loaded, puts, gets) = if context.quick { (1_000, 20, 500) } else { (100_000_i64, 500, 20_000_usize) };
    let all: Vec<Box<dyn FileSubject>> = ours::files::subject().into_iter().chain([Box::new(Bare::default()) as _]).collect();
    let mut subjects = Vec::new();
    for mut subject in all {
        context.progress(&format!("fs: loading {loaded} records into {}", subject.name()));
        let dir = context.folder()?;
        subject.open(dir.path()).await?;
        subject.load((0..loaded).map(document).collect()).await?;
        subjects.push((subject, dir));
    }
    let lanes = || {
        subjects.iter().map(|(s, _)| Lane { subject: s.name(), role: s.role(), note: s.note(), unable: None }).collect::<Vec<_>>()
    };

    context.progress("fs: durable puts");
    let mut next = vec![loaded; subjects.len()];
    let put = interleave(lanes(), context.rounds, async |index| {
        let first = next[index];
        next[index] += puts;
        let records: Vec<Document> = (first..next[index]).map(document).collect();
        let (count, ids) = (records.len(), records.iter().map(|(id, _)| id.clone()).collect());
        let started = Instant::now();
        subjects[index].0.put_all(records).await?;
        let rate = per_second(count, started);
        let found = subjects[index].0.get_all(ids).await?;
        ensure!(found == count, "{found} of {count} records are there");
        Ok(vec![rate])
    })
    .await;

    context.progress("fs: gets");
    let mut random = Random::new(3);
    let get = interleave(lanes(), context.rounds, async |index| {
        let ids: Vec<String> = (0..gets).map(|_| document(random.below(loaded)).0).collect();
        let started = Instant::now();
        let found = subjects[index].0.get_all(ids).await?;
        let rate = per_second(gets, started);
        ensure!(found == gets, "{found} of {gets} records were found");
        Ok(vec![rate])
    })
    .await;

    let table = |title: String, unit: &str, entries, at_least, group: &str| Table {
        title,
        metrics: vec![Metric { name: "rate".to_owned(), unit: unit.to_owned(), better: Better::Higher }],
        entries,
        targets: vec![Target { metric: 0, goal: Goal::Ratio { against: Role::Baseline, at_least }, group: group.to_owned() }],
    };
    let tables = vec![
        table(
            "durable put, one after another".to_owned(),
            "puts/s",
            put,
            0.9,
            "fs: durable put, bare write + fsync + rename + fsync",
        ),
        table(format!("get, 1 of {loaded} records"), "gets/s", get, 0.7, "fs: get, fs::read + parse"),
    ];
    Ok(context.section("fs", "Records as files", INTRO, tables))
}

/// The bare calls, on a thread of their own.
#[derive(Default)]
struct Bare {
    dir: PathBuf,
}

impl Bare {
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || work(&dir)).await?
    }
}

impl Named for Bare {
    fn name(&self) -> String {
        "bare files".to_owned()
    }

    fn role(&self) -> Role {
        Role::Baseline
    }
}

#[async_trait]
impl FileSubject for Bare {
    async fn open(&mut self, dir: &Path) -> Result<()> {
        self.dir = dir.to_owned();
        Ok(())
    }

    async fn load(&self, records: Vec<Document>) -> Result<()> {
        self.with(move |dir| {
            for (id, fields) in records {
                fs::write(path(dir, &id), serde_json::to_vec(&fields)?)?;
            }
            Ok(())
        })
        .await
    }

    async fn put_all(&self, records: Vec<Document>) -> Result<()> {
        self.with(move |dir| records.iter().try_for_each(|(id, fields)| put(dir, id, fields))).await
    }

    async fn get_all(&self, ids: Vec<String>) -> Result<usize> {
        self.with(move |dir| {
            let mut found = 0;
            for id in ids {
                let fields: Map<String, Value> = serde_json::from_slice(&fs::read(path(dir, &id))?)?;
                found += usize::from(!fields.is_empty());
                std::hint::black_box(fields);
            }
            Ok(found)
        })
        .await
    }
}

fn path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.json"))
}

fn put(dir: &Path, id: &str, fields: &Map<String, Value>) -> Result<()> {
    let temporary = dir.join(format!("{id}.tmp"));
    let mut file = File::create(&temporary).context("making a temporary file")?;
    file.write_all(&serde_json::to_vec(fields)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path(dir, id))?;
    Ok(File::open(dir)?.sync_all()?)
}
