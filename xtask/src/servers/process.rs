//! A program that runs beside the tests and never outlives `xtask`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::workspace::Workspace;
use crate::{Failure, Result, doing, process, provision};

/// Starts the program and kills its whole process group as soon as standard input ends: when it is closed, and when `xtask` is gone,
/// whatever took it away. A program that ends by itself leaves a file that says so.
const GUARD: &str = r#"{ "$@" </dev/null; echo "$?" >ended; } & read -r _; kill -KILL 0"#;
const TICK: Duration = Duration::from_millis(100);
/// How much of an answer is looked at.
const LONGEST_ANSWER: usize = 16 << 10;
/// How much of a log is shown.
const TAIL: usize = 2_000;

/// A running program. Dropped, it is killed: what it holds is worth nothing.
pub(super) struct Running {
    child: Child,
    /// Closed to end the program.
    guard: Option<ChildStdin>,
    log: PathBuf,
    name: String,
}

impl Running {
    /// Starts `program` in `folder`, with its output in a file there.
    pub(super) fn start(workspace: &Workspace, program: &str, arguments: &[String], folder: &Path) -> Result<Self> {
        let log = folder.join("log");
        let output = doing(std::fs::File::create(&log), || format!("cannot create {}", log.display()))?;
        let errors = doing(output.try_clone(), || format!("cannot open {} twice", log.display()))?;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh", program]).args(arguments).current_dir(folder);
        command.env("PATH", provision::search_path(workspace));
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = doing(command.spawn(), || format!("cannot start {program}"))?;
        let guard = child.stdin.take();
        Ok(Self { child, guard, log, name: program.to_owned() })
    }

    /// Waits until something answers HTTP at the port.
    pub(super) fn await_http(&mut self, port: u16, patience: Duration) -> Result<()> {
        self.await_answer(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", b"HTTP/", patience)
    }

    /// Waits until what is asked at the port is answered with what is expected.
    pub(super) fn await_answer(&mut self, port: u16, ask: &[u8], expect: &[u8], patience: Duration) -> Result<()> {
        let start = Instant::now();
        while !answers(port, ask, expect) {
            process::not_interrupted()?;
            let ended = self.log.with_file_name("ended").exists();
            if ended || start.elapsed() > patience {
                let log = std::fs::read(&self.log).unwrap_or_default();
                let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL)..]).into_owned();
                let what = if ended { "ended".to_owned() } else { format!("does not answer at port {port} after {patience:?}") };
                return Err(Failure::Failed(format!("{} {what}:\n{tail}", self.name)));
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.guard.take());
        // The guard kills itself with the others.
        _ = self.child.wait();
    }
}

/// True where the beginning of the answer, which may come in pieces, holds what is expected.
fn answers(port: u16, question: &[u8], expected: &[u8]) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(question)?;
        let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
        while answer.len() < LONGEST_ANSWER {
            let length = stream.read(&mut piece)?;
            answer.extend_from_slice(&piece[..length]);
            if answer.windows(expected.len()).any(|part| part == expected) {
                return Ok(true);
            }
            if length == 0 {
                break;
            }
        }
        Ok(false)
    };
    ask().unwrap_or(false)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        Workspace { root: "/".into(), target: "/nowhere".into(), packages: Vec::new() }
    }

    /// True while there is a process of that number.
    fn lives(process: &str) -> bool {
        let mut command = Command::new("kill");
        command.args(["-0", process]);
        process::succeeds(command)
    }

    #[test]
    fn a_program_and_what_it_started_end_with_us() {
        let folder = tempfile::tempdir().unwrap();
        let script = "sleep 600 & echo $! > child; echo $$ > own; wait".to_owned();
        let running = Running::start(&workspace(), "sh", &["-c".to_owned(), script], folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default().trim().to_owned();
        let start = Instant::now();
        while read("own").is_empty() {
            assert!(start.elapsed() < Duration::from_secs(30), "it does not start");
            std::thread::sleep(TICK);
        }
        let (child, own) = (read("child"), read("own"));
        assert!(lives(&child) && lives(&own));
        drop(running);
        let start = Instant::now();
        while lives(&child) || lives(&own) {
            assert!(start.elapsed() < Duration::from_secs(30), "it goes on");
            std::thread::sleep(TICK);
        }
    }
}
