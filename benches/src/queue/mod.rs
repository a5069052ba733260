//! Section `queue`: a message queue on SQLite.

mod apalis;
pub mod drive;
mod peers;
mod raw;

pub(crate) use peers::{answer, last_line};

use std::path::Path;

use anyhow::{Result, ensure};
use async_trait::async_trait;

use crate::context::Context;
use crate::measure::{Lane, interleave};
use crate::ours;
use crate::report::{Better, Goal, Metric, Section, Table, Target};
use crate::subject::{Durability, Named, QueueCase, QueueRound, QueueSubject, Role};

const INTRO: &str = "\
Producers send every message (of a queue that starts empty, in a database file that starts empty), then as many consumers receive, \
check and delete until nothing is left. *Send* is messages per second of the first part, *drain* of the second. After each round: \
every message arrived with its own body, and the queue is empty. A peer without a call for many messages makes one per message.";

/// Every subject of the section.
async fn subjects(context: &Context) -> Vec<Box<dyn QueueSubject>> {
    let mut subjects: Vec<Box<dyn QueueSubject>> = Vec::new();
    subjects.extend(ours::queue::subjects());
    subjects.push(Box::new(Raw(raw::Sharing::Mutex)));
    subjects.push(Box::new(Raw(raw::Sharing::Each)));
    subjects.push(Box::new(Apalis));
    if !context.no_peers {
        subjects.extend(peers::all(context).await);
    }
    subjects.retain(|subject| subject.name().contains(&context.subject));
    subjects
}

/// The matrix: durability × workers × batch × body.
fn cases(context: &Context) -> Vec<QueueCase> {
    let (singles, many) = if context.quick { (64, 1_600) } else { (2_000, 16_000) };
    let mut cases = Vec::new();
    for sync in [Durability::Full, Durability::Normal] {
        for workers in [1, 8] {
            for (batch, messages) in [(1, singles), (100, many)] {
                for body in [100, 4_096] {
                    if context.quick && (sync == Durability::Normal || body != 100) {
                        continue;
                    }
                    cases.push(QueueCase { sync, workers, batch, body, messages });
                }
            }
        }
    }
    cases
}

/// Measures the whole matrix.
pub async fn run(context: &Context) -> Result<Section> {
    let subjects = subjects(context).await;
    let mut tables = Vec::new();
    for case in cases(context).into_iter().filter(|case| title(case).contains(&context.case)) {
        context.progress(&format!("queue: {}", title(&case)));
        tables.push(table(context, &subjects, &case).await);
    }
    Ok(context.section("queue", "SQLite queue", INTRO, tables))
}

async fn table(context: &Context, subjects: &[Box<dyn QueueSubject>], case: &QueueCase) -> Table {
    let lanes = subjects
        .iter()
        .filter(|subject| !(case.workers == 1 && subject.name() == Raw(raw::Sharing::Each).name()))
        .collect::<Vec<_>>();
    let described = lanes
        .iter()
        .map(|subject| Lane { subject: subject.name(), role: subject.role(), note: subject.note(), unable: subject.unable(case) })
        .collect();
    let mut settings = vec![String::new(); lanes.len()];
    let mut entries = interleave(described, context.rounds, async |index| {
        let subject = &lanes[index];
        let case = fit(case, &***subject);
        let dir = context.folder()?;
        let round = subject.round(dir.path(), &case).await?;
        verify(&case, &round)?;
        settings[index] = describe(&round);
        #[allow(clippy::cast_precision_loss)] // counts of messages are far below 2^52
        let messages = case.messages as f64;
        Ok(vec![messages / round.send_seconds, messages / round.drain_seconds])
    })
    .await;
    for (entry, settings) in entries.iter_mut().zip(settings) {
        entry.note = [entry.note.as_str(), &settings].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
    }
    let metric = |name: &str| Metric { name: name.to_owned(), unit: "messages/s".to_owned(), better: Better::Higher };
    Table { title: title(case), metrics: vec![metric("send"), metric("drain")], entries, targets: targets(case) }
}

/// The case with as many messages as the subject can take, every worker still having the same number of full batches.
fn fit(case: &QueueCase, subject: &dyn QueueSubject) -> QueueCase {
    let unit = case.workers * case.batch;
    let most = (subject.longest_round() / unit).max(1) * unit;
    QueueCase { messages: case.messages.min(most), ..*case }
}

fn title(case: &QueueCase) -> String {
    let QueueCase { sync, workers, batch, body, .. } = case;
    format!("synchronous={}, {workers} at once, batches of {batch}, bodies of {body} B", sync.pragma())
}

fn targets(case: &QueueCase) -> Vec<Target> {
    if case.sync == Durability::Normal {
        return Vec::new();
    }
    let peer = if case.workers == 1 { 1.0 } else { 5.0 };
    let at = format!("{} at once", case.workers);
    let target = |metric, against, at_least, group: String| Target { metric, goal: Goal::Ratio { against, at_least }, group };
    (0..2)
        .flat_map(|metric| {
            [
                target(metric, Role::Baseline, 0.7, "queue, FULL: raw rusqlite, same batch".to_owned()),
                target(metric, Role::Peer, peer, format!("queue, FULL: the best peer, {at}")),
            ]
        })
        .collect()
}

/// Fails when a message is missing or left; duplicates are legal in a queue that delivers at least once, and reported.
fn verify(case: &QueueCase, round: &QueueRound) -> Result<()> {
    ensure!(round.delivered == case.messages, "{} of {} messages were delivered", round.delivered, case.messages);
    ensure!(round.left == 0, "{} messages were left in the queue", round.left);
    Ok(())
}

fn describe(round: &QueueRound) -> String {
    match round.duplicates {
        0 => round.settings.clone(),
        n => format!("{}; {n} messages were given to two consumers", round.settings),
    }
}

struct Raw(raw::Sharing);

impl Named for Raw {
    fn name(&self) -> String {
        match self.0 {
            raw::Sharing::Mutex => "raw rusqlite".to_owned(),
            raw::Sharing::Each => "raw rusqlite, a connection each".to_owned(),
        }
    }

    fn role(&self) -> Role {
        Role::Baseline
    }
}

#[async_trait]
impl QueueSubject for Raw {
    async fn round(&self, dir: &Path, case: &QueueCase) -> Result<QueueRound> {
        let handles = raw::open(dir, case, self.0)?;
        let case = *case;
        tokio::task::spawn_blocking(move || drive::drive_sync(handles, case)).await?
    }
}

struct Apalis;

impl Named for Apalis {
    fn name(&self) -> String {
        "apalis-sqlite 1.0".to_owned()
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn note(&self) -> String {
        "through its queries, without its worker's polling pauses and second lock step; done rows stay in the table".to_owned()
    }
}

#[async_trait]
impl QueueSubject for Apalis {
    fn longest_round(&self) -> usize {
        1_600
    }

    async fn round(&self, dir: &Path, case: &QueueCase) -> Result<QueueRound> {
        drive::drive_async(apalis::open(dir, case).await?, *case).await
    }
}
