//! The `storage` command: queues, records, blobs and tasks for people and shell scripts.

mod args;
mod commands;
mod context;
mod exit;
mod input;
mod output;
mod progress;
mod signals;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::context::Context;
use crate::exit::Failure;
use crate::signals::Signals;

fn main() -> ExitCode {
    let cli = Cli::parse();
    exit::log_to_stderr(cli.global.verbose, cli.global.quiet);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(storage_core::Error::from(error)).report(&cli.global),
    };
    let global = cli.global.clone();
    let outcome = runtime.block_on(run(cli));
    // A thread may be stuck in a read of stdin: it does not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&global),
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    // A command that ends by itself on a signal is let; any other is dropped where it stands, which every store can bear.
    let handles_signals = cli.command.handles_signals();
    let signals = Signals::listen(if handles_signals { 3 } else { 2 })?;
    let context = Context::new(&cli.global, signals.clone());
    let outcome = tokio::select! {
        biased;
        outcome = commands::run(cli.command, &context) => outcome,
        signal = signals.next(), if !handles_signals => Err(Failure::Signal(signal)),
    };
    let closed = context.close().await;
    let flushed = context.out.flush();
    outcome.and(closed).and(flushed)
}
