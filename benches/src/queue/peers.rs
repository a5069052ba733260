//! Peers that run as child processes: fang (its SQLite can't live in the same process) and those from PyPI.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::process::Command;

use crate::context::Context;
use crate::python;
use crate::subject::{Durability, Named, QueueCase, QueueRound, QueueSubject, Role};

/// How long a child may take for one round.
const ROUND_LIMIT: Duration = Duration::from_secs(300);

/// All child peers. Those that can't run are listed too, with the reason.
pub(super) async fn all(context: &Context) -> Vec<Box<dyn QueueSubject>> {
    context.progress("queue: building the fang peer and the Python environment");
    let fang = build_fang(context).await.map(|program| (program, None));
    let python = python::environment(context).await;
    let script = |name: &str| match &python {
        Ok(python) => Ok((python.clone(), Some(context.home.join("peers").join(name)))),
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    vec![
        Box::new(Child {
            name: "fang 0.11",
            note: "a message is fetched by SELECT, then UPDATE: two workers can get the same one",
            longest_round: 800,
            full_only: Some("fang has no option for synchronous and takes SQLite's default, FULL"),
            program: fang,
        }),
        Box::new(Child {
            name: "huey 3.5 (SqliteHuey)",
            note: "receiving deletes: no lease, so one commit less per message",
            longest_round: 2_400,
            full_only: None,
            program: script("huey_peer.py"),
        }),
        Box::new(Child {
            name: "persist-queue 1.1 (SQLiteAckQueue)",
            note: "done rows stay in the table",
            longest_round: 1_600,
            full_only: None,
            program: script("persistqueue_peer.py"),
        }),
        Box::new(Child {
            name: "honker 0.2",
            note: "",
            longest_round: usize::MAX,
            full_only: None,
            program: script("honker_peer.py"),
        }),
    ]
}

/// A program that takes the case as arguments and prints a [`QueueRound`].
struct Child {
    name: &'static str,
    note: &'static str,
    /// See [`QueueSubject::longest_round`].
    longest_round: usize,
    full_only: Option<&'static str>,
    program: Result<(PathBuf, Option<PathBuf>)>,
}

impl Named for Child {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn note(&self) -> String {
        self.note.to_owned()
    }
}

#[async_trait]
impl QueueSubject for Child {
    fn unable(&self, case: &QueueCase) -> Option<String> {
        match (&self.program, self.full_only) {
            (Err(error), _) => Some(format!("{error:#}")),
            (Ok(_), Some(reason)) if case.sync == Durability::Normal => Some(reason.to_owned()),
            (Ok(_), _) => None,
        }
    }

    fn longest_round(&self) -> usize {
        self.longest_round
    }

    async fn round(&self, dir: &Path, case: &QueueCase) -> Result<QueueRound> {
        let Ok((program, script)) = &self.program else { bail!("{} can't run here", self.name) };
        let mut command = Command::new(program);
        if let Some(script) = script {
            command.arg("-B").arg(script);
        }
        command.arg("--dir").arg(dir).arg("--sync").arg(case.sync.pragma().to_lowercase());
        for (option, value) in
            [("--workers", case.workers), ("--batch", case.batch), ("--body", case.body), ("--messages", case.messages)]
        {
            command.arg(option).arg(value.to_string());
        }
        answer(self.name, &mut command).await
    }
}

/// Runs a child for one round, and reads the JSON that it prints.
pub(crate) async fn answer<T: DeserializeOwned>(name: &str, command: &mut Command) -> Result<T> {
    let output = tokio::time::timeout(ROUND_LIMIT, command.kill_on_drop(true).output())
        .await
        .with_context(|| format!("a round took more than {ROUND_LIMIT:?}"))?
        .with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        bail!("{}: {}", output.status, last_line(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("reading the peer's answer")
}

/// Builds `peers/fang` into the bench's own target folder.
async fn build_fang(context: &Context) -> Result<PathBuf> {
    let target = context.target.join("peers").join("fang");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "--jobs", "2", "--manifest-path"])
        .arg(context.home.join("peers/fang/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .await
        .context("starting cargo to build fang")?;
    if !output.status.success() {
        bail!("fang does not build here: {}", last_line(&output.stderr));
    }
    Ok(target.join("release/fang-peer"))
}

/// The line of a program's complaint that says what went wrong.
pub(crate) fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned()
}
