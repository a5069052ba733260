//! A server of a test's own.

use std::ops::{Deref, DerefMut};
use std::process::Command;

use storage_conformance::server::{self, OwnServer};
use tempfile::TempDir;

pub(crate) use storage_conformance::server::free_port;

/// A client that looks for it may have its port for a moment: then it is started once more.
const SCRIPT: &str = r#"until redis-server "$@"; do sleep 0.1; done"#;

/// A running `redis-server`. Dropped, it is killed.
pub(crate) struct Server(OwnServer);

/// False, and the test skipped, where there is no `redis-server`, or none is to be started.
pub(crate) fn can_start() -> bool {
    server::can_start("redis-server", "command -v redis-server")
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("storage-redis-").tempdir().unwrap()
}

fn answers(port: u16) -> bool {
    let output = Command::new("redis-cli").args(["-p", &port.to_string(), "PING"]).output();
    output.is_ok_and(|output| output.stdout.starts_with(b"PONG") || output.stdout.starts_with(b"NOAUTH"))
}

impl Server {
    /// A server that has each answer on its disk.
    pub(crate) fn durable() -> Self {
        Self::start(free_port(), &["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn start(port: u16, arguments: &[&str]) -> Self {
        let place = ["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""];
        Self::start_in(folder(), port, &[&place[..], arguments].concat())
    }

    /// A sentinel that watches the server at `port` under the name `main`.
    pub(crate) fn sentinel(port: u16) -> Self {
        let (folder, own) = (folder(), free_port());
        let config = format!(
            "port {own}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 5000\n"
        );
        std::fs::write(folder.path().join("sentinel.conf"), config).unwrap();
        Self::start_in(folder, own, &["sentinel.conf", "--sentinel"])
    }

    fn start_in(folder: TempDir, port: u16, arguments: &[&str]) -> Self {
        let command = ["sh", "-c", SCRIPT, "redis-server"].iter().chain(arguments).map(ToString::to_string).collect();
        let mut server = OwnServer::new(folder, port, command, answers);
        server.start();
        Self(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Starts it, again with what is in its folder, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.0.start();
    }

    /// Stops it in its tracks (`STOP`), or lets it go on (`CONT`): connections stay, answers don't come.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.folder().join("pid")).expect("started with `--pidfile pid`");
        assert!(Command::new("kill").args([&format!("-{signal}"), pid.trim()]).status().unwrap().success());
    }
}

impl Deref for Server {
    type Target = OwnServer;

    fn deref(&self) -> &OwnServer {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut OwnServer {
        &mut self.0
    }
}
