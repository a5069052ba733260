//! The peer: rclone, from PyPI.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Result, bail};
use async_trait::async_trait;
use tokio::process::Command;

use super::child::sync_file;
use super::{BLOB, Job, PART, Place, What};
use crate::queue::last_line;
use crate::seaweed::{PASSWORD, REGION, USER};
use crate::subject::{MoveSubject, Named, Role};

/// Spared what the comparison does not need: hashes, checks of what is there, a HEAD after each PUT. A first failure ends it.
const LEAN: [&str; 10] = [
    "--config=",
    "--retries=1",
    "--low-level-retries=1",
    "--stats=0",
    "--ignore-checksum",
    "--no-check-dest",
    "--use-server-modtime",
    "--s3-disable-checksum",
    "--s3-no-check-bucket",
    "--s3-no-head",
];

pub(super) struct Rclone;

impl Named for Rclone {
    fn name(&self) -> String {
        "rclone 1.75".to_owned()
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn note(&self) -> String {
        "never syncs: where durability is compared, what it wrote is synced when it has ended".to_owned()
    }
}

#[async_trait]
impl MoveSubject for Rclone {
    fn is_program(&self) -> bool {
        true
    }

    async fn upload(&self, job: &Job) -> Result<()> {
        run(job, &job.local.display().to_string(), &remote(job)).await?;
        match (&job.place, job.what) {
            (Place::Folder { dir, fsync: true }, What::File) => sync_file(&dir.join(BLOB)).await,
            (Place::Folder { dir, fsync: true }, What::Folder) => sync_filesystem(dir).await,
            (Place::Folder { .. } | Place::Bucket { .. }, _) => Ok(()),
        }
    }

    async fn download(&self, job: &Job) -> Result<()> {
        run(job, &remote(job), &job.local.display().to_string()).await?;
        match job.what {
            What::File => sync_file(&job.local).await,
            What::Folder => sync_filesystem(&job.local).await,
        }
    }
}

/// The store's side, as rclone names it.
fn remote(job: &Job) -> String {
    let store = match &job.place {
        Place::Folder { dir, .. } => dir.display().to_string(),
        Place::Bucket { bucket, .. } => format!("bench:{bucket}"),
    };
    if job.what == What::File { format!("{store}/{BLOB}") } else { store }
}

async fn run(job: &Job, from: &str, to: &str) -> Result<()> {
    let mut command = Command::new(job.tools.join("rclone"));
    command.arg(if job.what == What::File { "copyto" } else { "copy" }).args([from, to]).args(LEAN);
    let parallel = job.parallel;
    command.arg(format!("--transfers={parallel}")).arg(format!("--checkers={parallel}"));
    command.arg(format!("--s3-chunk-size={PART}B")).arg(format!("--s3-upload-concurrency={parallel}"));
    // Parts from the first byte beyond one part on, as for everybody.
    command.arg(format!("--s3-upload-cutoff={PART}B"));
    command.arg(format!("--multi-thread-streams={parallel}")).arg(format!("--multi-thread-chunk-size={PART}B"));
    if job.what == What::Folder {
        // No HEAD before each GET. A single file, which is not listed, would not be found.
        command.arg("--s3-no-head-object");
    }
    if let Place::Bucket { endpoint, .. } = &job.place {
        let settings = [
            ("TYPE", "s3"),
            ("PROVIDER", "SeaweedFS"),
            ("ENDPOINT", endpoint),
            ("REGION", REGION),
            ("ACCESS_KEY_ID", USER),
            ("SECRET_ACCESS_KEY", PASSWORD),
        ];
        command.envs(settings.map(|(name, value)| (format!("RCLONE_CONFIG_BENCH_{name}"), value)));
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        bail!("{}: {}", output.status, last_line(&output.stderr));
    }
    Ok(())
}

/// Makes all files on the disk of `dir` durable, which is faster than one after the other.
async fn sync_filesystem(dir: &Path) -> Result<()> {
    let status = Command::new("sync").arg("--file-system").arg(dir).status().await?;
    if !status.success() {
        bail!("sync: {status}");
    }
    Ok(())
}
