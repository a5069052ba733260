//! Celery: tasks into a queue of RabbitMQ, by the toolkit's client and by Python's `send_task`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde::Deserialize;
use storage_core::DriverConfig;
use storage_queue_amqp::celery::{Celery, Task};
use tokio::process::Command;

use super::{BODY, at_least, fresh_name, rate};
use crate::context::Context;
use crate::measure::{Lane, interleave};
use crate::queue::answer;
use crate::queue::drive::body;
use crate::report::Table;
use crate::subject::Role;

/// Tasks to a call of the toolkit.
const BATCH: usize = 1_000;
/// Python sends so slowly that a part of the tasks is enough: rates are compared.
const PART: usize = 5;
/// How long what nobody confirmed may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Where tasks go, and by what Python sends them.
pub(super) struct Place<'a> {
    pub(super) address: &'a str,
    /// The interpreter, or why there is none; nothing where peers are left out.
    pub(super) python: Option<&'a Result<PathBuf, String>>,
}

/// Who sends.
#[derive(Clone, Copy)]
enum Sender {
    Ours,
    Python { confirm: bool },
}

impl Sender {
    fn lane(self, place: &Place<'_>) -> Lane {
        let (subject, role, note) = match self {
            Self::Ours => ("storage-queue-amqp, Celery", Role::Ours, "confirms in flight together"),
            Self::Python { confirm: true } => {
                ("Celery 5.7, send_task, confirmed", Role::Peer, "a task and its confirm at a time")
            }
            Self::Python { confirm: false } => (
                "Celery 5.7, send_task, unconfirmed",
                Role::Information,
                "its default: nobody waits until the broker has a task; the time ends with the last call, not with the last arrival",
            ),
        };
        let unable = match (self, place.python) {
            (Self::Python { .. }, Some(Err(reason))) => Some(reason.clone()),
            _ => None,
        };
        Lane { subject: subject.to_owned(), role, note: note.to_owned(), unable }
    }

    /// Sends one task, which connects and makes the queue, then as many as are told. Answers the seconds of the latter.
    async fn send(self, place: &Place<'_>, home: &Context, queue: &str, count: usize) -> Result<f64> {
        match (self, place.python) {
            (Self::Ours, _) => ours(place.address, queue, count).await,
            (Self::Python { confirm }, Some(Ok(python))) => {
                let mut command = Command::new(python);
                command.arg("-B").arg(home.home.join("peers/celery_peer.py"));
                command.args(["--address", place.address, "--queue", queue]).args(confirm.then_some("--confirm"));
                command.args(["--body", &BODY.to_string(), "--messages", &count.to_string()]);
                let round: PythonRound = answer("Celery", &mut command).await?;
                Ok(round.send_seconds)
            }
            (Self::Python { .. }, _) => bail!("Celery can't run here"),
        }
    }
}

/// What the Python program prints.
#[derive(Deserialize)]
struct PythonRound {
    send_seconds: f64,
}

async fn ours(address: &str, queue: &str, count: usize) -> Result<f64> {
    let url = format!("celery+{}?results=none", address.trim_end_matches('/'));
    let celery = Celery::open(&DriverConfig::from_url(&url))?;
    let bodies = (0..=count).map(|number| Ok(String::from_utf8(body(number, BODY).to_vec())?)).collect::<Result<Vec<_>>>()?;
    let task = |text: &String| Task::new("bench.work").arg(text.as_str());
    celery.send(queue, &task(&bodies[0])).await?;
    let started = Instant::now();
    for texts in bodies[1..].chunks(BATCH) {
        let tasks: Vec<Task> = texts.iter().map(task).collect();
        celery.send_all(queue, &tasks).await?;
    }
    Ok(started.elapsed().as_secs_f64())
}

pub(super) fn title() -> String {
    format!("Celery tasks into RabbitMQ, one producer, {BATCH} to a call of the toolkit, arguments of {BODY} B")
}

pub(super) async fn table(context: &Context, place: &Place<'_>) -> Table {
    let mut senders = vec![Sender::Ours];
    if place.python.is_some() {
        senders.extend([true, false].map(|confirm| Sender::Python { confirm }));
    }
    let lanes: Vec<(Sender, Lane)> = senders.into_iter().map(|sender| (sender, sender.lane(place))).collect();
    let (senders, lanes): (Vec<_>, Vec<_>) =
        lanes.into_iter().filter(|(_, lane)| lane.subject.contains(&context.subject)).unzip();
    let all = if context.quick { 2_000 } else { 20_000 };
    let entries = interleave(lanes, context.rounds, async |index| {
        let count = if matches!(senders[index], Sender::Ours) { all } else { all / PART };
        let queue = fresh_name();
        let sent = senders[index].send(place, context, &queue, count).await;
        let arrived = take_away(place.address, &queue, count + 1).await;
        let seconds = sent?;
        let arrived = arrived?;
        ensure!(arrived == count + 1, "{arrived} of {} tasks arrived", count + 1);
        Ok(vec![rate(count, seconds)])
    })
    .await;
    let targets = vec![at_least(0, Role::Peer, 10.0, "Celery: Python's send_task, confirmed")];
    Table { title: title(), metrics: vec![super::metric("send", "tasks/s")], entries, targets }
}

/// Waits until so many tasks have arrived, counts them, and removes the queue.
async fn take_away(address: &str, queue: &str, count: usize) -> Result<usize> {
    let connection = Connection::connect(address.trim_end_matches('/'), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let since = Instant::now();
    let arrived = loop {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let arrived = channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count() as usize;
        if arrived >= count || since.elapsed() > ARRIVAL {
            break arrived;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    connection.close(200, "done".into()).await?;
    Ok(arrived)
}
