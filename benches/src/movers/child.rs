//! One job in a process of its own, so that time and memory are its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::Place;
use crate::blobs::peak_kib;
use crate::queue::last_line;
use crate::subject::MoveSubject;

/// How long a job may take.
const LIMIT: Duration = Duration::from_secs(600);

/// What is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// One file, which is the blob [`BLOB`](super::BLOB).
    File,
    /// All files below a folder.
    Folder,
}

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The subject's name.
    pub subject: String,
    /// One side.
    pub place: Place,
    /// The other: a file or a folder.
    pub local: PathBuf,
    /// What is moved.
    pub what: What,
    /// Into the place; without it, out of it.
    pub up: bool,
    /// How many files, or parts of a file, at once.
    pub parallel: usize,
    /// Where the programs are.
    pub tools: PathBuf,
}

/// What a job took.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Seconds, the start of the process included.
    pub seconds: f64,
    /// The highest resident memory of the process that did the work, in MiB.
    pub peak_mib: f64,
}

/// What the child answers: the highest resident memory, in KiB.
#[derive(Serialize, Deserialize)]
struct Answer {
    peak_kib: u64,
}

/// What the child is told.
#[derive(Debug, clap::Args)]
pub struct MoveArgs {
    /// The job, as JSON.
    job: String,
}

impl Job {
    /// Does the job in a child.
    ///
    /// # Errors
    ///
    /// What the child says last.
    pub async fn spawn(&self) -> Result<Moved> {
        let mut command = Command::new(std::env::current_exe().context("finding the bench's own program")?);
        command.arg("move").arg(serde_json::to_string(self)?).stdin(Stdio::null()).kill_on_drop(true);
        // So that the last line of a complaint is the complaint.
        command.env("RUST_BACKTRACE", "0");
        let started = Instant::now();
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        let seconds = started.elapsed().as_secs_f64();
        let output = output.with_context(|| format!("took more than {LIMIT:?}"))?.context("starting a job")?;
        if !output.status.success() {
            bail!("{}: {}", output.status, last_line(&output.stderr));
        }
        let answer: Answer = serde_json::from_slice(&output.stdout).context("reading the job's answer")?;
        #[allow(clippy::cast_precision_loss)] // memory is far below 2^52 KiB
        let peak_mib = answer.peak_kib as f64 / 1_024.0;
        Ok(Moved { seconds, peak_mib })
    }
}

/// Does the job and prints what it took.
pub(super) async fn run(args: &MoveArgs, subjects: Vec<Box<dyn MoveSubject>>) -> Result<()> {
    let job: Job = serde_json::from_str(&args.job).context("reading the job")?;
    let subject = subjects
        .into_iter()
        .find(|subject| subject.name() == job.subject)
        .with_context(|| format!("there is no subject named {}", job.subject))?;
    if job.up {
        subject.upload(&job).await?;
    } else {
        subject.download(&job).await?;
    }
    let peak_kib = if subject.is_program() { children_peak_kib()? } else { peak_kib()? };
    #[allow(clippy::print_stdout)] // the parent reads it
    {
        println!("{}", serde_json::to_string(&Answer { peak_kib })?);
    }
    Ok(())
}

/// The most resident memory that one of this process' children ever had.
fn children_peak_kib() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("reading the memory figures of the children")?;
    Ok(u64::try_from(usage.max_rss())?)
}

/// Makes a file and its place in its folder durable.
pub(super) async fn sync_file(file: &Path) -> Result<()> {
    let file = file.to_owned();
    let sync = move || -> Result<()> {
        std::fs::File::open(&file)?.sync_all()?;
        Ok(std::fs::File::open(file.parent().context("a file needs a folder")?)?.sync_all()?)
    };
    tokio::task::spawn_blocking(sync).await?
}
