//! How a command ends: messages and exit codes.

use std::error::Error as _;
use std::io::Write as _;
use std::process::ExitCode;

use storage_core::{Error, ErrorKind};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::args::Global;
use crate::signals::Signal;

/// The exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    it failed: damaged data, no permission, a check that did not hold, a bug
  2    the command line, the input or the configuration is wrong, or the backend can't do this
  3    not found: the table, record, queue, task or blob is not there
  4    it exists already, was changed by somebody else, or the lease is lost
  5    the service can't be reached, was too slow, or asks to wait: try again later
  130  interrupted (Ctrl-C); 143 by SIGTERM
Where several files or components fail, the code is that of the first.";

/// Why a command does not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error to be shown.
    Error(Error),
    /// Everything was said already.
    Silent(u8),
    /// Nobody reads the output any more (`| head`): nothing to say.
    OutputClosed,
    /// A signal ended it.
    Signal(Signal),
}

/// The one mapping from kinds of errors to exit codes.
pub(crate) fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::InvalidInput | ErrorKind::Config | ErrorKind::Unsupported => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::AlreadyExists | ErrorKind::Conflict | ErrorKind::LeaseLost => 4,
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Throttled => 5,
        // Unauthorized, Corrupt, Internal, and kinds to come.
        _ => 1,
    }
}

impl Failure {
    /// Says what went wrong, on stderr in one line, and answers the exit code.
    pub(crate) fn report(&self, global: &Global) -> ExitCode {
        let error = match self {
            Self::Error(error) => error,
            Self::Silent(code) => return ExitCode::from(*code),
            Self::OutputClosed => return ExitCode::SUCCESS,
            Self::Signal(signal) => return ExitCode::from(signal.exit_code()),
        };
        // Where stderr is gone too, there is nobody to tell.
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "storage: {}", one_line(&error.to_string()));
        if global.verbose > 0 {
            let mut source = error.source();
            while let Some(cause) = source {
                let _ = writeln!(stderr, "  caused by: {}", one_line(&cause.to_string()));
                source = cause.source();
            }
        }
        ExitCode::from(code_of(error.kind()))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(kind) => std::io::Error::from(kind).into(),
            None => Self::Error(error.into()),
        }
    }
}

/// Of the output: everything else that can fail so is an [`Error`] already.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Error(Error::from(error).with_operation("write").with_subject("the output")),
        }
    }
}

/// A line on stderr.
pub(crate) fn say(text: impl AsRef<str>) {
    // Where stderr is gone, there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// A message without line breaks: some parsers draw pictures, which scripts that read stderr line by line can't use.
pub(crate) fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let clean = lines.collect::<Vec<_>>().join(" ");
    // Escape sequences of a hostile name would reach the terminal.
    clean.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Warnings of the libraries go to stderr; `-v` shows more of them, `-q` none.
pub(crate) fn log_to_stderr(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let format = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false);
    // The AMQP client tells of messages that come back by showing them whole.
    let quotes = filter_fn(|metadata| !metadata.target().starts_with("lapin") || *metadata.level() == tracing::Level::ERROR);
    let colors = console::Term::stderr().is_term() && console::colors_enabled_stderr();
    // It can be set once only; a second caller is a test in the same process.
    let _ = tracing::subscriber::set_global_default(format.with_ansi(colors).without_time().finish().with(quotes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_without_escape_sequences() {
        assert_eq!(one_line("a\n  |\n  ^ b\u{1b}[31m\n"), "a | ^ b\u{fffd}[31m");
    }

    #[test]
    fn every_kind_has_the_documented_code() {
        for (kind, code) in [
            (ErrorKind::Config, 2),
            (ErrorKind::NotFound, 3),
            (ErrorKind::LeaseLost, 4),
            (ErrorKind::Throttled, 5),
            (ErrorKind::Unauthorized, 1),
        ] {
            assert_eq!(code_of(kind), code, "{kind}");
            assert!(EXIT_CODES.contains(&format!("  {code}    ")));
        }
    }
}
