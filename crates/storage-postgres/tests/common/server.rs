//! A server of a test's own, in a temporary folder, which is killed and comes back at the same port.

use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

/// Also how `cargo xtask test` starts the shared one.
const SCRIPT: &str = include_str!("server.sh");
/// Starts the script, and kills its process group when standard input ends: also when the test is gone, whatever took it away.
const GUARD: &str = r#""$@" </dev/null >>log 2>&1 & read -r _; kill -KILL 0"#;

/// A running server. Dropped, it is killed.
pub(crate) struct Server {
    folder: TempDir,
    pub(crate) port: u16,
    options: Vec<String>,
    running: Option<(Child, ChildStdin)>,
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// False, and the test skipped, where there is no server program, or none is to be started.
pub(crate) fn can_start() -> bool {
    let is_there = Command::new("sh").args(["-c", "ls /usr/lib/postgresql/*/bin/postgres"]).output();
    let reason = if std::env::var_os("XTASK_TEST_NO_SERVERS").is_some() {
        "no servers are to be started"
    } else if !is_there.is_ok_and(|output| output.status.success()) {
        "no PostgreSQL: `cargo xtask test --all` installs it"
    } else {
        return true;
    };
    storage_conformance::skip(reason);
    false
}

impl Server {
    /// Where the tests' user may see it: not in a folder of root's.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_in(Self::folder(), options)
    }

    pub(crate) fn folder() -> TempDir {
        tempfile::Builder::new().prefix("storage-postgres-").tempdir().unwrap()
    }

    /// In a folder with something in it.
    pub(crate) fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let options = options.iter().map(ToString::to_string).collect();
        let mut server = Self { folder, port: free_port(), options, running: None };
        server.restart();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it, again with what is in its folder, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh", "sh", "-c", SCRIPT, "server"]);
        command.arg(self.folder.path()).arg(self.port.to_string()).args(&self.options);
        command.current_dir(self.folder.path()).stdin(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap();
        let guard = child.stdin.take().unwrap();
        self.running = Some((child, guard));
        let started = Instant::now();
        while !self.answers() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < super::PATIENCE, "PostgreSQL does not come up: {log}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let ask = || -> std::io::Result<bool> {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
            stream.write_all(b"\x00\x00\x00\x17\x00\x03\x00\x00user\0postgres\0\0")?;
            let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
            while !answer.windows(6).any(|part| part == b"Z\0\0\0\x05I") {
                match stream.read(&mut piece)? {
                    0 => return Ok(false),
                    length => answer.extend_from_slice(&piece[..length]),
                }
            }
            Ok(true)
        };
        ask().unwrap_or(false)
    }

    /// Kills it with SIGKILL, and all that belongs to it: it has no time to write anything down.
    pub(crate) fn kill(&mut self) {
        let Some((mut child, guard)) = self.running.take() else { return };
        let lock = self.folder.path().join("data/postmaster.pid");
        let first = std::fs::read_to_string(&lock).unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        // Each has a process group of its own.
        let others = Command::new("ps").args(["-o", "pid=", "--ppid", &first]).output().unwrap().stdout;
        let others: Vec<String> = String::from_utf8(others).unwrap().split_whitespace().map(str::to_owned).collect();
        drop(guard);
        child.wait().unwrap();
        if !others.is_empty() {
            // Some may have ended by themselves.
            let _ = Command::new("kill").arg("-KILL").args(&others).stderr(Stdio::null()).status().unwrap();
        }
        let started = Instant::now();
        while others.iter().chain([&first]).any(|process| is_running(process)) {
            assert!(started.elapsed() < super::PATIENCE, "PostgreSQL goes on");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // Where nobody takes note of its end, its number stays taken, and the next takes it for running.
        let _ = std::fs::remove_file(lock);
    }
}

/// True for a process that still does something.
fn is_running(process: &str) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", process]).output().unwrap().stdout;
    !state.is_empty() && !state.starts_with(b"Z")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
