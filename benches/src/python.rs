//! The Python environment of the peers from PyPI, made once under the bench's target folder.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::context::Context;
use crate::queue::last_line;

/// The environment's interpreter, with the pinned packages installed.
///
/// # Errors
///
/// Without `python3` or its `venv` module, or when pip can't reach an index: the reason is printed in the tables.
pub async fn environment(context: &Context) -> Result<PathBuf> {
    let requirements = context.home.join("peers/requirements.txt");
    let wanted = tokio::fs::read_to_string(&requirements).await.context("reading peers/requirements.txt")?;
    let venv = context.target.join("venv");
    let python = venv.join("bin/python");
    let stamp = venv.join("installed.txt");
    if tokio::fs::read_to_string(&stamp).await.is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run("python3", &["-m".as_ref(), "venv".as_ref(), "--clear".as_ref(), &venv], "making a Python environment").await?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    let arguments: Vec<&Path> = install.iter().map(Path::new).chain([requirements.as_path()]).collect();
    run(&python, &arguments, "installing the Python peers").await?;
    tokio::fs::write(&stamp, wanted).await.context("noting what is installed")?;
    Ok(python)
}

async fn run(program: impl AsRef<Path>, arguments: &[&Path], what: &str) -> Result<Output> {
    let output = Command::new(program.as_ref()).args(arguments).output().await.with_context(|| format!("{what}: no python3"))?;
    if !output.status.success() {
        bail!("{what}: {}", last_line(&output.stderr));
    }
    Ok(output)
}
