//! The commands, one file each.

pub(crate) mod blob;
pub(crate) mod check;
pub(crate) mod completions;
mod message;
pub(crate) mod queue;
pub(crate) mod record;
mod send;
pub(crate) mod table;
mod transfer;

use crate::args::Command;
use crate::context::Context;
use crate::exit::Failure;

/// Runs a command.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Check(args) => check::run(args, context).await,
        Command::Table(command) => table::run(command, context).await,
        Command::Record(command) => record::run(command, context).await,
        Command::Queue(command) => queue::run(command, context).await,
        Command::Blob(command) => blob::run(command, context).await,
        Command::Completions(args) => completions::run(&args, context),
    }
}
