//! A server of a test's own.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use storage_conformance::server::{self, Mortal, OwnServer, PATIENCE, answers, free_port};
use tempfile::TempDir;

/// Also how `cargo xtask test` starts the shared one.
const SCRIPT: &str = include_str!("server.sh");

/// Makes the data of a server that follows another.
const COPY: &str =
    r#"exec "$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)/pg_basebackup" -D data -R -X stream -c fast -d "$1""#;

/// Says who it is, and is answered once queries may come.
const HELLO: &[u8] = b"\x00\x00\x00\x17\x00\x03\x00\x00user\0postgres\0\0";

/// A running PostgreSQL server. Dropped, it is killed.
pub(crate) struct Server(OwnServer);

/// False, and the test skipped, where there is no server program, or none is to be started.
pub(crate) fn can_start() -> bool {
    server::can_start("PostgreSQL", "ls /usr/lib/postgresql/*/bin/postgres")
}

impl Server {
    /// Where the tests' user may see it: not in a folder of root's.
    pub(crate) fn start_new(options: &[&str]) -> Self {
        Self::start_in(Self::folder(), options)
    }

    pub(crate) fn folder() -> TempDir {
        tempfile::Builder::new().prefix("storage-postgres-").tempdir().unwrap()
    }

    /// In a folder with something in it.
    pub(crate) fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let port = free_port();
        let place = [folder.path().display().to_string(), port.to_string()];
        let command = ["sh", "-c", SCRIPT, "server"].map(str::to_owned).into_iter().chain(place);
        let command = command.chain(options.iter().map(ToString::to_string)).collect();

        let mut server = OwnServer::new(folder, port, command, |port| answers(port, HELLO, b"Z\0\0\0\x05I"));
        server.start();
        Self(server)
    }

    /// One that follows this one.
    pub(crate) fn follower(&self) -> Self {
        let folder = Self::folder();
        let copy = Command::new("sh").args(["-c", COPY, "sh", &self.url()]).current_dir(folder.path()).status().unwrap();
        assert!(copy.success(), "no copy of the primary");
        Self::start_in(folder, &[])
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.0.port())
    }
}

impl Mortal for Server {
    fn start(&mut self) {
        self.kill();
        self.0.start();
    }

    /// Kills it with SIGKILL, and all that belongs to it: it has no time to write anything down.
    fn kill(&mut self) {
        let lock = self.0.folder().join("data/postmaster.pid");
        let Some(first) = std::fs::read_to_string(&lock).ok().and_then(|text| Some(text.lines().next()?.to_owned())) else {
            return self.0.kill();
        };
        // Each has a process group of its own.
        let others = Command::new("ps").args(["-o", "pid=", "--ppid", &first]).output().unwrap().stdout;
        let others: Vec<String> = String::from_utf8(others).unwrap().split_whitespace().map(str::to_owned).collect();
        self.0.kill();
        if !others.is_empty() {
            // Some may have ended by themselves.
            let _ = Command::new("kill").arg("-KILL").args(&others).stderr(Stdio::null()).status().unwrap();
        }
        let started = Instant::now();
        while others.iter().chain([&first]).any(|process| is_running(process)) {
            assert!(started.elapsed() < PATIENCE, "PostgreSQL goes on");
            std::thread::sleep(Duration::from_millis(10));
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
