//! `storage result`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use storage_core::Error;
use storage_tasks::{FollowOptions, TaskFollower, TaskId, TaskResult, TaskStatus};

use super::task::{self, WhichArgs, name};
use crate::args::duration;
use crate::context::Context;
use crate::exit::{Failure, one_line};
use crate::output::Out;

#[derive(Debug, Subcommand)]
pub(crate) enum ResultCommand {
    /// Print what a task answered
    #[command(after_help = "\
A text is printed as it is, anything else as JSON; with --json: status, times and error, too.
Exit codes: 1 where the task failed or was cancelled, 3 where there is no result (yet), 5 where it did not come in time.

Example:
  storage result get $(storage task submit thumbnail --text cat.jpg) --wait 1m")]
    Get(GetArgs),
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Wait so long for it
    #[arg(long, short, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
}

pub(crate) async fn run(command: ResultCommand, context: &Context) -> Result<(), Failure> {
    let ResultCommand::Get(args) = command;
    let storage = context.storage().await?;
    let tasks = storage.tasks().await?;
    task::catch_up(&tasks).await;
    let id = task::find_id(&tasks, &args.which).await?;
    if let Some(wait_for) = args.wait {
        return wait(&id, wait_for, context).await;
    }
    match storage.results().await?.get(id.clone()).await? {
        Some(result) => show(&result, &context.out),
        None => Err(match tasks.get_task(id.clone()).await? {
            Some(task) => {
                Error::not_found(format!("task {} has no result yet: it is {}; --wait waits for it", name(&id), task.status))
            }
            None => Error::not_found(format!("there is no task `{}`", name(&id))),
        }
        .into()),
    }
}

/// Waits for a task's result and prints it.
pub(crate) async fn wait(id: &TaskId, wait: Duration, context: &Context) -> Result<(), Failure> {
    let storage = context.storage().await?;
    let (tasks, results) = (storage.tasks().await?, storage.results().await?);
    let follower = TaskFollower::new(&tasks, FollowOptions::default());
    let found = tokio::select! {
        found = results.wait(id.clone(), wait) => found?,
        _ = follower.run(std::future::pending()) => None,
    };
    match found {
        Some(result) => show(&result, &context.out),
        None => Err(Error::timeout(format!(
            "task {} has no result after {}; does a worker run?",
            name(id),
            humantime::format_duration(wait)
        ))
        .into()),
    }
}

fn show(result: &TaskResult, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        out.json(result)?;
    } else {
        match &result.output {
            None => {}
            Some(Value::String(text)) => out.line(text)?,
            Some(value) => out.line(serde_json::to_string_pretty(value)?)?,
        }
        if let Some(blob) = &result.blob {
            out.note(format!("more of it is in blob {blob}"));
        }
    }
    match result.status {
        TaskStatus::Succeeded => Ok(()),
        status => {
            out.flush()?;
            let error = result.error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
            let verb = if status == TaskStatus::Cancelled { "was cancelled" } else { "failed" };
            out.note(one_line(&format!("storage: task {} {verb}{error}", name(&result.task()))));
            Err(Failure::Silent(1))
        }
    }
}
