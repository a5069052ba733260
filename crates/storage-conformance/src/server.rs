//! Servers for tests: shared ones, which `cargo xtask test` starts, and a test's own, in a temporary folder, which is killed and comes back at the same port.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use storage_core::{Driver, DriverConfig, ErrorKind};
use tempfile::TempDir;

use crate::{DriverHarness, Place};

/// How long is waited for what should come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a program, and kills its process group when standard input ends: also when the test is gone, whatever took it away.
const GUARD: &str = r#""$@" </dev/null >>log 2>&1 & read -r _; kill -KILL 0"#;

/// The address of a shared server, which is in that variable, or why there is none.
pub fn shared(name: &str, backend: &str, variable: &str) -> Result<String, String> {
    std::env::var(variable).map_err(|_| {
        format!(
            "no {name}: `cargo xtask test --backend {backend}` starts it where it is installed (`--all` installs it), or set {variable}"
        )
    })
}

/// The address, or the test is skipped.
pub fn or_skip(address: Result<String, String>) -> Option<String> {
    address.map_err(|reason| crate::skip(&reason)).ok()
}

/// What nobody else on a shared server is called.
pub fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("t{}x{}", crate::process_mark(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The suites' harness on a shared database server, with each place `apart` from all others. At `broken` nobody listens.
pub fn harness<D: Driver>(
    driver: D,
    address: Result<String, String>,
    apart: fn(&str) -> String,
    broken: &'static str,
) -> DriverHarness<D> {
    let unavailable = address.as_ref().err().cloned();
    let address = address.unwrap_or_default();
    let place = move || {
        let mut place = Place::url(&apart(&address));
        // Many tests share the server's connections.
        place.config.pool_size = Some(4);
        Ok(place)
    };
    DriverHarness::new(driver, place).broken(|| Ok(Place::url(broken))).manual_clock().unavailable(unavailable)
}

/// That none of these can be opened, each for that reason, and without a word of its password `hunter2`.
pub async fn refuses<D: Driver>(driver: D, places: impl IntoIterator<Item = (String, ErrorKind)>) {
    for (url, kind) in places {
        let config = DriverConfig { timeout: Some(Duration::from_secs(5)), ..DriverConfig::from_url(&url) };
        let error = driver.open(&config).await.expect_err("it can't be opened");
        assert_eq!(error.kind(), kind, "{url}: {error:?}");
        assert_eq!(error.is_retryable(), kind == ErrorKind::Unavailable, "{error:?}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// False, and the test skipped, where a shell does not find the server's program with `look`, or none is to be started.
pub fn can_start(name: &str, look: &str) -> bool {
    let is_there = Command::new("sh").args(["-c", look]).output();
    let reason = if std::env::var_os("XTASK_TEST_NO_SERVERS").is_some() {
        "no servers are to be started".to_owned()
    } else if !is_there.is_ok_and(|output| output.status.success()) {
        format!("no {name}: `cargo xtask test --all` installs it")
    } else {
        return true;
    };
    crate::skip(&reason);
    false
}

/// True where the beginning of what comes from the port, once `ask` was sent, holds `expect`.
pub fn answers(port: u16, ask: &[u8], expect: &[u8]) -> bool {
    let talk = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(ask)?;
        let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
        while !answer.windows(expect.len()).any(|part| part == expect) {
            match stream.read(&mut piece)? {
                0 => return Ok(false),
                length => answer.extend_from_slice(&piece[..length]),
            }
        }
        Ok(true)
    };
    talk().unwrap_or(false)
}

/// A server. Dropped, it is killed.
#[derive(Debug)]
pub struct OwnServer {
    folder: TempDir,
    port: u16,
    command: Vec<String>,
    answers: fn(u16) -> bool,
    running: Option<(Child, ChildStdin)>,
}

impl OwnServer {
    /// One that `command`, its program and arguments, runs within the folder until it is killed.
    pub fn new(folder: TempDir, port: u16, command: Vec<String>, answers: fn(u16) -> bool) -> Self {
        Self { folder, port, command, answers, running: None }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it keeps.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it, again with what is in its folder, and waits until it answers.
    pub fn start(&mut self) {
        self.kill();
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh"]).args(&self.command).current_dir(self.folder.path()).stdin(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap();
        let guard = child.stdin.take().unwrap();
        self.running = Some((child, guard));
        let started = Instant::now();
        while !(self.answers)(self.port) {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "{} does not come up: {log}", self.command[0]);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it with SIGKILL: it has no time to write anything down.
    pub fn kill(&mut self) {
        if let Some((mut child, guard)) = self.running.take() {
            drop(guard);
            child.wait().unwrap();
        }
    }
}

/// A server that is killed and comes back.
pub trait Mortal {
    /// Kills it, at once.
    fn kill(&mut self);

    /// Starts it, again with what it has kept, and waits until it answers.
    fn start(&mut self);
}

impl Mortal for OwnServer {
    fn kill(&mut self) {
        Self::kill(self);
    }

    fn start(&mut self) {
        Self::start(self);
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Calls `look` until it answers something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
