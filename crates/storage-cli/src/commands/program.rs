//! A program that is run for a task: payload in, result out, and nothing left behind.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use storage_core::{Error, Result};
use storage_tasks::{Task, TaskContext, TaskFailure, TaskOutput};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::signals::Signals;

/// "Try again later": `EX_TEMPFAIL` of sysexits.h.
pub(crate) const TRY_LATER: i32 = 75;
/// How much of the end of stderr is kept as the reason of a failure, in bytes.
const STDERR_TAIL: usize = 4096;
/// How long a program that is asked to stop may take before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long its output may stay open (in the hands of a child of its own) after it has ended.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// How programs are run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    /// The largest result, in bytes.
    pub(crate) max_result: usize,
    /// The longest run.
    pub(crate) timeout: Option<Duration>,
    /// True: what it writes to stderr is shown, too.
    pub(crate) show_stderr: bool,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exit_code: Option<i32>,
    pub(crate) answer: Result<TaskOutput, TaskFailure>,
}

impl Program {
    /// A program that is there and can be run: better said now than by the failure of every task.
    pub(crate) fn new(words: &[OsString]) -> Result<Self> {
        let Some((name, args)) = words.split_first() else { return Err(Error::invalid("name the program to run")) };
        let path = find(Path::new(name)).ok_or_else(|| {
            Error::invalid(format!(
                "there is no program {} that can be run: check its path and its permissions",
                Path::new(name).display()
            ))
        })?;
        Ok(Self { path, args: args.to_vec(), max_result: 1 << 20, timeout: None, show_stderr: false })
    }

    /// Runs the program for a task. Dropped, it kills the program with all its children.
    pub(crate) async fn run(&self, context: &TaskContext, signals: &Signals) -> Run {
        match self.spawn(&context.task) {
            Ok(group) => self.attend(group, context, signals).await,
            Err(error) => {
                Run { exit_code: None, answer: Err(TaskFailure::retry(format!("can't start {}: {error}", self.path.display()))) }
            }
        }
    }

    fn spawn(&self, task: &Task) -> std::io::Result<Group> {
        let mut command = Command::new(&self.path);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Not STORAGE_…: variables with that prefix are configuration, and a misspelt one is an error.
        command.env("TASK_ID", &task.task_id).env("TASK_RESOURCE", &task.resource_id).env("TASK_KIND", &task.kind);
        command.env("TASK_ATTEMPT", task.attempts.to_string());
        // A group of its own: Ctrl-C in the terminal reaches the worker alone, which lets the program finish.
        #[cfg(unix)]
        command.process_group(0);
        command.spawn().map(|child| Group { child })
    }

    async fn attend(&self, mut group: Group, context: &TaskContext, signals: &Signals) -> Run {
        let overflow = Arc::new(Notify::new());
        let stdout = Capture::head(group.child.stdout.take(), self.max_result, Arc::clone(&overflow));
        let stderr = Capture::tail(group.child.stderr.take(), self.show_stderr);
        let feeding = AbortOnDropHandle(tokio::spawn(feed(group.child.stdin.take(), payload(&context.task.input))));
        let timeout = async {
            match self.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let stopped = tokio::select! {
            biased;
            ended = group.child.wait() => {
                let answer = match ended {
                    Ok(status) => return self.ended(status, stdout, stderr).await,
                    Err(error) => TaskFailure::retry(format!("can't tell how it ended: {error}")),
                };
                return Run { exit_code: None, answer: Err(answer) };
            }
            () = overflow.notified() => TaskFailure::fatal(self.too_much()),
            () = timeout => {
                let timeout = humantime::format_duration(self.timeout.unwrap_or_default());
                TaskFailure::retry(format!("it took longer than {timeout}"))
            }
            () = context.cancel.cancelled() => TaskFailure::Cancelled,
            _ = signals.at_least(2) => TaskFailure::Later { reason: "the worker was stopped".into(), after: Some(Duration::ZERO) },
        };
        drop(feeding);
        group.stop().await;
        Run { exit_code: None, answer: Err(stopped) }
    }

    async fn ended(&self, status: ExitStatus, stdout: Capture, stderr: Capture) -> Run {
        let (stdout, stderr) = tokio::join!(stdout.finish(), stderr.finish());
        let answer = match status.code() {
            Some(0) if stdout.len() > self.max_result => Err(TaskFailure::fatal(self.too_much())),
            Some(0) => result_of(stdout),
            Some(TRY_LATER) => Err(TaskFailure::later(reason("try again later (exit code 75)", &stderr))),
            Some(code) => Err(TaskFailure::retry(reason(&format!("exit code {code}"), &stderr))),
            None => Err(TaskFailure::retry(reason(&killed_by(status), &stderr))),
        };
        Run { exit_code: status.code(), answer }
    }

    fn too_much(&self) -> String {
        format!("it wrote more than {} bytes to stdout: put large results into a blob and write its path", self.max_result)
    }
}

async fn feed(stdin: Option<ChildStdin>, payload: Vec<u8>) {
    if let Some(mut stdin) = stdin {
        // A program that does not care for its input may close it.
        let _ = stdin.write_all(&payload).await;
    }
}

/// What the program reads: a text as it is, anything else as JSON; nothing where there is no input.
fn payload(input: &Value) -> Vec<u8> {
    match input {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

/// What it wrote: JSON where it is that beyond doubt, else text without the line break at its end; nothing is null.
fn result_of(stdout: Vec<u8>) -> Result<TaskOutput, TaskFailure> {
    let text = String::from_utf8(stdout).map_err(|_| {
        TaskFailure::fatal("it wrote bytes to stdout that are not UTF-8: put them into a blob and write its path")
    })?;
    let text = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() {
        return Ok(Value::Null.into());
    }
    let value = match serde_json::from_str(text) {
        // `1e10` or `007` may be an id: a number is what prints as it was written.
        Ok(Value::Number(number)) if number.to_string() != text => Value::from(text),
        Ok(value) if storage_core::value::check_json(&value).is_ok() => value,
        _ => Value::from(text),
    };
    Ok(value.into())
}

fn reason(what: &str, stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    match text.trim() {
        "" => what.to_owned(),
        text => format!("{what}: {text}"),
    }
}

fn killed_by(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("killed by signal {signal}");
    }
    status.to_string()
}

/// The program's file: as it is named, or in one of the folders of `PATH`.
fn find(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 || name.is_absolute() {
        return can_run(name).then(|| name.to_owned());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| can_run(path))
}

fn can_run(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return false };
    #[cfg(unix)]
    let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let executable = true;
    metadata.is_file() && executable
}

/// A task that ends with its handle.
struct AbortOnDropHandle<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDropHandle<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Output as it comes, in bounded memory.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    reading: AbortOnDropHandle<()>,
}

impl Capture {
    /// The first bytes, one more than `max`: then it tells.
    fn head(from: Option<impl AsyncRead + Unpin + Send + 'static>, max: usize, overflow: Arc<Notify>) -> Self {
        Self::new(from, move |bytes, piece| {
            bytes.extend_from_slice(&piece[..piece.len().min((max + 1).saturating_sub(bytes.len()))]);
            if bytes.len() > max {
                overflow.notify_one();
            }
        })
    }

    /// The last bytes; all of them are shown where that is wanted.
    fn tail(from: Option<impl AsyncRead + Unpin + Send + 'static>, show: bool) -> Self {
        Self::new(from, move |bytes, piece| {
            if show {
                use std::io::Write as _;
                // Where stderr is gone, there is nobody to show it to.
                let _ = std::io::stderr().lock().write_all(piece);
            }
            bytes.extend_from_slice(piece);
            if bytes.len() > STDERR_TAIL {
                bytes.drain(..bytes.len() - STDERR_TAIL);
            }
        })
    }

    fn new(from: Option<impl AsyncRead + Unpin + Send + 'static>, keep: impl Fn(&mut Vec<u8>, &[u8]) + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bytes);
        let reading = tokio::spawn(async move {
            let Some(mut from) = from else { return };
            let mut piece = vec![0; 16 << 10];
            // A pipe that can't be read is one that is closed.
            while let Ok(read @ 1..) = from.read(&mut piece).await {
                keep(&mut kept.lock().unwrap_or_else(PoisonError::into_inner), &piece[..read]);
            }
        });
        Self { bytes, reading: AbortOnDropHandle(reading) }
    }

    /// What there is when the pipe is closed: soon, unless a child of the program still has it.
    async fn finish(mut self) -> Vec<u8> {
        let _ = tokio::time::timeout(OUTPUT_GRACE, &mut self.reading.0).await;
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A program and its children.
struct Group {
    child: Child,
}

impl Group {
    /// Asks all of them to stop, and kills those that don't.
    async fn stop(&mut self) {
        self.signal(false);
        if tokio::time::timeout(STOP_GRACE, self.child.wait()).await.is_err() {
            self.signal(true);
            let _ = self.child.wait().await;
        }
    }

    /// The number of a program that was waited for may be another's by now: then nothing is done.
    fn signal(&mut self, kill: bool) {
        #[cfg(unix)]
        if let Some(group) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
            let signal = if kill { rustix::process::Signal::KILL } else { rustix::process::Signal::TERM };
            // All of them may have ended just now.
            let _ = rustix::process::kill_process_group(group, signal);
        }
        #[cfg(not(unix))]
        {
            let _ = kill;
            let _ = self.child.start_kill();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(true);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_json_where_that_is_beyond_doubt() {
        let result = |text: &str| result_of(text.as_bytes().to_vec()).unwrap().output;
        assert_eq!(result("{\"a\": [1, 2.5]}\n"), json!({"a": [1, 2.5]}));
        assert_eq!(result("true\n"), json!(true));
        assert_eq!(result("17\n"), json!(17));
        assert_eq!(result("\"17\"\n"), json!("17"));
        assert_eq!(result("1e10\n"), json!("1e10"));
        assert_eq!(result("007\r\n"), json!("007"));
        assert_eq!(result("two\nlines\n\n"), json!("two\nlines\n"));
        assert_eq!(result(""), json!(null));
        assert!(result_of(vec![0xff]).is_err());
        assert_eq!(result(&"[".repeat(100_000)), json!("[".repeat(100_000)));
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find(Path::new("sh")).is_some_and(|path| path.is_absolute()));
        assert!(find(Path::new("/bin/sh")).is_some());
        assert!(find(Path::new("/etc/passwd")).is_none(), "not executable");
        assert!(find(Path::new("no-such-program")).is_none());
    }
}
