//! `storage task`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use storage_core::{Error, QueueName, Result};
use storage_tasks::{
    Cancel, FollowOptions, NewTask, SubmitOptions, Submitted, Task, TaskFilter, TaskFollower, TaskId, TaskStatus, TaskStore,
    TaskToken,
};
use tokio::io::BufReader;

use crate::args::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::input;
use crate::output::{Out, count, time};

/// How many lines of stdin are submitted together.
const BATCH: usize = 500;

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Submit a task, or one for each line of stdin
    #[command(after_help = "\
Examples:
  storage task submit thumbnail --input '{\"file\": \"cat.jpg\"}'
  storage task submit thumbnail --text cat.jpg --wait 30s
  ls *.jpg | storage task submit thumbnail - --text-lines
  storage worker --drain -- ./make-thumbnail.sh          runs them")]
    Submit(SubmitArgs),
    /// Show a task
    Get(WhichArgs),
    /// List tasks
    Ls(ListArgs),
    /// Run a task again that failed or was cancelled
    Retry(WhichArgs),
    /// Cancel a task: one that waits is finished by that, a running one is asked to stop
    Cancel(WhichArgs),
    /// Remove a task (its events and result stay)
    Delete(WhichArgs),
}

#[derive(Args, Debug)]
pub(crate) struct SubmitArgs {
    /// What is to be done: workers choose by it
    kind: String,
    /// `-`: each line of stdin is the input of a task, as JSON
    #[arg(value_parser = ["-"], conflicts_with_all = ["input", "text", "id", "wait"])]
    lines: Option<String>,
    /// What the worker is given, as JSON
    #[arg(long, short, value_name = "JSON", conflicts_with = "text")]
    input: Option<String>,
    /// What the worker is given, as text
    #[arg(long, short)]
    text: Option<String>,
    /// Lines of stdin are text, not JSON
    #[arg(long, requires = "lines")]
    text_lines: bool,
    #[command(flatten)]
    options: OptionArgs,
    /// The task's id: submitted twice, it runs once [default: a fresh one]
    #[arg(long)]
    id: Option<String>,
    /// Wait so long for the result, and print it
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
}

/// How tasks are submitted, by hand or by a schedule.
#[derive(Args, Debug)]
pub(crate) struct OptionArgs {
    /// What the task is about: a tenant, a project [default: default]
    #[arg(long, short)]
    resource: Option<String>,
    /// The batch that it is part of
    #[arg(long)]
    batch: Option<String>,
    /// 0 to 9; higher ones run first
    #[arg(long, value_name = "N", default_value_t = 0)]
    priority: u8,
    /// It does not start before
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<Duration>,
    /// Where it has not been started by then, it fails
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// How often it may be started [default: 10]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// The queue that its message goes to [default: tasks]
    #[arg(long)]
    queue: Option<QueueName>,
}

impl OptionArgs {
    pub(crate) fn options(&self) -> SubmitOptions {
        SubmitOptions {
            resource_id: self.resource.clone(),
            task_id: None,
            batch: self.batch.clone(),
            blob: None,
            priority: self.priority,
            delay: self.delay.unwrap_or_default(),
            ttl: self.ttl,
            max_attempts: self.max_attempts,
            queue: self.queue.clone(),
        }
    }
}

/// Which task.
#[derive(Args, Debug)]
pub(crate) struct WhichArgs {
    /// The task's id, alone or with its resource: RESOURCE/ID
    pub(crate) id: String,
    /// What the task is about, where the id alone does not say
    #[arg(long, short)]
    pub(crate) resource: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// pending, running, succeeded, failed or cancelled; several by commas
    #[arg(long, short, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    status: Vec<TaskStatus>,
    /// Those of a kind
    #[arg(long, short)]
    kind: Option<String>,
    /// Those of a resource
    #[arg(long, short)]
    resource: Option<String>,
    /// Those of a batch
    #[arg(long)]
    batch: Option<String>,
    /// So many at most
    #[arg(long, short, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on where an earlier listing ended
    #[arg(long, value_name = "TOKEN")]
    after: Option<TaskToken>,
}

fn status(text: &str) -> Result<TaskStatus, String> {
    text.parse().map_err(|e: Error| e.message().to_owned())
}

pub(crate) async fn run(command: TaskCommand, context: &Context) -> Result<(), Failure> {
    let (out, tasks) = (&context.out, context.storage().await?.tasks().await?);
    if !matches!(command, TaskCommand::Submit(_)) {
        catch_up(&tasks).await;
    }
    match command {
        TaskCommand::Submit(args) if args.lines.is_some() => submit_lines(&args, &tasks, out).await,
        TaskCommand::Submit(args) => submit(args, &tasks, context).await,
        TaskCommand::Get(which) => show(&find(&tasks, &which).await?, out),
        TaskCommand::Ls(args) => list(args, &tasks, out).await,
        TaskCommand::Retry(which) => {
            let task = tasks.retry(find(&tasks, &which).await?.id()).await?;
            out.done(&task, || format!("task {} runs again", name(&task.id())))
        }
        TaskCommand::Cancel(which) => match tasks.cancel(find(&tasks, &which).await?.id()).await? {
            Cancel::Cancelled(task) => out.done(&task, || format!("cancelled task {}", name(&task.id()))),
            Cancel::Requested(task) => out.done(&task, || format!("asked task {} to stop", name(&task.id()))),
            Cancel::Finished(task) => {
                Err(Error::conflict(format!("task {} is finished: {}", name(&task.id()), task.status)).into())
            }
        },
        TaskCommand::Delete(which) => {
            let id = find(&tasks, &which).await?.id();
            tasks.delete_task(id.clone()).await?;
            out.done(&json!({"resource_id": id.resource_id, "task_id": id.task_id, "deleted": true}), || {
                format!("removed task {}", name(&id))
            })
        }
    }
}

/// Writes down what another system's workers have said of tasks meanwhile. Where they can't be asked, tasks are shown as they are known.
pub(crate) async fn catch_up(tasks: &TaskStore) {
    if let Err(error) = TaskFollower::new(tasks, FollowOptions::default()).catch_up().await {
        tracing::warn!(%error, "can't learn what became of tasks");
    }
}

/// A task's id as people write it: without the resource where that is the default one.
pub(crate) fn name(id: &TaskId) -> String {
    if id.resource_id == storage_tasks::DEFAULT_RESOURCE { id.task_id.clone() } else { id.to_string() }
}

/// The task that an argument means.
pub(crate) async fn find(tasks: &TaskStore, which: &WhichArgs) -> Result<Task> {
    let missing = || Error::not_found(format!("there is no task `{}`", which.id));
    if let Some(resource) = &which.resource {
        return tasks.get_task(TaskId::new(resource, &which.id)).await?.ok_or_else(missing);
    }
    if let Some(task) = tasks.find_task(&which.id).await? {
        return Ok(task);
    }
    let Some((resource, id)) = which.id.split_once('/') else { return Err(missing()) };
    tasks.get_task(TaskId::new(resource, id)).await?.ok_or_else(missing)
}

/// The id that an argument means, where the task itself may be gone.
pub(crate) async fn find_id(tasks: &TaskStore, which: &WhichArgs) -> Result<TaskId> {
    match find(tasks, which).await {
        Ok(task) => Ok(task.id()),
        Err(error) if error.kind() == storage_core::ErrorKind::NotFound => Ok(match &which.resource {
            Some(resource) => TaskId::new(resource, &which.id),
            None => TaskId::from(&*which.id),
        }),
        Err(error) => Err(error),
    }
}

fn said(submitted: &Submitted) -> Value {
    let task = &submitted.task;
    json!({"resource_id": task.resource_id, "task_id": task.task_id, "kind": task.kind, "status": task.status, "new": submitted.is_new})
}

async fn submit(args: SubmitArgs, tasks: &TaskStore, context: &Context) -> Result<(), Failure> {
    let payload = match (&args.input, args.text) {
        (Some(json), _) => input::json_or_stdin(json, "the input").await?,
        (None, Some(text)) => Value::from(input::text_or_stdin(&text, "the input").await?),
        (None, None) => Value::Null,
    };
    let options = SubmitOptions { task_id: args.id, ..args.options.options() };
    let submitted = tasks.submit(args.kind, payload, options).await?;
    let id = submitted.task.id();
    if let Some(wait) = args.wait {
        return super::result::wait(&id, wait, context).await;
    }
    let out = &context.out;
    if out.is_json() {
        return out.json(&said(&submitted));
    }
    if !submitted.is_new {
        out.note(format!("there was a task of that id: {}", submitted.task.status));
    }
    // The id alone, so that `id=$(storage task submit …)` works.
    out.line(name(&id))
}

async fn submit_lines(args: &SubmitArgs, tasks: &TaskStore, out: &Out) -> Result<(), Failure> {
    const MAX_LINE: usize = 16 << 20;
    let mut stdin = BufReader::with_capacity(1 << 18, tokio::io::stdin());
    let (mut total, mut bytes, mut batch) = (0_u64, 0, Vec::with_capacity(BATCH));
    loop {
        let line = input::next_line(&mut stdin, MAX_LINE).await?;
        let end = line.is_none();
        if let Some(line) = line {
            bytes += line.len();
            let number = total + batch.len() as u64 + 1;
            let payload = payload_of(line, args.text_lines).map_err(|e| e.with_subject(format!("line {number} of stdin")))?;
            batch.push(NewTask::new(&*args.kind, payload).with(args.options.options()));
        }
        // A pipe that pauses does not keep what came before it waiting for long: batches are small in bytes, too.
        if end || batch.len() >= BATCH || bytes > MAX_LINE || stdin.buffer().is_empty() {
            let submitted = tasks.submit_all(std::mem::take(&mut batch)).await?;
            total += submitted.len() as u64;
            bytes = 0;
            if out.is_json() {
                submitted.iter().try_for_each(|submitted| out.json(&said(submitted)))?;
                out.flush()?;
            }
        }
        if end {
            break;
        }
    }
    if out.is_json() { Ok(()) } else { out.done(&(), || format!("submitted {}", count(total, "task", "tasks"))) }
}

fn payload_of(line: Vec<u8>, text: bool) -> Result<Value> {
    if text {
        return String::from_utf8(line).map(Value::from).map_err(|e| Error::invalid(format!("it is not UTF-8: {e}")));
    }
    serde_json::from_slice(&line)
        .map_err(|e| Error::invalid(format!("it is not JSON: {e}; --text-lines takes lines as they are")))
}

fn show(task: &Task, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(task);
    }
    let at = |label, at: Option<_>| at.map(|at| (label, time(at)));
    let text = |label, text: &Option<String>| text.clone().map(|text| (label, text));
    let rows = [
        Some(("task", task.task_id.clone())),
        Some(("resource", task.resource_id.clone())),
        Some(("kind", task.kind.clone())),
        Some(("status", if task.cancel_requested { format!("{}, asked to stop", task.status) } else { task.status.to_string() })),
        Some(("attempts", format!("{} of {}", task.attempts, task.max_attempts))),
        text("batch", &task.batch),
        Some(("queue", task.queue.clone())),
        (task.priority > 0).then(|| ("priority", task.priority.to_string())),
        at("submitted", Some(task.created_at)),
        at("not before", task.not_before),
        at("start by", task.start_by),
        at("started", task.started_at),
        at("finished", task.finished_at),
        text("blob", &task.blob),
        Some(("input", task.input.to_string())),
        task.output.as_ref().map(|output| ("output", output.to_string())),
        text("error", &task.error),
    ];
    out.details(rows.into_iter().flatten())
}

async fn list(args: ListArgs, tasks: &TaskStore, out: &Out) -> Result<(), Failure> {
    let filter =
        TaskFilter { status: args.status, kind: args.kind, resource_id: args.resource, task_id: None, batch: args.batch };
    let mut listing = out.listing(["TASK", "KIND", "STATUS", ">ATTEMPTS", "SUBMITTED", "ERROR"]);
    let (mut left, mut next) = (args.limit, args.after);
    loop {
        let page = tasks.list(&filter, left, next).await?;
        for task in &page.tasks {
            listing.row(task, || {
                let error = task.error.as_deref().unwrap_or_default().lines().next_back().unwrap_or_default().to_owned();
                let (status, attempts) = (task.status.to_string(), task.attempts.to_string());
                vec![name(&task.id()), task.kind.clone(), status, attempts, time(task.created_at), error]
            })?;
        }
        left = left.saturating_sub(u32::try_from(page.tasks.len()).unwrap_or(u32::MAX));
        next = page.next;
        if left == 0 || next.is_none() {
            break;
        }
    }
    let rows = listing.end()?;
    match next {
        Some(token) if out.is_json() => out.json(&json!({"next": token.to_string()})),
        Some(token) => {
            out.note(format!("there may be more: --after {token}"));
            Ok(())
        }
        None if rows == 0 && !out.is_json() => {
            out.note("no tasks");
            Ok(())
        }
        None => Ok(()),
    }
}
