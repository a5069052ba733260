//! `cargo xtask bench`.

use crate::servers::Servers;
use crate::workspace::Workspace;
use crate::{Failure, Result, process};

/// The sections that measure on servers, and the backends that they need servers for.
const ON_SERVERS: [(&str, &[&str]); 3] =
    [("brokers", &["nats", "queue-amqp", "queue-azure", "redis"]), ("postgres", &["postgres"]), ("tables", &["table-azure"])];

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
    let wanted = |backend: &str| {
        ON_SERVERS.iter().any(|(section, backends)| arguments.iter().any(|word| word == section) && backends.contains(&backend))
    };
    let servers = Servers::start(workspace, wanted)?;
    command.envs(servers.addresses());
    command.args(["run", "--release", "--"]).args(arguments);
    Ok(process::run(command)?.success())
}
