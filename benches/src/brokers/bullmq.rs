//! BullMQ, by a Node program (`peers/bullmq`) that runs the workload itself.

use std::path::PathBuf;

use anyhow::{Result, bail};
use async_trait::async_trait;
use tokio::process::Command;

use super::{Subject, fresh_name};
use crate::queue::answer;
use crate::queue::drive::{QueueCase, QueueRound};
use crate::subject::{Named, Role};

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
