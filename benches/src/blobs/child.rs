//! One large transfer in a process of its own.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::queue::last_line;
use crate::subject::{BlobSubject, Transfer};

/// The blob's name in the store.
const BLOB: &str = "large";

/// What the child is told.
#[derive(Debug, clap::Args)]
pub struct TransferArgs {
    /// The subject's name.
    #[arg(long)]
    subject: String,
    /// The store's folder.
    #[arg(long)]
    store: PathBuf,
    /// The file to upload, or to download to.
    #[arg(long)]
    file: PathBuf,
    /// Upload; without it, download.
    #[arg(long)]
    up: bool,
}

/// Runs the transfer in a child.
pub(super) async fn spawn(subject: &str, store: &Path, file: &Path, up: bool) -> Result<Transfer> {
    let mut command = Command::new(std::env::current_exe().context("finding the bench's own program")?);
    command.args(["transfer", "--subject", subject, "--store"]).arg(store).arg("--file").arg(file);
    if up {
        command.arg("--up");
    }
    let output = command.kill_on_drop(true).output().await.context("starting a transfer")?;
    if !output.status.success() {
        bail!("{}: {}", output.status, last_line(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("reading the transfer's answer")
}

/// Does the transfer and prints what it took.
pub(super) async fn run(args: &TransferArgs, subjects: Vec<Box<dyn BlobSubject>>) -> Result<()> {
    let mut subject = subjects
        .into_iter()
        .find(|subject| subject.name() == args.subject)
        .with_context(|| format!("there is no subject named {}", args.subject))?;
    subject.open(&args.store).await?;
    let started = Instant::now();
    if args.up {
        subject.upload(&args.file, BLOB).await?;
    } else {
        subject.download(BLOB, &args.file).await?;
    }
    let transfer = Transfer { seconds: started.elapsed().as_secs_f64(), peak_kib: peak_kib()? };
    #[allow(clippy::print_stdout)] // the parent reads it
    {
        println!("{}", serde_json::to_string(&transfer)?);
    }
    Ok(())
}

/// `VmHWM`: the most resident memory that this process ever had.
pub(crate) fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading the process' own memory figures")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("the kernel reports no peak")?;
    Ok(line.split_whitespace().nth(1).context("the peak has no figure")?.parse()?)
}
