//! `cargo xtask bench`.

use crate::servers::Servers;
use crate::workspace::Workspace;
use crate::{Failure, Result, process};

/// The section that measures queues on servers, and the backends that it needs servers for.
const BROKERS: (&str, [&str; 4]) = ("brokers", ["nats", "queue-amqp", "queue-azure", "redis"]);

/// Builds and runs the benchmarks; true if they ended well.
///
/// # Errors
///
/// When there are none, or cargo can't be started.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<bool> {
    let manifest = workspace.root.join("benches/Cargo.toml");
    if !manifest.exists() {
        return Err(Failure::Failed(format!("there are no benchmarks: {} does not exist", manifest.display())));
    }
    let mut command = workspace.cargo();
    // A workspace of its own: its settings and its lock file are those of its folder.
    command.current_dir(workspace.root.join("benches"));
    let (section, backends) = BROKERS;
    let wanted = arguments.iter().any(|argument| argument == section);
    let servers = Servers::start(workspace, |backend| wanted && backends.contains(&backend))?;
    command.envs(servers.addresses());
    command.args(["run", "--release", "--"]).args(arguments);
    Ok(process::run(command)?.success())
}
