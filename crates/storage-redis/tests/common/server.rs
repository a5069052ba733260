//! A server of a test's own, in a temporary folder, which is killed and comes back at the same port.

use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Starts the program, and kills its process group when standard input ends: also when the test is gone, whatever took it away.
const GUARD: &str = r#""$@" </dev/null >>log 2>&1 & read -r _; kill -KILL 0"#;

/// A running `redis-server`. Dropped, it is killed.
pub(crate) struct Server {
    folder: TempDir,
    pub(crate) port: u16,
    arguments: Vec<String>,
    running: Option<(Child, ChildStdin)>,
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// False, and the test skipped, where there is no `redis-server`, or none is to be started.
pub(crate) fn can_start() -> bool {
    let version = Command::new("redis-server").arg("--version").output();
    let reason = if std::env::var_os("XTASK_TEST_NO_SERVERS").is_some() {
        "no servers are to be started"
    } else if !version.is_ok_and(|output| output.status.success()) {
        "no redis-server: `cargo xtask test --all` installs it"
    } else {
        return true;
    };
    storage_conformance::skip(reason);
    false
}

impl Server {
    /// A server that has each answer on its disk.
    pub(crate) fn durable() -> Self {
        Self::start(free_port(), &["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn start(port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("storage-redis-").tempdir().unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { folder, port, arguments, running: None };
        server.restart();
        server
    }

    /// A sentinel that watches the server at `port` under the name `main`.
    pub(crate) fn sentinel(port: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("storage-redis-").tempdir().unwrap();
        let own = free_port();
        let config = format!(
            "port {own}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 5000\n"
        );
        std::fs::write(folder.path().join("sentinel.conf"), config).unwrap();
        let mut server = Self { folder, port: own, arguments: vec!["sentinel.conf".into(), "--sentinel".into()], running: None };
        server.restart();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, again with what is in its folder, and waits until it answers. A client that looks for it may have its port for a moment: then it is
    /// started once more.
    pub(crate) fn restart(&mut self) {
        let started = Instant::now();
        loop {
            self.kill();
            self.spawn();
            let spawned = Instant::now();
            while spawned.elapsed() < Duration::from_secs(5) {
                if self.answers() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < super::PATIENCE, "redis-server does not come up: {log}");
        }
    }

    fn spawn(&mut self) {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh", "redis-server"]);
        if !self.arguments.iter().any(|argument| argument == "--sentinel") {
            command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        }
        command.args(&self.arguments).current_dir(self.folder.path()).stdin(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap();
        let guard = child.stdin.take().unwrap();
        self.running = Some((child, guard));
    }

    fn answers(&self) -> bool {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string(), "PING"]).output();
        output.is_ok_and(|output| output.stdout.starts_with(b"PONG") || output.stdout.starts_with(b"NOAUTH"))
    }

    /// Kills it with SIGKILL: it has no time to write anything down.
    pub(crate) fn kill(&mut self) {
        if let Some((mut child, guard)) = self.running.take() {
            drop(guard);
            child.wait().unwrap();
        }
    }

    /// Stops it in its tracks (`STOP`), or lets it go on (`CONT`): connections stay, answers don't come.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).expect("started with `--pidfile pid`");
        assert!(Command::new("kill").args([&format!("-{signal}"), pid.trim()]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
