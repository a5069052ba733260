//! The project's own commands: `cargo xtask test`, `ci`, `matrix`, `bench`, `docs`.
//!
//! One place knows how the project is built and tested, so a person, a script and the CI do the very same thing. Everything
//! that decides something (arguments, grouping, parsing, tables) is a plain function with unit tests; the rest starts programs.

// Printing is what a command is for; the lint keeps libraries quiet.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bench;
mod capabilities;
mod ci;
mod docs;
mod help;
mod libtest;
mod lines;
mod links;
mod matrix;
mod nextest;
mod plan;
mod process;
mod provision;
mod report;
mod runner;
mod servers;
mod skips;
mod table;
mod test;
mod workspace;

use std::process::ExitCode;

use args::Command;
use workspace::Workspace;

/// What a command reports upward: a message for a person. `Interrupted` is apart because it prints nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command was used wrongly: exit code 2.
    Usage(String),
    /// Something could not be done: exit code 1.
    Failed(String),
    /// Ctrl-C or a termination signal: exit code 130.
    Interrupted,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Says what was being done when `result` went wrong.
pub(crate) fn doing<T, E: std::fmt::Display>(result: std::result::Result<T, E>, what: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|error| Failure::Failed(format!("{}: {error}", what())))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match args::parse(&arguments).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
        Err(Failure::Interrupted) => {
            eprintln!("interrupted");
            ExitCode::from(130)
        }
    }
}

/// Runs one command; false means that it ran and found something wrong.
fn run(command: Command) -> Result<bool> {
    if let Command::Help(topic) = command {
        println!("{}", help::text(topic));
        return Ok(true);
    }
    process::handle_signals()?;
    let workspace = Workspace::load()?;
    match command {
        Command::Help(_) => Ok(true),
        Command::Test(options) => {
            let tally = test::run(&workspace, &options)?;
            println!("{tally}");
            Ok(tally.failed == 0)
        }
        Command::Ci => {
            let tally = ci::run(&workspace)?;
            println!("{tally}");
            Ok(tally.failed == 0)
        }
        Command::Matrix { backend } => {
            let tally = matrix::run(&workspace, backend.as_deref())?;
            println!("{tally}");
            Ok(tally.failed == 0)
        }
        Command::Bench(arguments) => bench::run(&workspace, &arguments),
        Command::Docs => docs::run(&workspace),
    }
}
