//! Python's official client, `azure-data-tables`: a process that works off one line of JSON after another.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use serde::Deserialize;
use storage_azure::{EMULATOR_ACCOUNT, EMULATOR_KEY};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use super::{Ask, Client, Done};
use crate::context::Context;
use crate::python;

/// How long one piece of work may take.
const PATIENCE: Duration = Duration::from_secs(300);

struct Python(Mutex<Process>);

struct Process {
    /// Ends with this.
    _child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Done(Done),
    Failed { error: String },
}

/// A client for each address.
pub(super) async fn clients<const N: usize>(context: &Context, addresses: [&str; N]) -> Result<[Arc<dyn Client>; N]> {
    context.progress("tables: installing the Python environment");
    let python = python::environment(context).await?;
    let script = context.home.join("peers/tables_peer.py");
    let start = |address: &str| -> Result<Arc<dyn Client>> {
        let endpoint = format!("{}/{EMULATOR_ACCOUNT}", address.trim_end_matches('/'));
        let mut command = Command::new(&python);
        command.arg("-B").arg(&script).args(["--endpoint", &endpoint, "--account", EMULATOR_ACCOUNT, "--key", EMULATOR_KEY]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().context("starting Python")?;
        let (asks, answers) = child.stdin.take().zip(child.stdout.take()).context("talking to Python")?;
        Ok(Arc::new(Python(Mutex::new(Process { _child: child, asks, answers: BufReader::new(answers).lines() }))))
    };
    let clients = addresses.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    clients.try_into().map_err(|_| anyhow::anyhow!("a client for each address"))
}

#[async_trait]
impl Client for Python {
    async fn work(&self, ask: &Ask<'_>) -> Result<Done> {
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        let mut process = self.0.lock().await;
        let answer = async {
            process.asks.write_all(&line).await?;
            process.asks.flush().await?;
            process.answers.next_line().await
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.with_context(|| format!("no answer within {PATIENCE:?}"))?;
        let answer = answer.context("talking to Python")?.context("Python ended, see above")?;
        match serde_json::from_str(&answer).context("reading Python's answer")? {
            Answer::Done(done) => Ok(done),
            Answer::Failed { error } => bail!("{error}"),
        }
    }
}
