//! A server of a test's own.

use storage_conformance::server::{self, Mortal, OwnServer, answers, free_port};
use tempfile::TempDir;

/// Also how `cargo xtask test` starts the shared one.
const SCRIPT: &str = include_str!("server.sh");

/// A running MariaDB server. Dropped, it is killed.
pub(crate) struct Server(OwnServer);

/// False, and the test skipped, where there is no server program, or none is to be started.
pub(crate) fn can_start() -> bool {
    server::can_start("MariaDB", "PATH=$PATH:/usr/sbin; command -v mariadbd && command -v mariadb-install-db")
}

impl Server {
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_in(Self::folder(), options)
    }

    pub(crate) fn folder() -> TempDir {
        tempfile::Builder::new().prefix("storage-mysql-").tempdir().unwrap()
    }

    /// In a folder with something in it.
    pub(crate) fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let port = free_port();
        let place = [folder.path().display().to_string(), port.to_string()];
        let command = ["sh", "-c", SCRIPT, "server"].map(str::to_owned).into_iter().chain(place);
        let command = command.chain(options.iter().map(ToString::to_string)).collect();
        // It speaks first, and names how it wants to know who comes.
        let mut server = OwnServer::new(folder, port, command, |port| answers(port, b"", b"_password"));
        server.start();
        Self(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    pub(crate) fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}", self.port())
    }
}

impl Mortal for Server {
    fn kill(&mut self) {
        self.0.kill();
    }

    fn start(&mut self) {
        self.0.start();
    }
}
