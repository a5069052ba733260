//! Brokers that speak NATS.

use super::{Launch, Place, Ready};
use crate::Result;

/// A NATS server with JetStream in a folder of its own.
pub(super) fn server(place: &Place) -> Result<Launch> {
    let (port, monitoring) = (place.ports[0], place.ports[1]);
    let store = place.folder.join("store");
    let arguments =
        ["-a", "127.0.0.1", "-p", &port.to_string(), "-m", &monitoring.to_string(), "-js", "-sd", &store.to_string_lossy()];
    let arguments = arguments.map(str::to_owned).to_vec();
    Ok(Launch {
        program: None,
        arguments,
        address: format!("nats://127.0.0.1:{port}"),
        ready: Ready::Http(monitoring),
        beside: None,
    })
}
