//! Starting programs so that none outlives `xtask`.
//!
//! Each program gets a process group of its own. A signal to `xtask` (Ctrl-C, SIGTERM, SIGHUP) goes to that whole group, so
//! compilers, test runners and what they started end too; what ignores it for longer than [`GRACE`] is killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Failure, Result, doing};

/// How long a program has to end by itself. cargo-nextest gives its tests ten seconds.
const GRACE: Duration = Duration::from_secs(15);
/// A test run that says nothing for so long is taken to hang. (cargo-nextest has limits of its own, for each test.)
const SILENCE: Duration = Duration::from_secs(20 * 60);
/// Lines that wait for the reader.
const LINES: usize = 1024;
const TICK: Duration = Duration::from_millis(200);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The process group that runs at present.
static RUNNING: Mutex<Option<u32>> = Mutex::new(None);

/// From here on, a signal ends the running program and then `xtask`.
pub(crate) fn handle_signals() -> Result<()> {
    let set = ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        let Some(group) = *running() else {
            std::process::exit(130);
        };
        signal(group, End::Ask);
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if *running() != Some(group) {
                return;
            }
            std::thread::sleep(TICK);
        }
        signal(group, End::Force);
    });
    doing(set, || "cannot listen for signals".to_owned())
}

/// Runs a program with our output as its output.
pub(crate) fn run(command: Command) -> Result<ExitStatus> {
    let name = name_of(&command);
    let mut started = start(command)?;
    let status = started.child.wait();
    started.finish();
    not_interrupted()?;
    doing(status, || format!("cannot wait for `{name}`"))
}

/// Runs a program and gives back its standard output; its standard error is ours.
pub(crate) fn output(mut command: Command) -> Result<(ExitStatus, String)> {
    let mut text = String::new();
    command.stdout(Stdio::piped());
    let name = name_of(&command);
    let mut started = start(command)?;
    let read = match started.child.stdout.take() {
        Some(mut stdout) => std::io::Read::read_to_string(&mut stdout, &mut text),
        None => Ok(0),
    };
    let status = started.child.wait();
    started.finish();
    not_interrupted()?;
    doing(read, || format!("cannot read what `{name}` printed"))?;
    Ok((doing(status, || format!("cannot wait for `{name}`"))?, text))
}

/// True if the program starts and ends well. What it prints is dropped.
pub(crate) fn succeeds(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    run(command).is_ok_and(|status| status.success())
}

/// Runs a program and hands each line of its output to `on_line` as it comes. Standard output and standard error share
/// one pipe, so that the lines come in the order in which they were written.
pub(crate) fn run_watched(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    let name = name_of(&command);
    let (reader, writer) = doing(std::io::pipe(), || "cannot create a pipe".to_owned())?;
    let second = doing(writer.try_clone(), || "cannot duplicate a pipe".to_owned())?;
    command.stdout(writer).stderr(second);
    // `start` takes the command and with it our ends of the pipe: else the reader would never see its end.
    let mut started = start(command)?;
    let (sender, lines) = sync_channel(LINES);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    let hung = watch(&mut started.child, &lines, &mut on_line);
    let status = started.child.wait();
    started.finish();
    not_interrupted()?;
    if hung {
        return Err(Failure::Failed(format!("`{name}` said nothing for {} minutes and was killed", SILENCE.as_secs() / 60)));
    }
    doing(status, || format!("cannot wait for `{name}`"))
}

/// Passes lines on until the pipe ends, or the program has ended and the pipe is quiet: something that the program left behind
/// may hold the pipe open. True if the program had to be killed because it hung.
fn watch(child: &mut Child, lines: &Receiver<String>, on_line: &mut impl FnMut(&str)) -> bool {
    let mut last = Instant::now();
    loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => {
                on_line(&line);
                last = Instant::now();
            }
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) if matches!(child.try_wait(), Ok(Some(_))) => {
                return false;
            }
            Err(RecvTimeoutError::Timeout) if last.elapsed() > SILENCE => {
                signal(child.id(), End::Force);
                return true;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A started program, entered in [`RUNNING`].
struct Started {
    child: Child,
}

impl Started {
    /// Takes the program out of [`RUNNING`] before its number can belong to another one.
    fn finish(&self) {
        *running() = None;
    }
}

fn start(mut command: Command) -> Result<Started> {
    command.stdin(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    // The lock is held until the program is entered, so a signal can't fall between.
    let mut group = running();
    not_interrupted()?;
    let child = doing(command.spawn(), || format!("cannot start `{}`", name_of(&command)))?;
    *group = Some(child.id());
    Ok(Started { child })
}

fn running() -> MutexGuard<'static, Option<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error once a signal has come.
pub(crate) fn not_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(Failure::Interrupted) } else { Ok(()) }
}

fn name_of(command: &Command) -> String {
    let name = std::path::Path::new(command.get_program());
    let mut text = name.file_stem().unwrap_or(name.as_os_str()).to_string_lossy().into_owned();
    for argument in command.get_args().take(2) {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[derive(Clone, Copy)]
enum End {
    Ask,
    Force,
}

#[cfg(unix)]
fn signal(group: u32, how: End) {
    use nix::sys::signal::{Signal, killpg};
    let signal = match how {
        End::Ask => Signal::SIGTERM,
        End::Force => Signal::SIGKILL,
    };
    if let Ok(group) = i32::try_from(group) {
        // It may have ended by itself.
        _ = killpg(nix::unistd::Pid::from_raw(group), signal);
    }
}

#[cfg(not(unix))]
fn signal(process: u32, _how: End) {
    // There are no process groups; the tree of a console program ends with this command.
    _ = Command::new("taskkill").args(["/T", "/F", "/PID", &process.to_string()]).status();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    // One test, because `RUNNING` holds one program at a time.
    #[test]
    fn programs_are_run_and_watched() {
        assert_eq!(run(shell("exit 3")).unwrap().code(), Some(3));
        let (status, text) = output(shell("echo out")).unwrap();
        assert!(status.success());
        assert_eq!(text, "out\n");
        assert!(!succeeds(Command::new("a-program-that-is-not-there")));

        let mut lines = Vec::new();
        let status = run_watched(shell("echo one; echo two >&2; printf three"), |line| {
            lines.push(line.to_owned());
        })
        .unwrap();
        assert!(status.success());
        assert_eq!(lines, ["one", "two", "three"]);

        // What is left behind holds the pipe for a minute, but the answer comes at once.
        let start = Instant::now();
        let mut left = String::new();
        run_watched(shell("sleep 60 & echo $!"), |line| {
            line.clone_into(&mut left);
        })
        .unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
        assert!(run(shell(&format!("kill {left}"))).unwrap().success());
    }
}
