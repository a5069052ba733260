//! Peers from npm: programs in `peers`, each with its pinned packages.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::context::Context;
use crate::queue::last_line;

/// What is copied to where it is installed: a program finds its packages beside itself.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "peer.js"];

/// Installs the pinned packages of `peers/NAME` under the bench's target folder. Answers the program.
///
/// # Errors
///
/// Without `node` and `npm`, or when npm can't reach a registry: the reason is printed in the tables.
pub async fn install(context: &Context, name: &str) -> Result<PathBuf> {
    let (from, to) = (context.home.join("peers").join(name), context.target.join("peers").join(name));
    tokio::fs::create_dir_all(&to).await.with_context(|| format!("making a folder for {name}"))?;
    for file in FILES {
        tokio::fs::copy(from.join(file), to.join(file)).await.with_context(|| format!("copying peers/{name}/{file}"))?;
    }
    let wanted = tokio::fs::read_to_string(from.join("package-lock.json")).await.context("reading the lock file")?;
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
    let output = output.with_context(|| format!("no `{program}` (Debian's `nodejs` and `npm`)"))?;
    if !output.status.success() {
        bail!("{program}: {}", last_line(&output.stderr));
    }
    Ok(())
}
