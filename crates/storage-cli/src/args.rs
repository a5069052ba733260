//! The command line.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::commands::{blob, check, completions, demo, event, outbox, queue, record, result, schedule, table, task, worker};
use crate::exit::EXIT_CODES;

const ABOUT: &str = "A durable task queue, record store and blob store for people and shell scripts";

const EXAMPLES: &str = "\
Without configuration everything is in the working directory: SQLite in ./storage.db, blobs below ./storage-blobs.
Other places: storage.toml (or .yaml, .json), STORAGE_… variables, or --url.

Examples:
  storage demo                                        see it work, on the files of this folder
  storage check                                       what is configured, and does it work?
  storage queue create mail && storage queue send mail 'hello'
  storage queue receive mail --delete
  storage blob put report.pdf reports/2026/report.pdf
  storage completions bash > ~/.local/share/bash-completion/completions/storage";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "storage", version, about = ABOUT, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Read this configuration file, rather than ./storage.toml, .yaml, .yml or .json
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Use this backend for everything, whatever is configured: sqlite:///app.db, memory:, …
    #[arg(long, global = true, value_name = "URL", conflicts_with_all = ["config", "env_prefix"])]
    pub(crate) url: Option<String>,
    /// Read environment variables that begin so, rather than with STORAGE_
    #[arg(long, global = true, value_name = "PREFIX", value_parser = env_prefix)]
    pub(crate) env_prefix: Option<String>,
    /// Write JSON, one object a line, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but what was asked for
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more: causes of errors, what goes on (-vv: even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See it work: a task for each file of a folder, run, counted and checked
    Demo(demo::DemoArgs),
    /// Open every component, write, read, list and delete a probe, and say how it went
    Check(check::CheckArgs),
    /// Tables: create, list, describe, drop
    #[command(subcommand)]
    Table(table::TableCommand),
    /// Records: put, get, query, count, delete, history
    #[command(subcommand)]
    Record(record::RecordCommand),
    /// Queues: create, send, receive, delete, dead letters
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Messages that were committed and wait to be sent to a queue elsewhere
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Tasks: submit, get, list, retry, cancel
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Run a program for each task: a durable queue for shell scripts
    Worker(worker::WorkerArgs),
    /// Results of tasks: get, wait for
    #[command(subcommand)]
    Result(result::ResultCommand),
    /// Events of tasks: list, follow
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Schedules: tasks at given times
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Blobs: files and folders in and out
    #[command(subcommand)]
    Blob(blob::BlobCommand),
    /// Write a completion script for a shell
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// True where the command ends by itself on a signal.
    pub(crate) fn handles_signals(&self) -> bool {
        matches!(
            self,
            Self::Check(_)
                | Self::Demo(_)
                | Self::Worker(_)
                | Self::Outbox(outbox::OutboxCommand::Relay { once: false })
                | Self::Schedule(schedule::ScheduleCommand::Run { name: None, once: false })
        )
    }
}

/// Reads `30s`, `5m`, `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.bytes().all(|b| b.is_ascii_digit()) && text != "0" {
        return Err(format!("{text} of what? write {text}s, {text}m or {text}h"));
    }
    humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 30s, 5m or 1h 30m"))
}

/// Reads `512K`, `10M`, `1G`: bytes, in steps of 1,024.
pub(crate) fn rate(text: &str) -> Result<NonZeroU64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("write it like 512K, 10M or 1G: bytes a second".into()),
    };
    let rate = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift)).and_then(NonZeroU64::new);
    rate.ok_or_else(|| "a whole number above 0, like 512K, 10M or 1G: bytes a second".into())
}

fn env_prefix(text: &str) -> Result<String, String> {
    let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && text.ends_with('_') && text.len() > 1;
    if good { Ok(text.to_owned()) } else { Err("a prefix is letters, digits and `_`, and ends with `_`: OMNIQ_".into()) }
}

/// Reads `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rates_are_bytes_a_second() {
        let rate = |text| rate(text).map(NonZeroU64::get);
        assert_eq!((rate("1000"), rate("512k"), rate("10M"), rate("1GiB")), (Ok(1000), Ok(512 << 10), Ok(10 << 20), Ok(1 << 30)));
        for bad in ["", "0", "M", "1.5M", "-1", "10X", "10Mbit", "99999999999G", "ü"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("30").unwrap_err().contains("30s"));
        assert!(duration("soon").is_err());
    }
}
