//! An emulator of a test's own, in a temporary folder, which is killed and comes back at the same port.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Starts the program, and kills its process group when standard input ends: also when the test is gone, whatever took it away.
const GUARD: &str = r#""$@" </dev/null >>log 2>&1 & server=$!; echo $server >pid; read -r _; kill -KILL 0"#;
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Azurite. Dropped, it is killed.
pub(crate) struct Server {
    /// `queue` or `table`.
    service: &'static str,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    running: Option<(Child, ChildStdin)>,
}

/// A port that nobody listens on, and that no outgoing connection takes while the server is down.
fn free_port() -> u16 {
    let start = 12_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 18_000).unwrap();
    (start..32_000).step_by(7).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

impl Server {
    /// Starts one of a service, which keeps its data in its folder by default; skips the test where Azurite is not installed or no servers are wanted.
    pub(crate) fn start_or_skip(service: &'static str, arguments: &[&str]) -> Option<Self> {
        let program = format!("azurite-{service}");
        let version = Command::new(&program).arg("--version").output();
        let reason = if std::env::var_os("XTASK_TEST_NO_SERVERS").is_some() {
            "no servers are to be started".to_owned()
        } else if !version.is_ok_and(|output| output.status.success()) {
            format!("no {program}: `cargo xtask test --all` installs it")
        } else {
            let folder = tempfile::Builder::new().prefix("storage-azure-").tempdir().unwrap();
            let arguments = arguments.iter().map(ToString::to_string).collect();
            let mut server = Self { service, folder, port: free_port(), arguments, running: None };
            server.start();
            return Some(server);
        };
        storage_conformance::skip(&reason);
        None
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it, again with what is in its folder, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh", &format!("azurite-{}", self.service), "--silent", "--disableTelemetry"]);
        command.args([format!("--{}Host", self.service), "127.0.0.1".to_owned()]);
        command.args([format!("--{}Port", self.service), self.port.to_string()]);
        command.args(&self.arguments).current_dir(self.folder.path()).stdin(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap();
        let guard = child.stdin.take().unwrap();
        self.running = Some((child, guard));
        let started = Instant::now();
        while !self.listens() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "Azurite does not come up: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn listens(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let address = SocketAddr::from(([127, 0, 0, 1], self.port));
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            if self.arguments.iter().any(|argument| argument == "--cert") {
                return Ok(true);
            }
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
            let mut begun = [0; 5];
            stream.read_exact(&mut begun)?;
            Ok(&begun == b"HTTP/")
        };
        ask().unwrap_or(false)
    }

    /// Stops it in its tracks (`-STOP`), or lets it go on (`-CONT`): connections stay, answers don't come.
    pub(crate) fn signal(&self, signal: &str) -> bool {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).unwrap();
        Command::new("kill").args([signal, pid.trim()]).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Ends it as an operator does: it answers nobody any more, and writes down what it has. That takes as long as there are connections.
    pub(crate) fn stop(&mut self) {
        let Some((mut child, guard)) = self.running.take() else { return };
        let closed = |log: &str| log.matches("successfully closed").count();
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let before = closed(&log());
        // The one that serves tables knows this alone, the others both.
        self.signal("-INT");
        let started = Instant::now();
        while closed(&log()) == before {
            assert!(started.elapsed() < PATIENCE, "Azurite does not end: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(guard);
        child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((mut child, guard)) = self.running.take() {
            drop(guard);
            _ = child.wait();
        }
    }
}

/// A token as the emulator wants it: it looks at what is in it, not at who signed it.
pub(crate) fn token(valid_for: TimeDelta) -> String {
    let now = Utc::now();
    let claims = json!({
        "aud": "https://storage.azure.com", "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "iat": (now - TimeDelta::hours(2)).timestamp(), "nbf": (now - TimeDelta::hours(2)).timestamp(),
        "exp": (now + valid_for).timestamp(), "oid": "23657296-5cd5-45b0-a809-d972a7f4dfe1",
    });
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims), BASE64_URL_SAFE_NO_PAD.encode("unsigned"))
}
