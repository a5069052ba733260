//! PostgreSQL.

use super::{Launch, Place, Ready};
use crate::{Result, doing};

/// How a server is run apart from the system's. Tests that break their server start theirs by the same script.
const SCRIPT: &str = include_str!("../../../crates/storage-postgres/tests/common/server.sh");
/// Says who it is, and is answered once queries may come.
const HELLO: &[u8] = b"\x00\x00\x00\x17\x00\x03\x00\x00user\0postgres\0\0";

/// A server that is durable, as it comes. Started by root it becomes another user, who may see no folder of root's.
pub(super) fn server(place: &Place) -> Result<Launch> {
    let port = place.ports[0];
    let folder = std::env::temp_dir().join(format!("storage-postgres-{}-{port}", std::process::id()));
    doing(std::fs::create_dir(&folder), || format!("cannot create {}", folder.display()))?;
    let arguments = ["-c".to_owned(), SCRIPT.to_owned(), "server".to_owned(), folder.display().to_string(), port.to_string()];
    Ok(Launch {
        program: Some("sh"),
        arguments: arguments.to_vec(),
        address: format!("postgres://postgres@127.0.0.1:{port}/postgres"),
        ready: Ready::Answer { ports: vec![port], ask: HELLO, expect: b"Z\0\0\0\x05I" },
        beside: Some(folder),
    })
}
