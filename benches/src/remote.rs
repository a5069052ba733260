//! Section `remote`: one large file into a folder and into a bucket, and out again.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::blobs::{same, write_source};
use crate::context::Context;
use crate::measure::interleave;
use crate::movers::{BLOB, Job, Moved, Place, What, Workshop, settle, subjects};
use crate::report::{Better, Goal, Metric, Section, Table, Target};
use crate::subject::{MoveSubject, Role};

const INTRO: &str = "\
A large file goes into a store and out again, in parts of 8 MiB, 4 at once for everybody. Every transfer runs in a process of its own; \
its time includes the start of the process, and the peak of resident memory is its own. Before each transfer everything older is \
brought to the disk; afterwards the file that came back is compared with the one that was sent. What is downloaded is on the disk at the \
end, whoever downloads it. The bucket is one of a SeaweedFS on the same machine, whose share of the processors is most of the time: it \
gets bodies that are not hashed for the signature, and does not sync what it stores.";

/// Parts under way at once.
const PARALLEL: usize = 4;
/// The most memory that ours may take, in MiB: the parts under way, both those read and those written, and little else.
const MEMORY: f64 = 96.0;

/// A kind of place, and what is measured there.
struct Case {
    title: &'static str,
    fsync: bool,
    bucket: bool,
    /// Downloads too; without, they would repeat those of another case.
    down: bool,
}

const CASES: [Case; 3] = [
    Case { title: "a folder, durable", fsync: true, bucket: false, down: true },
    Case { title: "a folder, page cache", fsync: false, bucket: false, down: false },
    Case { title: "a bucket of SeaweedFS", fsync: false, bucket: true, down: true },
];

/// Measures the transfers.
pub async fn run(context: &Context) -> Result<Section> {
    let mib = if context.quick { 32 } else { 1_024 };
    let source = context.folder()?;
    let file = source.path().join("source");
    write_source(&file, mib).context("writing the file to move")?;
    let workshop = Workshop::open(context).await;
    let mut tables = Vec::new();
    for case in &CASES {
        context.progress(&format!("remote: {mib} MiB, {}", case.title));
        tables.push(table(context, &workshop, case, &file, mib).await?);
    }
    workshop.close().await?;
    Ok(context.section("remote", "Large files, local and remote", INTRO, tables))
}

async fn table(context: &Context, workshop: &Workshop, case: &Case, source: &Path, mib: u32) -> Result<Table> {
    let subjects = subjects();
    let mut number = 0;
    let mut lanes = workshop.lanes(&subjects, What::File, case.bucket);
    for lane in lanes.iter_mut().filter(|lane| !case.bucket && !case.fsync && lane.subject.starts_with("OpenDAL")) {
        lane.unable = Some("syncs always".to_owned());
    }
    let entries = interleave(lanes, context.rounds, async |index| {
        number += 1;
        let (store, back, bucket) = (context.folder()?, context.folder()?, format!("round-{number}"));
        let place = if case.bucket {
            let server = workshop.server()?;
            server.create_bucket(&bucket).await?;
            Place::Bucket { endpoint: server.endpoint(), bucket: bucket.clone() }
        } else {
            Place::Folder { dir: store.path().to_owned(), fsync: case.fsync }
        };
        let round = Round { workshop, subject: &*subjects[index], place, source, back: &back.path().join(BLOB) };
        let outcome = round.run(case.down, f64::from(mib)).await;
        if case.bucket {
            workshop.server()?.remove_bucket(&bucket).await?;
        }
        outcome
    })
    .await;
    Ok(Table { title: format!("{mib} MiB, {}", case.title), metrics: metrics(case), entries, targets: targets(case) })
}

/// One subject's turn.
struct Round<'a> {
    workshop: &'a Workshop,
    subject: &'a dyn MoveSubject,
    place: Place,
    source: &'a Path,
    back: &'a Path,
}

impl Round<'_> {
    async fn run(&self, down: bool, mib: f64) -> Result<Vec<f64>> {
        let sent = self.transfer(self.source, true).await.context("up")?;
        let mut samples = vec![mib / sent.seconds, sent.peak_mib];
        if down {
            let fetched = self.transfer(self.back, false).await.context("down")?;
            same(self.source, self.back)?;
            samples.extend([mib / fetched.seconds, fetched.peak_mib]);
        }
        Ok(samples)
    }

    async fn transfer(&self, local: &Path, up: bool) -> Result<Moved> {
        settle().await?;
        let job = Job {
            subject: self.subject.name(),
            place: self.place.clone(),
            local: local.to_owned(),
            what: What::File,
            up,
            parallel: PARALLEL,
            tools: self.workshop.tools().to_owned(),
        };
        job.spawn().await
    }
}

fn ways(case: &Case) -> &'static [&'static str] {
    if case.down { &["up", "down"] } else { &["up"] }
}

fn metrics(case: &Case) -> Vec<Metric> {
    let of = |way: &&str| {
        [
            Metric { name: (*way).to_owned(), unit: "MiB/s".to_owned(), better: Better::Higher },
            Metric { name: format!("peak memory {way}"), unit: "MiB".to_owned(), better: Better::Lower },
        ]
    };
    ways(case).iter().flat_map(of).collect()
}

fn targets(case: &Case) -> Vec<Target> {
    let place = if case.bucket { "SeaweedFS" } else { "a folder" };
    let of = |way: usize| {
        [
            Target {
                metric: 2 * way,
                goal: Goal::Ratio { against: Role::Peer, at_least: 0.95 },
                group: format!("remote: 1 GiB, {place}, the best of object_store, OpenDAL, rclone"),
            },
            Target { metric: 2 * way + 1, goal: Goal::AtMost(MEMORY), group: "remote: 1 GiB, peak memory in MiB".to_owned() },
        ]
    };
    (0..ways(case).len()).flat_map(of).collect()
}
