//! `storage worker`.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use storage_core::{ConsumerOptions, ConsumerReport, QueueName};
use storage_tasks::{Scheduler, SchedulerOptions, TaskContext, TaskFailure, TaskOutput, TaskWorker, WorkerOptions};

use super::beside::Beside;
use super::program::{Program, Run};
use super::task::name;
use crate::args::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, printable};
use crate::signals::Signals;

#[derive(Args, Debug)]
#[command(after_help = "\
The program gets the task's input on stdin (a text as it is, anything else as JSON), and TASK_ID, TASK_RESOURCE, TASK_KIND and TASK_ATTEMPT in its environment. What it writes to stdout is the result. Its exit code says how it went:
  0              done
  75             not now: try again later, which does not count as a failure
  anything else  failed: tried again later, as often as the task allows; then it has failed, with
                 the end of stderr as the reason, and its message is a dead letter
On a Celery app's queue (celery+amqp://) the input is {\"args\": [...], \"kwargs\": {...}}, the result is the app's, and the first failure of a task is final.
Dead letters: storage queue dead tasks. Run again: storage task retry ID.
Tasks are run at least once: a program should bear to be run twice on the same input.
Ctrl-C and SIGTERM: nothing new is begun, programs may finish; a second one stops them, and their tasks are run again elsewhere.

Examples:
  storage worker --concurrency 4 -- ./make-thumbnail.sh
  storage worker --kind report --drain -- python3 report.py
  storage worker -- sh -c 'curl -fsS \"$(cat)\" || exit 75'")]
pub(crate) struct WorkerArgs {
    /// Only tasks of this kind; can be given several times
    #[arg(long, short)]
    kind: Vec<String>,
    /// So many programs at once
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = concurrency)]
    concurrency: usize,
    /// End when there is nothing more to do; with --kind, of these kinds
    #[arg(long)]
    drain: bool,
    /// Take tasks from this queue
    #[arg(long)]
    queue: Option<QueueName>,
    /// A program that takes longer has failed
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// How soon a killed worker's tasks are run elsewhere (leases are renewed while programs run)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    visibility: Duration,
    /// How long programs may go on after Ctrl-C or SIGTERM
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    grace: Duration,
    /// The wait before a failed task is tried again; it doubles every time
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    retry_first: Duration,
    /// The longest such wait
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    retry_longest: Duration,
    /// The largest result on stdout, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_result: u32,
    /// Submit what schedules say, too (storage schedule run)
    #[arg(long)]
    with_schedules: bool,
    /// The program, and what it is given
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

fn concurrency(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=10_000).contains(n)).ok_or_else(|| "a number from 1 to 10000".into())
}

pub(crate) async fn run(args: WorkerArgs, context: &Context) -> Result<(), Failure> {
    let mut program = Program::new(&args.program)?;
    program.max_result = usize::try_from(args.max_result).unwrap_or(1024) << 10;
    program.timeout = args.timeout;
    program.show_stderr = context.verbosity() > 0;
    let storage = context.storage().await?;
    storage.serve_metrics()?;
    let tasks = storage.tasks().await?;
    let options = WorkerOptions {
        queue: args.queue.clone(),
        consumer: ConsumerOptions {
            concurrency: args.concurrency,
            // A program may run for hours: what waits behind it had better be with another worker.
            prefetch: 0,
            visibility: args.visibility,
            retry_first: args.retry_first,
            retry_longest: args.retry_longest,
            grace: args.grace,
            drain: args.drain,
        },
        foreign_delay: None,
    };
    let runner = Arc::new(Runner {
        program,
        signals: context.signals.clone(),
        out: Arc::clone(&context.out),
        verbose: context.verbosity() > 0,
    });
    let handler = move |context: TaskContext| {
        let runner = Arc::clone(&runner);
        async move { runner.run(&context).await }
    };
    let mut worker = TaskWorker::new(&tasks, options);
    worker = match args.kind.is_empty() {
        true => worker.on_any(handler),
        false => args.kind.iter().fold(worker, |worker, kind| worker.on(kind, handler.clone())),
    };
    let beside = Beside::start(storage, &tasks).await?;
    let schedules = match args.with_schedules {
        true => Some(Scheduler::new(&storage.schedules().await?, &tasks, SchedulerOptions::default())),
        false => None,
    };
    let scheduling = async {
        if let Some(scheduler) = &schedules {
            scheduler.run(context.signals.stop()).await;
        }
    };
    let working = worker.run(context.signals.stop());
    let telling = async {
        let _ = context.signals.next().await;
        context.out.note("storage: nothing new is begun, what runs may finish; once more stops it");
    };
    let report = tokio::select! {
        report = working => report,
        // These end at the signal that ends the worker, too, which may take its time.
        never = async { tokio::join!(scheduling, telling); std::future::pending().await } => never,
    };
    beside.end().await;
    summary(&report?, &context.out)
}

fn summary(report: &ConsumerReport, out: &Out) -> Result<(), Failure> {
    let ConsumerReport { done, retried, rejected, lost, released } = *report;
    if out.is_json() {
        return out.json(&json!({"done": done, "retried": retried, "failed": rejected, "lost": lost, "released": released}));
    }
    let rest = [(retried, "tried again later"), (rejected, "failed"), (lost, "lost to other workers"), (released, "given back")];
    let rest: Vec<_> = rest.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}")).collect();
    out.done(&(), || format!("{done} done{}", rest.concat()))
}

/// Runs the program for one task after another, and says how it went.
struct Runner {
    program: Program,
    signals: Signals,
    out: Arc<Out>,
    verbose: bool,
}

impl Runner {
    async fn run(&self, context: &TaskContext) -> Result<TaskOutput, TaskFailure> {
        let started = Instant::now();
        let run = self.program.run(context, &self.signals).await;
        // Nobody may be reading any more; the task is done all the same.
        let _ = self.report(context, &run, started.elapsed());
        run.answer
    }

    fn report(&self, context: &TaskContext, run: &Run, took: Duration) -> Result<(), Failure> {
        let task = &context.task;
        let last = task.attempts >= task.max_attempts;
        let (outcome, error) = match &run.answer {
            Ok(_) => ("done", None),
            Err(TaskFailure::Cancelled) => ("cancelled", None),
            Err(TaskFailure::Retry { reason, .. }) => (if last { "failed" } else { "retry" }, Some(reason)),
            Err(TaskFailure::Later { reason, .. }) => ("later", Some(reason)),
            Err(TaskFailure::Fatal { reason }) => ("failed", Some(reason)),
        };
        if self.out.is_json() {
            let mut line = json!({
                "resource_id": task.resource_id, "task_id": task.task_id, "kind": task.kind, "attempt": task.attempts,
                "outcome": outcome, "exit_code": run.exit_code, "seconds": took.as_secs_f64(),
            });
            if let Some(error) = error {
                line["error"] = Value::from(error.as_str());
            }
            self.out.json(&line)?;
        } else if self.verbose {
            let error =
                error.and_then(|error| error.lines().next_back()).map_or_else(String::new, |e| format!("  {}", printable(e)));
            let took = took.as_secs_f64();
            let attempt = format!("attempt {}", task.attempts);
            self.out.line(format!(
                "{outcome:9}  {}  {}  {attempt}  {took:.3} s{error}",
                printable(&task.kind),
                name(&task.id())
            ))?;
        }
        self.out.flush()
    }
}
