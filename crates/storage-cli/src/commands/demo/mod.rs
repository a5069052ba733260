//! `storage demo`: the whole toolkit at work on real files.

mod files;
mod report;
mod verify;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use clap::{Args, ValueHint};
use storage_core::{BlobPath, ConsumerOptions, Error, QueueName, Result};
use storage_facade::{Component, Storage};
use storage_tasks::{NewTask, SubmitOptions, TaskContext, TaskFailure, TaskStore, TaskWorker, WorkerOptions};

use self::files::{Counted, Found};
use self::report::{Report, Speed};
use super::beside::Beside;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, count, size};
use crate::progress;

/// Where the demo keeps what it stores, where nothing is configured.
const FOLDER: &str = "storage-demo";
const URL: &str = "sqlite:///storage-demo/storage.db";
/// The kind of its tasks.
const KIND: &str = "count-file";
/// How many files are read at once. Enough for many ends of tasks to share one write to the disk.
const CONCURRENCY: usize = 64;

#[derive(Args, Debug)]
#[command(after_help = "\
Without configuration what it stores is in ./storage-demo, which can be removed afterwards; with one, or with --url, it is there.
It exits with 1 where its counts don't come out right.

Examples:
  storage demo
  storage demo /usr/share/doc
  storage demo --url memory:")]
pub(crate) struct DemoArgs {
    /// The folder whose files are counted; .git, target and the demo's own files are left out
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
    /// So many files at most
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_files: u32,
}

/// One run of the demo.
struct Demo<'a> {
    /// Tells it from other runs: the resource of its tasks, the folder of its blobs.
    run: String,
    queue: QueueName,
    tasks: TaskStore,
    storage: &'a Storage,
    out: &'a Out,
}

/// What the workers counted, by task; and when the last one was done, since a worker that drains waits a little to see whether more comes.
type Tally = Arc<Mutex<(HashMap<String, Counted>, Option<Instant>)>>;

pub(crate) async fn run(args: DemoArgs, context: &Context) -> Result<(), Failure> {
    let is_default = context.default_to(URL).await?;
    if is_default {
        std::fs::create_dir_all(FOLDER)
            .map_err(|e| Error::from(e).with_operation("demo").with_subject(format!("folder {FOLDER}")))?;
    }
    let storage = context.storage().await?;
    let suffix = uuid::Uuid::new_v4().simple().to_string();
    let run = format!("{}-{}", Utc::now().format("%Y%m%d-%H%M%S"), suffix.get(..4).unwrap_or_default());
    let queue = QueueName::new(format!("demo-{run}"))?;
    let tasks = storage.tasks().await?;
    let demo = Demo { run, queue, tasks, storage, out: &context.out };
    let outcome = tokio::select! {
        outcome = demo.all(&args, is_default) => outcome,
        signal = context.signals.next() => Err(Failure::Signal(signal)),
    };
    // Its queue is of no use to anybody else, however it ended.
    let removed = demo.tasks.queues().delete_queue(&demo.queue).await;
    outcome?;
    removed?;
    Ok(())
}

impl Demo<'_> {
    async fn all(&self, args: &DemoArgs, is_default: bool) -> Result<(), Failure> {
        let began = Utc::now();
        let own = self.own_places().await?;
        let max = usize::try_from(args.max_files).unwrap_or(usize::MAX);
        let found = files::find(&args.folder, own, max).await?;
        self.introduce(&args.folder, &found).await?;
        let submitting = self.submit(&found).await?;
        let (counted, working) = self.work(&args.folder, found.files.len()).await?;
        let report = Report::new(&self.run, &args.folder, &counted, submitting, working);
        let blob = BlobPath::new(format!("demo/{}/report.json", self.run))?;
        let written = serde_json::to_vec_pretty(&report)?;
        let blobs = self.storage.blobs().await?;
        blobs.put(&blob, written.clone()).await?;
        let checks = verify::all(self, &counted, began, (&blobs, &blob, &written)).await?;
        report.show(self.out, &checks)?;
        if !self.out.is_json() {
            self.what_next(is_default, &blob)?;
        }
        self.out.flush()?;
        if checks.iter().all(|check| check.ok) { Ok(()) } else { Err(Failure::Silent(1)) }
    }

    /// Where this store's own files are, if it has any.
    async fn own_places(&self) -> Result<Vec<PathBuf>> {
        let mut places = vec![PathBuf::from(FOLDER)];
        for component in Component::ALL {
            let location = PathBuf::from(self.storage.info(component).await?.location);
            if location.is_absolute() {
                places.push(location);
            }
        }
        Ok(places)
    }

    async fn introduce(&self, folder: &Path, found: &Found) -> Result<(), Failure> {
        if found.files.is_empty() {
            return Err(Error::not_found(format!(
                "there are no files in {} to try it on: name another folder",
                folder.display()
            ))
            .into());
        }
        if found.more {
            self.out.note(format!("there are more files than {}: --max-files takes more of them", found.files.len()));
        }
        if found.skipped > 0 {
            self.out.note(format!("left out {} that can't be looked into", count(found.skipped, "entry", "entries")));
        }
        if self.out.is_json() {
            return Ok(());
        }
        let (tasks, blobs) = (self.storage.info(Component::TaskQueue).await?, self.storage.info(Component::Blobs).await?);
        let shown = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let files = count(found.files.len() as u64, "file", "files");
        self.out.details([
            ("run", self.run.clone()),
            ("files", format!("{} ({files}, {})", shown.display(), size(found.bytes))),
            ("tasks", format!("{} {}", tasks.driver, tasks.location)),
            ("blobs", format!("{} {}", blobs.driver, blobs.location)),
        ])?;
        self.out.line("")?;
        self.out.flush()
    }

    async fn submit(&self, found: &Found) -> Result<Speed> {
        const STEP: usize = 500;
        let started = Instant::now();
        let bar = progress::things(self.out, found.files.len() as u64, "submitted");
        for group in found.files.chunks(STEP) {
            let new = group.iter().map(|file| {
                let mut options = SubmitOptions::default().resource_id(&*self.run).task_id(&*file.task).queue(self.queue.clone());
                options.batch = Some(format!("demo {}", self.run));
                NewTask::new(KIND, file.relative.as_str()).with(options)
            });
            self.tasks.submit_all(new.collect()).await?;
            bar.inc(group.len() as u64);
        }
        bar.finish_and_clear();
        Ok(Speed::new(found.files.len() as u64, 0, started.elapsed()))
    }

    async fn work(&self, folder: &Path, total: usize) -> Result<(HashMap<String, Counted>, Speed)> {
        let started = Instant::now();
        let bar = progress::things(self.out, total as u64, "counted");
        let tally = Tally::default();
        let consumer = ConsumerOptions {
            concurrency: CONCURRENCY,
            prefetch: 4 * CONCURRENCY,
            visibility: Duration::from_secs(60),
            drain: true,
            ..ConsumerOptions::default()
        };
        let options = WorkerOptions { queue: Some(self.queue.clone()), consumer, ..WorkerOptions::default() };
        let (kept, shown, folder) = (Arc::clone(&tally), bar.clone(), folder.to_owned());
        let worker = TaskWorker::new(&self.tasks, options).on(KIND, move |context: TaskContext| {
            let (kept, shown, folder) = (Arc::clone(&kept), shown.clone(), folder.clone());
            async move {
                let task = context.task;
                let relative = task.input.as_str().unwrap_or_default().to_owned();
                let counted = tokio::task::spawn_blocking(move || files::count(&folder, relative)).await;
                let counted = counted.map_err(TaskFailure::retry)?;
                let answer = match &counted.failure {
                    None => serde_json::to_value(&counted).map_err(TaskFailure::retry),
                    Some(reason) => Err(TaskFailure::fatal(reason)),
                };
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.0.insert(task.task_id, counted);
                kept.1 = Some(Instant::now());
                shown.inc(1);
                answer
            }
        });
        let beside = Beside::start(self.storage, &self.tasks).await?;
        let ran = worker.run(std::future::pending()).await;
        beside.end().await;
        ran?;
        bar.finish_and_clear();
        let (counted, last) = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
        let bytes = counted.values().map(|c| c.bytes).sum();
        let took = last.unwrap_or_else(Instant::now).saturating_duration_since(started);
        let speed = Speed::new(counted.len() as u64, bytes, took);
        Ok((counted, speed))
    }

    fn what_next(&self, is_default: bool, blob: &BlobPath) -> Result<(), Failure> {
        let storage = if is_default { format!("storage --url {URL}") } else { "storage".to_owned() };
        let run = &self.run;
        let same = if is_default { "" } else { " (with the same --config or --url, where you gave one)" };
        self.out.line(format!("\nLook around{same}:"))?;
        self.out.line(format!("  {storage} task ls --resource {run} --limit 5"))?;
        self.out.line(format!("  {storage} event ls --since 1m --limit 5"))?;
        self.out.line(format!("  {storage} blob get {blob} -"))?;
        if is_default {
            self.out.line(format!("All of it is in ./{FOLDER}, which can be removed."))?;
        }
        Ok(())
    }
}
