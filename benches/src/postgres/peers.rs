//! Peers that run the workload themselves: graphile-worker, by a Node program (`peers/graphile`), and procrastinate, by a Python one.

use std::path::PathBuf;

use anyhow::{Result, bail};
use async_trait::async_trait;
use tokio::process::Command;

use crate::brokers::{Subject, fresh_name, stand_for};
use crate::context::Context;
use crate::queue::answer;
use crate::queue::drive::{QueueCase, QueueRound};
use crate::subject::{Named, Role};
use crate::{node, python};

/// The programs, or why there are none. Nothing where peers are left out.
#[derive(Clone, Default)]
pub(super) struct Installed {
    node: Option<Result<PathBuf, String>>,
    python: Option<Result<PathBuf, String>>,
}

pub(super) async fn install(context: &Context) -> Installed {
    if context.no_peers {
        return Installed::default();
    }
    context.progress("postgres: installing graphile-worker and the Python environment");
    let node = node::install(context, "graphile").await;
    let python = python::environment(context).await;
    Installed { node: Some(node.map_err(|e| format!("{e:#}"))), python: Some(python.map_err(|e| format!("{e:#}"))) }
}

pub(super) fn subjects(installed: &Installed, address: &str, context: &Context) -> Vec<Box<dyn Subject>> {
    let script = context.home.join("peers/procrastinate_peer.py");
    let python = |python: PathBuf| vec![python.into_os_string(), "-B".into(), script.into_os_string()];
    let node = |program: PathBuf| vec!["node".into(), program.into_os_string()];
    let graphile = installed.node.clone().map(|program| Child {
        name: "graphile-worker 0.18",
        note: "in one process of Node, with `addJobs`, and a worker pool that fetches a batch ahead (`localQueue`) and completes jobs in batches; \
               done jobs are removed",
        command: program.map(node),
        address: address.to_owned(),
        share: 1,
    });
    let procrastinate = installed.python.clone().map(|program| Child {
        name: "procrastinate 3.10",
        note: "in one process of Python, with `batch_defer`; a worker fetches a job at a time; done jobs are removed; rounds of a tenth of the \
               messages, since rates are compared",
        command: program.map(python),
        address: address.to_owned(),
        share: 10,
    });
    [graphile, procrastinate].into_iter().flatten().map(|child| Box::new(child) as Box<dyn Subject>).collect()
}

/// A program that takes the case as arguments and prints a [`QueueRound`].
struct Child {
    name: &'static str,
    note: &'static str,
    command: Result<Vec<std::ffi::OsString>, String>,
    address: String,
    /// It gets this part of the messages.
    share: usize,
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
impl Subject for Child {
    fn unable(&self, _case: &QueueCase) -> Option<String> {
        self.command.as_ref().err().cloned()
    }

    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let Ok([program, arguments @ ..]) = self.command.as_deref() else { bail!("{} can't run here", self.name) };
        // Whole batches for every worker.
        let share = if case.messages / self.share >= case.workers * case.batch { self.share } else { 1 };
        let mut command = Command::new(program);
        command.args(arguments).args(["--address", &self.address, "--queue", &fresh_name()]);
        let messages = case.messages / share;
        for (option, value) in
            [("--workers", case.workers), ("--batch", case.batch), ("--body", case.body), ("--messages", messages)]
        {
            command.arg(option).arg(value.to_string());
        }
        Ok(stand_for(answer(self.name, &mut command).await?, share))
    }
}
