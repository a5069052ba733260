//! MariaDB and MySQL.

use super::{Launch, Place, Ready};
use crate::{Result, doing};

/// How a server is run apart from the system's. Tests that break their server start theirs by the same script.
const MARIADB: &str = include_str!("../../../crates/storage-mysql/tests/common/server.sh");
const MYSQL: &str = include_str!("../../../crates/storage-mysql/tests/common/mysql.sh");

pub(super) fn mariadb(place: &Place) -> Result<Launch> {
    server(place, MARIADB)
}

pub(super) fn mysql(place: &Place) -> Result<Launch> {
    server(place, MYSQL)
}

/// A server that is durable, as it comes. The path of its socket has to be short.
fn server(place: &Place, script: &str) -> Result<Launch> {
    let port = place.ports[0];
    let folder = std::env::temp_dir().join(format!("storage-mysql-{}-{port}", std::process::id()));
    doing(std::fs::create_dir(&folder), || format!("cannot create {}", folder.display()))?;
    let arguments = ["-c".to_owned(), script.to_owned(), "server".to_owned(), folder.display().to_string(), port.to_string()];
    Ok(Launch {
        program: Some("sh"),
        arguments: arguments.to_vec(),
        address: format!("mysql://root@127.0.0.1:{port}"),
        // It speaks first, and names how it wants to know who comes.
        ready: Ready::Answer { ports: vec![port], ask: b"", expect: b"_password" },
        beside: Some(folder),
    })
}
