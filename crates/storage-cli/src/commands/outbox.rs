//! `storage outbox`.

use clap::Subcommand;
use serde_json::{Value, json};
use storage_core::outbox::{Outbox, OutboxEntry, OutboxState, Relayed};
use storage_core::{Error, PageToken};
use storage_facade::Storage;
use storage_tasks::{OutboxRelay, RelayOptions, Task};

use super::task::name;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, count, time};

/// How many rows are read at a time.
const PAGE: u32 = 100;

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxCommand {
    /// List the messages that wait or are set aside, and the tasks whose message is owed
    #[command(after_help = "\
Where records and queues are different backends, a batch's messages are written with its records, and sent once it has taken effect: at once,
or by a relay. A message that its queue keeps refusing is set aside; nothing is ever dropped.

Examples:
  storage outbox ls --failed                          what is set aside, and why
  storage outbox relay --once                         send what waits, now
  storage outbox relay                                send what waits, until Ctrl-C; `storage worker` does so, too
  storage outbox retry --all                          once more with what is set aside")]
    Ls {
        /// Only what is set aside
        #[arg(long)]
        failed: bool,
        /// So many at most
        #[arg(long, short, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Send what waits, until Ctrl-C or SIGTERM; any number may run
    Relay {
        /// Send what waits now, and end
        #[arg(long)]
        once: bool,
    },
    /// Try messages again now that are set aside, or that wait for their next try
    Retry {
        /// The messages
        #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All that are set aside
        #[arg(long)]
        all: bool,
    },
    /// Remove messages for good: they are not sent
    Rm {
        /// The messages
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        /// Fine if one is not there
        #[arg(long)]
        missing_ok: bool,
    },
}

pub(crate) async fn run(command: OutboxCommand, context: &Context) -> Result<(), Failure> {
    let (out, storage) = (&context.out, context.storage().await?);
    let outbox = storage.outbox().await?;
    match command {
        OutboxCommand::Ls { failed, limit } => list(failed, limit, outbox.as_ref(), storage, out).await,
        OutboxCommand::Relay { once: true } => relay_once(outbox.as_ref(), storage, out).await,
        OutboxCommand::Relay { once: false } => relay(outbox.as_ref(), context).await,
        OutboxCommand::Retry { all: true, .. } => {
            let retried = there(outbox.as_ref())?.retry_failed().await?;
            out.done(&json!({"retried": retried}), || format!("{} due again", count(retried, "message is", "messages are")))
        }
        OutboxCommand::Retry { ids, .. } => {
            for id in ids {
                if !there(outbox.as_ref())?.retry(&id).await? {
                    return Err(missing(&id).into());
                }
                out.done(&json!({"id": id, "retried": true}), || format!("message {id} is due now"))?;
            }
            Ok(())
        }
        OutboxCommand::Rm { ids, missing_ok } => {
            for id in ids {
                let removed = there(outbox.as_ref())?.remove(&id).await?;
                if !removed && !missing_ok {
                    return Err(missing(&id).into());
                }
                out.done(&json!({"id": id, "removed": removed}), || match removed {
                    true => format!("removed message {id}: it is not sent"),
                    false => format!("there was no message {id}"),
                })?;
            }
            Ok(())
        }
    }
}

/// The outbox, where this configuration has one.
fn there(outbox: Option<&Outbox>) -> Result<&Outbox, Error> {
    outbox.ok_or_else(|| {
        Error::not_found(
            "there is no outbox: `records` and `task_queue` are one store, whose batches send their messages themselves, or the batches of `records` can't \
             hold messages",
        )
    })
}

fn missing(id: &str) -> Error {
    Error::not_found(format!(
        "there is no message `{id}` in the outbox, or it was sent just now: `storage outbox ls` shows them (tasks that failed: storage task retry)"
    ))
}

async fn list(failed: bool, limit: u64, outbox: Option<&Outbox>, storage: &Storage, out: &Out) -> Result<(), Failure> {
    let mut listing = out.listing(["ID", "WHAT", "QUEUE", "SINCE", ">TRIES", "NEXT", "ERROR"]);
    let (mut left, mut after): (u64, Option<PageToken>) = (limit, None);
    let state = if failed { OutboxState::Failed } else { OutboxState::All };
    while let Some(outbox) = outbox.filter(|_| left > 0) {
        let page = outbox.list(state, page_of(left), after.take()).await?;
        for entry in &page.entries {
            left -= 1;
            listing.row(&message_json(entry)?, || message_row(entry))?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    after = None;
    let mut unread = None;
    while !failed && left > 0 {
        let page = match storage.owed_tasks(page_of(left), after.take()).await {
            Ok(page) => page,
            // Their rows may be where the queue is, and that away: what waits here is shown all the same.
            Err(error) => {
                unread = Some(error);
                break;
            }
        };
        for task in &page.tasks {
            left -= 1;
            listing.row(&task_json(task), || task_row(task))?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let shown = listing.end()?;
    if let Some(error) = unread {
        return Err(error.into());
    }
    if shown == 0 && !out.is_json() {
        out.note(if failed { "nothing is set aside" } else { "nothing waits to be sent" });
    }
    Ok(())
}

fn page_of(left: u64) -> u32 {
    u32::try_from(left).map_or(PAGE, |left| left.min(PAGE))
}

fn message_json(entry: &OutboxEntry) -> Result<Value, Error> {
    let mut object = serde_json::to_value(entry)?;
    object["what"] = "message".into();
    Ok(object)
}

fn message_row(entry: &OutboxEntry) -> Vec<String> {
    let next = match (entry.due_at, entry.claimed_until) {
        (None, _) => "set aside".to_owned(),
        (Some(_), Some(until)) => format!("in hand until {}", time(until)),
        (Some(due), None) => time(due),
    };
    let error = entry.error.clone().unwrap_or_default();
    let tries = entry.attempts.to_string();
    vec![entry.id.clone(), "message".into(), entry.queue.to_string(), time(entry.created_at), tries, next, error]
}

fn task_json(task: &Task) -> Value {
    json!({
        "what": "task", "resource_id": task.resource_id, "task_id": task.task_id, "kind": task.kind, "queue": task.queue,
        "created_at": task.created_at, "unsent": task.unsent,
    })
}

fn task_row(task: &Task) -> Vec<String> {
    let since = task.unsent.map_or_else(|| "-".into(), time);
    vec![name(&task.id()), "task".into(), task.queue.clone(), since, "-".into(), "-".into(), String::new()]
}

async fn relay_once(outbox: Option<&Outbox>, storage: &Storage, out: &Out) -> Result<(), Failure> {
    let messages = match outbox {
        Some(outbox) => outbox.drain().await?,
        None => Relayed::default(),
    };
    // Where none are owed, neither tables nor queues are made for it.
    let tasks = match storage.owed_tasks(1, None).await?.tasks.is_empty() {
        true => 0,
        false => OutboxRelay::new(&storage.tasks().await?, RelayOptions::default()).drain().await?,
    };
    report(messages, tasks, out)
}

async fn relay(outbox: Option<&Outbox>, context: &Context) -> Result<(), Failure> {
    let storage = context.storage().await?;
    storage.serve_metrics()?;
    let tasks = storage.tasks().await?;
    let messages = async {
        match outbox {
            Some(outbox) => outbox.run(context.signals.stop()).await,
            None => Relayed::default(),
        }
    };
    let relay = OutboxRelay::new(&tasks, RelayOptions::default());
    let (messages, tasks) = tokio::join!(messages, relay.run(context.signals.stop()));
    report(messages, tasks, &context.out)
}

fn report(messages: Relayed, tasks: u64, out: &Out) -> Result<(), Failure> {
    let Relayed { sent, refused, failed, waiting } = messages;
    let said = json!({"sent": sent, "refused": refused, "failed": failed, "waiting": waiting, "tasks": tasks});
    out.done(&said, || {
        let rest = [(refused, "refused, tried again later"), (failed, "set aside"), (waiting, "could not be sent now")];
        let rest: Vec<_> = rest.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}")).collect();
        let tasks = if tasks > 0 { format!(", {}", count(tasks, "task", "tasks")) } else { String::new() };
        format!("sent {}{tasks}{}", count(sent, "message", "messages"), rest.concat())
    })
}
