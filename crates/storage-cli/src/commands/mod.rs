//! The commands, one file each.

mod beside;
pub(crate) mod blob;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod event;
mod message;
pub(crate) mod outbox;
mod program;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod result;
pub(crate) mod schedule;
mod send;
pub(crate) mod table;
pub(crate) mod task;
pub(crate) mod worker;

use crate::args::Command;
use crate::context::Context;
use crate::exit::Failure;

/// Runs a command.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args, context).await,
        Command::Check(args) => check::run(args, context).await,
        Command::Table(command) => table::run(command, context).await,
        Command::Record(command) => record::run(command, context).await,
        Command::Queue(command) => queue::run(command, context).await,
        Command::Outbox(command) => outbox::run(command, context).await,
        Command::Task(command) => task::run(command, context).await,
        Command::Worker(args) => worker::run(args, context).await,
        Command::Result(command) => result::run(command, context).await,
        Command::Event(command) => event::run(command, context).await,
        Command::Schedule(command) => schedule::run(command, context).await,
        Command::Blob(command) => blob::run(command, context).await,
        Command::Completions(args) => completions::run(&args, context),
    }
}
