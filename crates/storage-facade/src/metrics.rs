//! Serving the numbers of calls, as configuration says it.

use storage_core::{Error, Result};

use crate::config::MetricsConfig;

/// Serves what is configured, once in a process.
///
/// # Errors
/// [`Config`](storage_core::ErrorKind::Config): it is not compiled in; the address can't be listened on; the program has a recorder of its own.
pub(crate) fn start(config: &MetricsConfig) -> Result<()> {
    if !config.enabled {
        return Ok(());
    }
    match config.listen {
        Some(address) => serve(config, address),
        None if cfg!(feature = "metrics") => Ok(()),
        None => Err(missing(config, "metrics", "metrics")),
    }
}

fn missing(config: &MetricsConfig, key: &str, feature: &str) -> Error {
    Error::config(format!("{}: `{key}` is not compiled in: build with the cargo feature `{feature}`", config.source))
}

#[cfg(not(feature = "prometheus"))]
fn serve(config: &MetricsConfig, _: std::net::SocketAddr) -> Result<()> {
    Err(missing(config, "metrics.listen", "prometheus"))
}

#[cfg(feature = "prometheus")]
fn serve(config: &MetricsConfig, address: std::net::SocketAddr) -> Result<()> {
    use std::net::SocketAddr;
    use std::sync::{Mutex, PoisonError};

    use storage_layers::observe::Prometheus;

    // A process has one recorder: all that it opens are told of there.
    static SERVED: Mutex<Option<SocketAddr>> = Mutex::new(None);
    let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    let fail = |what: &str| Error::config(format!("{}: `metrics.listen`: {what}", config.source));
    match *served {
        Some(there) if there == address => return Ok(()),
        Some(there) => return Err(fail(&format!("this process serves its metrics on {there} already: set the same address"))),
        None => {}
    }
    Prometheus::install(Some(address)).map_err(|e| fail(e.message()))?;
    *served = Some(address);
    Ok(())
}
