//! BullMQ, by a Node program (`peers/bullmq`) that runs the workload itself.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use tokio::process::Command;

use super::{Subject, fresh_name};
use crate::context::Context;
use crate::queue::drive::{QueueCase, QueueRound};
use crate::queue::{answer, last_line};
use crate::subject::{Named, Role};

/// What is copied to where it is installed: a program finds its packages beside itself.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "peer.js"];

pub(super) struct BullMq {
    pub(super) address: String,
    /// The program, or why there is none.
    pub(super) program: Result<PathBuf, String>,
}

impl Named for BullMq {
    fn name(&self) -> String {
        "BullMQ 6.7".to_owned()
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn note(&self) -> String {
        "in one process of Node, with `addBulk`, and workers that have as many jobs at work as a batch has; done jobs are removed"
            .to_owned()
    }
}

#[async_trait]
impl Subject for BullMq {
    fn unable(&self, _case: &QueueCase) -> Option<String> {
        self.program.as_ref().err().cloned()
    }

    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let Ok(program) = &self.program else { bail!("BullMQ can't run here") };
        let mut command = Command::new("node");
        command.arg(program).args(["--address", &self.address, "--queue", &fresh_name()]);
        for (option, value) in
            [("--workers", case.workers), ("--batch", case.batch), ("--body", case.body), ("--messages", case.messages)]
        {
            command.arg(option).arg(value.to_string());
        }
        answer("BullMQ", &mut command).await
    }
}

/// Installs the pinned packages under the bench's target folder.
///
/// # Errors
///
/// Without `node` and `npm`, or when npm can't reach a registry: the reason is printed in the tables.
pub(super) async fn install(context: &Context) -> Result<PathBuf> {
    let (from, to) = (context.home.join("peers/bullmq"), context.target.join("peers/bullmq"));
    tokio::fs::create_dir_all(&to).await.context("making a folder for BullMQ")?;
    for file in FILES {
        tokio::fs::copy(from.join(file), to.join(file)).await.with_context(|| format!("copying peers/bullmq/{file}"))?;
    }
    let wanted = tokio::fs::read_to_string(from.join("package-lock.json")).await.context("reading BullMQ's lock file")?;
    let stamp = to.join("installed.json");
    if tokio::fs::read_to_string(&stamp).await.is_ok_and(|installed| installed == wanted) {
        return Ok(to.join("peer.js"));
    }
    run(&to, "node", &["--version"]).await?;
    // The packages' scripts would build what comes built.
    run(&to, "npm", &["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).await?;
    tokio::fs::write(&stamp, wanted).await.context("noting what is installed")?;
    Ok(to.join("peer.js"))
}

async fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).current_dir(folder).output().await;
    let output = output.with_context(|| format!("installing BullMQ: no `{program}` (Debian's `nodejs` and `npm`)"))?;
    if !output.status.success() {
        bail!("installing BullMQ: {}", last_line(&output.stderr));
    }
    Ok(())
}
