//! A broker of a test's own, which it may kill, start again and put under stress.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use storage_core::QueueStore;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/broker.sh");
/// Kills the whole process group as soon as standard input ends: when told to, and when the test is gone.
const GUARD: &str = r#"{ "$@" </dev/null; } & read -r _; kill -KILL 0"#;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Broker {
    folder: tempfile::TempDir,
    ports: [u16; 3],
    child: Option<Child>,
}

impl Broker {
    /// Starts one; skips the test where RabbitMQ is not installed or no servers are wanted.
    pub(crate) fn start_or_skip() -> Option<Self> {
        Self::start_with_or_skip(|_| String::new())
    }

    /// Starts one with more settings, which may be files in its folder.
    pub(crate) fn start_with_or_skip(settings: impl FnOnce(&Path) -> String) -> Option<Self> {
        let installed = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").exists();
        if !installed || std::env::var_os("XTASK_TEST_NO_SERVERS").is_some() {
            storage_conformance::skip("needs Debian's rabbitmq-server, of which it starts one of its own");
            return None;
        }
        let ports = free_ports();
        let folder = tempfile::Builder::new().prefix("storage-amqp-").tempdir().expect("a folder");
        std::fs::write(folder.path().join("more.conf"), settings(folder.path())).expect("a file");
        let mut broker = Self { folder, ports, child: None };
        broker.start();
        Some(broker)
    }

    fn arguments(&self) -> Vec<String> {
        let folder = self.folder.path().to_string_lossy().into_owned();
        std::iter::once(folder).chain(self.ports.iter().map(ToString::to_string)).collect()
    }

    pub(crate) fn port(&self) -> u16 {
        self.ports[0]
    }

    pub(crate) fn url(&self, options: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{options}", self.port())
    }

    pub(crate) async fn open(&self, options: &str) -> QueueStore {
        super::open(&self.url(options)).await
    }

    /// Starts it, again after it was killed, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("out")).expect("a log");
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh", "sh", SCRIPT]).args(self.arguments()).current_dir(self.folder.path());
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.child = Some(command.spawn().expect("sh is there"));
        let started = Instant::now();
        while !answers(self.port()) {
            assert!(started.elapsed() < PATIENCE, "the broker does not come up:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("out")).unwrap_or_default();
        log.chars().rev().take(3_000).collect::<Vec<_>>().into_iter().rev().collect()
    }

    /// Kills it without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            child.wait().expect("it ends");
        }
    }

    /// `rabbitmqctl` for this broker.
    pub(crate) fn control(&self, words: &[&str]) -> String {
        let output = Command::new("sh").arg(SCRIPT).args(self.arguments()).args(words).output().expect("sh is there");
        assert!(output.status.success(), "rabbitmqctl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three ports that nobody listens on, and that no outgoing connection takes while the broker is down.
pub(crate) fn free_ports() -> [u16; 3] {
    let start = 12_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 18_000).expect("small");
    let mut free = (start..32_000).step_by(7).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    std::array::from_fn(|_| free.next().expect("a free port"))
}

/// True where a broker offers to speak.
fn answers(port: u16) -> bool {
    use std::io::{Read as _, Write as _};
    let ask = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    // A method frame: `connection.start`.
    ask().is_ok_and(|first| first == 1)
}
