//! `storage event`.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use futures::TryStreamExt as _;
use serde_json::json;
use storage_core::{PageToken, value};
use storage_tasks::{Event, EventFilter, EventStore, TailFrom};

use super::task::{self, WhichArgs, name};
use crate::args::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, printable};

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List what happened to tasks, oldest first
    Ls(ListArgs),
    /// Follow what happens to tasks, until Ctrl-C
    Tail(TailArgs),
}

#[derive(Args, Debug)]
pub(crate) struct FilterArgs {
    /// Those of a task
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// What the task is about, where its id alone does not say
    #[arg(long, short, requires = "task")]
    resource: Option<String>,
    /// submitted, started, retrying, cancel_requested, resubmitted, succeeded, failed, cancelled
    #[arg(long, short)]
    kind: Option<String>,
    /// Those at this time or later: 2026-11-21T09:30:00Z, or 1h for the last hour
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<DateTime<Utc>>,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Those before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<DateTime<Utc>>,
    /// So many at most
    #[arg(long, short, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on where an earlier listing ended
    #[arg(long, value_name = "TOKEN")]
    after: Option<PageToken>,
}

#[derive(Args, Debug)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Begin with the oldest event there is
    #[arg(long, conflicts_with = "since")]
    all: bool,
    /// End after so many
    #[arg(long, short, value_name = "N")]
    max: Option<u64>,
}

/// A moment: RFC 3339, or how long ago.
pub(crate) fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(ago) = duration(text) {
        return Ok(Utc::now() - ago);
    }
    let at = value::parse_timestamp(text);
    at.map_err(|_| format!("{text:?} is neither a time like 2026-11-21T09:30:00Z nor a span like 1h"))
}

async fn filter(args: FilterArgs, until: Option<DateTime<Utc>>, context: &Context) -> Result<EventFilter, Failure> {
    let task = match args.task {
        Some(id) => {
            let tasks = context.storage().await?.tasks().await?;
            Some(task::find_id(&tasks, &WhichArgs { id, resource: args.resource }).await?)
        }
        None => None,
    };
    Ok(EventFilter { task, kind: args.kind, since: args.since, until })
}

pub(crate) async fn run(command: EventCommand, context: &Context) -> Result<(), Failure> {
    let (out, events) = (&context.out, context.storage().await?.events().await?);
    match command {
        EventCommand::Ls(args) => {
            let filter = filter(args.filter, args.until, context).await?;
            list(&filter, args.limit, args.after, &events, out).await
        }
        EventCommand::Tail(args) => {
            let from = match (args.all, args.filter.since) {
                (true, _) => TailFrom::Beginning,
                (false, Some(since)) => TailFrom::Since(since),
                (false, None) => TailFrom::Now,
            };
            let filter = filter(args.filter, None, context).await?;
            follow(filter, from, args.max.unwrap_or(u64::MAX), &events, out).await
        }
    }
}

fn cells(event: &Event) -> Vec<String> {
    let data = |name: &str| event.data.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let error = data("error").lines().next_back().unwrap_or_default().to_owned();
    vec![value::timestamp(event.at), event.kind.clone(), name(&event.task()), data("kind"), error]
}

async fn list(filter: &EventFilter, limit: u32, after: Option<PageToken>, events: &EventStore, out: &Out) -> Result<(), Failure> {
    let page = events.list(filter, limit, after).await?;
    let mut listing = out.listing(["AT", "EVENT", "TASK", "KIND", "ERROR"]);
    for event in &page.events {
        listing.row(event, || cells(event))?;
    }
    let rows = listing.end()?;
    match page.next {
        Some(token) if out.is_json() => out.json(&json!({"next": token})),
        Some(token) => {
            out.note(format!("there is more: --after {token}"));
            Ok(())
        }
        None if rows == 0 && !out.is_json() => {
            out.note("no events");
            Ok(())
        }
        None => Ok(()),
    }
}

async fn follow(filter: EventFilter, from: TailFrom, max: u64, events: &EventStore, out: &Out) -> Result<(), Failure> {
    let mut seen = 0;
    let mut tail = events.tail(filter, from);
    while seen < max {
        let event = match tail.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(error) if error.is_retryable() => {
                out.note(format!("storage: {error}; trying again"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if out.is_json() {
            out.json(&event)?;
        } else {
            out.line(cells(&event).iter().map(|cell| printable(cell)).collect::<Vec<_>>().join("  ").trim_end())?;
        }
        out.flush()?;
        seen += 1;
    }
    Ok(())
}
