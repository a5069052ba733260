//! Section `folders`: many small files into a folder and into a bucket, and out again.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::corpus::Random;
use crate::measure::interleave;
use crate::movers::{Job, Place, What, Workshop, settle, subjects};
use crate::report::{Better, Goal, Metric, Section, Table, Target};
use crate::subject::{MoveSubject, Role};

const INTRO: &str = "\
Files of 4 KiB in folders of 100 go into an empty store and out again into an empty folder, 16 at once for everybody (rclone: \
`--transfers 16 --checkers 16`). Every transfer runs in a process of its own; its time includes the start of the process. Before each, \
everything older is brought to the disk; afterwards each file that came back is compared with the one that was sent. Where the store is \
durable, and wherever files are downloaded, all of it is on the disk at the end. rclone never syncs, so the file system is synced for it when it has \
ended: once for all files, which is the cheapest way there is. SeaweedFS does not sync what it stores.";

/// Bytes in a file.
const SIZE: usize = 4_096;
/// Files in a folder.
const IN_FOLDER: usize = 100;
/// Files under way at once.
const PARALLEL: usize = 16;

/// A kind of place, and what is measured there.
struct Case {
    title: &'static str,
    fsync: bool,
    bucket: bool,
    down: bool,
}

const CASES: [Case; 3] = [
    Case { title: "a folder, durable", fsync: true, bucket: false, down: true },
    Case { title: "a folder, page cache", fsync: false, bucket: false, down: false },
    Case { title: "a bucket of SeaweedFS", fsync: false, bucket: true, down: true },
];

/// Measures the transfers.
pub async fn run(context: &Context) -> Result<Section> {
    let files = if context.quick { 500 } else { 10_000 };
    let source = context.folder()?;
    write_files(source.path(), files).context("writing the files to move")?;
    let workshop = Workshop::open(context).await;
    let mut tables = Vec::new();
    for case in &CASES {
        context.progress(&format!("folders: {files} files, {}", case.title));
        tables.push(table(context, &workshop, case, source.path(), files).await?);
    }
    workshop.close().await?;
    Ok(context.section("folders", "Many small files, local and remote", INTRO, tables))
}

async fn table(context: &Context, workshop: &Workshop, case: &Case, source: &Path, files: usize) -> Result<Table> {
    let subjects: Vec<Box<dyn MoveSubject>> =
        subjects().into_iter().filter(|subject| subject.unable(What::Folder, false).is_none()).collect();
    let mut number = 0;
    let lanes = workshop.lanes(&subjects, What::Folder, case.bucket);
    let entries = interleave(lanes, context.rounds, async |index| {
        number += 1;
        let (store, back, bucket) = (context.folder()?, context.folder()?, format!("round-{number}"));
        let place = if case.bucket {
            let server = workshop.server()?;
            server.create_bucket(&bucket).await?;
            Place::Bucket { endpoint: server.endpoint(), bucket: bucket.clone() }
        } else {
            Place::Folder { dir: store.path().join("store"), fsync: case.fsync }
        };
        let job = |local: &Path, up| Job {
            subject: subjects[index].name(),
            place: place.clone(),
            local: local.to_owned(),
            what: What::Folder,
            up,
            parallel: PARALLEL,
            tools: workshop.tools().to_owned(),
        };
        let outcome = round(case, source, files, job, back.path()).await;
        if case.bucket {
            workshop.server()?.remove_bucket(&bucket).await?;
        }
        outcome
    })
    .await;
    Ok(Table {
        title: format!("{files} files of 4 KiB, {}", case.title),
        metrics: metrics(case),
        entries,
        targets: targets(case),
    })
}

/// One subject's turn, up and down.
async fn round(case: &Case, source: &Path, files: usize, job: impl Fn(&Path, bool) -> Job, back: &Path) -> Result<Vec<f64>> {
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let files_per = |seconds: f64| files as f64 / seconds;
    settle().await?;
    let sent = job(source, true).spawn().await.context("up")?;
    let mut samples = vec![files_per(sent.seconds)];
    if case.down {
        settle().await?;
        let fetched = job(back, false).spawn().await.context("down")?;
        same_files(source, back, files)?;
        samples.push(files_per(fetched.seconds));
    }
    Ok(samples)
}

fn write_files(folder: &Path, files: usize) -> Result<()> {
    let mut random = Random::new(8);
    let mut bytes = vec![0; SIZE];
    for number in 0..files {
        if number % IN_FOLDER == 0 {
            std::fs::create_dir_all(folder.join(name(number)).parent().context("a file has a folder")?)?;
        }
        random.fill(&mut bytes);
        std::fs::write(folder.join(name(number)), &bytes)?;
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("{:04}/{number:06}", number / IN_FOLDER)
}

fn same_files(source: &Path, back: &Path, files: usize) -> Result<()> {
    for name in (0..files).map(name) {
        let copy = std::fs::read(back.join(&name)).with_context(|| format!("reading {name}"))?;
        ensure!(copy == std::fs::read(source.join(&name))?, "{name} differs");
    }
    Ok(())
}

fn metrics(case: &Case) -> Vec<Metric> {
    let ways: &[&str] = if case.down { &["up", "down"] } else { &["up"] };
    ways.iter().map(|way| Metric { name: (*way).to_owned(), unit: "files/s".to_owned(), better: Better::Higher }).collect()
}

fn targets(case: &Case) -> Vec<Target> {
    let place = if case.bucket { "SeaweedFS" } else { "a folder" };
    let target = |metric| Target {
        metric,
        goal: Goal::Ratio { against: Role::Peer, at_least: 1.0 },
        group: format!("folders: 4 KiB files, {place}, rclone with 16 at once"),
    };
    (0..if case.down { 2 } else { 1 }).map(target).collect()
}
