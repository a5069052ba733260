//! Servers that tests talk to: found, started on free private ports of 127.0.0.1, told to the tests, stopped at the end.
//!
//! A new server is a new [`Spec`] in [`SPECS`] and a function that says how it is started. What is not installed is not started; its
//! tests say that they could not run.

mod mysql;
mod nats;
mod object;
mod postgres;
mod process;
mod queues;
mod redis;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::workspace::Workspace;
use crate::{Failure, Result, doing};
use process::Running;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(90);

/// A kind of server.
struct Spec {
    name: &'static str,
    /// The backend crate whose tests use it, without `storage-`.
    backend: &'static str,
    /// The environment variable in which tests find its address. One that is set already is left, and nothing is started.
    variable: &'static str,
    /// The program, as it is looked for in `PATH`.
    program: &'static str,
    /// How many ports it takes.
    ports: usize,
    launch: fn(&Place) -> Result<Launch>,
}

/// All there are.
const SPECS: &[Spec] = &[
    Spec {
        name: "SeaweedFS",
        backend: "object",
        variable: "XTASK_TEST_SEAWEEDFS",
        program: "weed",
        ports: 8,
        launch: object::seaweedfs,
    },
    Spec { name: "moto", backend: "object", variable: "XTASK_TEST_MOTO", program: "moto_server", ports: 1, launch: object::moto },
    Spec {
        name: "Azurite",
        backend: "object",
        variable: "XTASK_TEST_AZURITE",
        program: "azurite-blob",
        ports: 1,
        launch: object::azurite,
    },
    Spec {
        name: "Apache",
        backend: "object",
        variable: "XTASK_TEST_APACHE",
        // Not in the path of ordinary users.
        program: "/usr/sbin/apache2",
        ports: 1,
        launch: object::apache,
    },
    Spec {
        name: "nats-server",
        backend: "nats",
        variable: "XTASK_TEST_NATS",
        program: "nats-server",
        ports: 2,
        launch: nats::server,
    },
    Spec {
        name: "MariaDB",
        backend: "mysql",
        variable: "XTASK_TEST_MARIADB",
        // Not in the path of ordinary users.
        program: "/usr/sbin/mariadbd",
        ports: 1,
        launch: mysql::mariadb,
    },
    Spec {
        name: "MySQL",
        backend: "mysql",
        variable: "XTASK_TEST_MYSQL",
        program: "mysqld-unpacked",
        ports: 1,
        launch: mysql::mysql,
    },
    Spec {
        name: "PostgreSQL",
        backend: "postgres",
        variable: "XTASK_TEST_POSTGRES",
        // Debian's `postgres` is in a folder of its version, which the script finds; `initdb` and the rest are there with it.
        program: "/usr/share/postgresql-common/pg_wrapper",
        ports: 1,
        launch: postgres::server,
    },
    Spec {
        name: "RabbitMQ",
        backend: "queue-amqp",
        variable: "XTASK_TEST_RABBITMQ",
        program: "/usr/lib/rabbitmq/bin/rabbitmq-server",
        ports: 3,
        launch: queues::rabbitmq,
    },
    Spec {
        name: "Azurite (queues)",
        backend: "queue-azure",
        variable: "XTASK_TEST_AZURITE_QUEUE",
        program: "azurite-queue",
        ports: 1,
        launch: object::azurite_queue,
    },
    Spec {
        name: "Azurite (tables)",
        backend: "table-azure",
        variable: "XTASK_TEST_AZURITE_TABLE",
        program: "azurite-table",
        ports: 1,
        launch: object::azurite_table,
    },
    Spec {
        name: "Redis",
        backend: "redis",
        variable: "XTASK_TEST_REDIS",
        program: "redis-server",
        ports: 1,
        launch: redis::single,
    },
    Spec {
        name: "Redis Cluster",
        backend: "redis",
        variable: "XTASK_TEST_REDIS_CLUSTER",
        program: "redis-server",
        ports: 6,
        launch: redis::cluster,
    },
];

/// What a server is given: a folder of its own, and ports that were free a moment ago.
struct Place {
    folder: PathBuf,
    ports: Vec<u16>,
}

/// How a server is started, and how it is known to be up.
struct Launch {
    /// What is started, if it is not the server's program itself.
    program: Option<&'static str>,
    arguments: Vec<String>,
    /// What tests are told.
    address: String,
    ready: Ready,
    /// A folder elsewhere that goes with it.
    beside: Option<PathBuf>,
}

/// When a server is up.
enum Ready {
    /// It answers HTTP at this port, whatever it answers.
    Http(u16),
    /// At each of these ports it answers so to that.
    Answer { ports: Vec<u16>, ask: &'static [u8], expect: &'static [u8] },
}

/// The servers of one run. Dropped, they stop.
pub(crate) struct Servers {
    running: Vec<Started>,
    folder: PathBuf,
}

/// A server that answers.
struct Started {
    /// Ends with this.
    _running: Running,
    variable: &'static str,
    address: String,
    beside: Option<PathBuf>,
}

impl Servers {
    /// Starts the servers of the backends that are `wanted` by their name.
    ///
    /// # Errors
    ///
    /// When interrupted, or no folder can be made. A server that does not come up is reported and left out.
    pub(crate) fn start(workspace: &Workspace, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let folder = workspace.target.join("xtask").join(format!("servers-{}", std::process::id()));
        let mut servers = Self { running: Vec::new(), folder: folder.clone() };
        // The protection from processes that outlive us is made for Unix.
        if !cfg!(unix) {
            return Ok(servers);
        }
        let wanted = SPECS.iter().filter(|spec| wanted(spec.backend));
        for spec in wanted.filter(|spec| std::env::var_os(spec.variable).is_none()) {
            if !is_installed(workspace, spec.program) {
                continue;
            }
            match spec.start(workspace, &folder) {
                Ok(started) => {
                    println!("{} listens at {}", spec.name, started.address);
                    servers.running.push(started);
                }
                Err(Failure::Interrupted) => return Err(Failure::Interrupted),
                Err(Failure::Failed(message) | Failure::Usage(message)) => eprintln!("warning: {message}"),
            }
        }
        Ok(servers)
    }

    /// Variables and addresses, to be told to who uses them.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.running.iter().map(|started| (started.variable, started.address.as_str()))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let beside: Vec<PathBuf> = self.running.drain(..).filter_map(|started| started.beside).collect();
        // If the first stays, `cargo clean` removes it.
        for folder in std::iter::once(&self.folder).chain(&beside) {
            _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Spec {
    fn start(&self, workspace: &Workspace, folder: &Path) -> Result<Started> {
        let folder = folder.join(self.variable);
        doing(std::fs::create_dir_all(&folder), || format!("cannot create {}", folder.display()))?;
        let place = Place { ports: free_ports(self.ports)?, folder };
        let launch = (self.launch)(&place)?;
        let mut running = Running::start(workspace, launch.program.unwrap_or(self.program), &launch.arguments, &place.folder)?;
        match launch.ready {
            Ready::Http(port) => running.await_http(port, PATIENCE)?,
            Ready::Answer { ports, ask, expect } => {
                ports.into_iter().try_for_each(|port| running.await_answer(port, ask, expect, PATIENCE))?;
            }
        }
        Ok(Started { _running: running, variable: self.variable, address: launch.address, beside: launch.beside })
    }
}

fn is_installed(workspace: &Workspace, program: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$1\"", "sh", program]).env("PATH", crate::provision::search_path(workspace));
    crate::process::succeeds(command)
}

/// Ports that nobody listens on. All are held until the last is found, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let find = || -> std::io::Result<Vec<u16>> {
        let listeners = (0..count).map(|_| std::net::TcpListener::bind(("127.0.0.1", 0))).collect::<Result<Vec<_>, _>>()?;
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
    };
    doing(find(), || "cannot find free ports".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_differ() {
        let mut ports = free_ports(8).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
        assert!(!ports.contains(&0));
    }

    /// By what words a server's programs are told where to listen, on the command line or in a script: all of them, for each.
    fn told_by(server: &str) -> &'static [&'static str] {
        match server {
            "SeaweedFS" => &["-ip=", "-ip.bind="],
            "moto" => &["-H"],
            "Azurite" => &["--blobHost"],
            "Azurite (queues)" => &["--queueHost"],
            "Azurite (tables)" => &["--tableHost"],
            "Apache" => &["Listen"],
            "nats-server" => &["-a"],
            "MariaDB" | "MySQL" => &["--bind-address="],
            "PostgreSQL" => &["listen_addresses="],
            "RabbitMQ" => &["RABBITMQ_NODE_IP_ADDRESS=", "ERL_EPMD_ADDRESS=", "inet_dist_use_interface", "-address"],
            "Redis" | "Redis Cluster" => &["--bind"],
            _ => panic!("say here by what words {server} is told where to listen"),
        }
    }

    /// What stands behind each of these words, without a port.
    fn addresses(text: &str, words: &[&str]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut tokens = text.split([' ', '\n', '"', '\'']).filter(|token| !token.is_empty()).peekable();
        while let Some(token) = tokens.next() {
            let Some(word) = words.iter().find(|word| token == **word || (word.ends_with('=') && token.starts_with(**word)))
            else {
                continue;
            };
            let value =
                token.strip_prefix(word).filter(|rest| !rest.is_empty()).or_else(|| tokens.peek().copied()).unwrap_or_default();
            // Erlang writes {127,0,0,1}.
            let value = value.trim_matches(['{', '}']).replace(',', ".");
            found.push(((*word).to_owned(), value.split(':').next().unwrap_or_default().to_owned()));
        }
        found
    }

    #[test]
    fn every_server_listens_here_alone() {
        let folder = tempfile::tempdir().unwrap();
        for spec in SPECS {
            let place = Place { folder: folder.path().to_owned(), ports: (40_000..).take(spec.ports).collect() };
            let launch = (spec.launch)(&place).unwrap();
            for host in launch.address.rsplit(['/', '@', ',']).filter(|part| part.contains(':') && !part.ends_with(':')) {
                assert!(host.starts_with("127.0.0.1:40") || host.starts_with("guest:"), "{}: {host}", spec.name);
            }
            let words = told_by(spec.name);
            let found = addresses(&launch.arguments.join("\n"), words);
            for word in words {
                assert!(found.iter().any(|(told, _)| told == word), "{} is not told {word}: {found:?}", spec.name);
            }
            assert!(found.iter().all(|(_, address)| address == "127.0.0.1"), "{}: {found:?}", spec.name);
            if let Some(folder) = launch.beside {
                std::fs::remove_dir_all(folder).unwrap();
            }
        }
    }

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        let found = addresses(
            "x --bind 0.0.0.0 -ip.bind=1.2.3.4 -ip=:: export A=127.0.0.1 \"-k {10,0,0,1}\" Listen\n*:80",
            &["--bind", "-ip.bind=", "A=", "-k", "Listen"],
        );
        let expected =
            [("--bind", "0.0.0.0"), ("-ip.bind=", "1.2.3.4"), ("A=", "127.0.0.1"), ("-k", "10.0.0.1"), ("Listen", "*")];
        assert_eq!(found, expected.map(|(word, address)| (word.to_owned(), address.to_owned())));
    }
}
