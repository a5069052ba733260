//! What the settings of every server have in common.

use std::time::Duration;

use storage_core::{DriverConfig, Error, OptionSpec, Result};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_CONNECT_TIMEOUT: u64 = 5;
const MAX_CONNECT_TIMEOUT: u64 = 300;
const DEFAULT_CONNECTIONS: u32 = 8;
const MAX_CONNECTIONS: u32 = 256;

/// An option, and what it does.
#[must_use]
pub const fn option(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, help }
}

/// Who signs the server's certificate.
pub const ROOT_CERTIFICATES: OptionSpec =
    option("sslrootcert", "The path of a file with the certificates (PEM) that sign the server's. Default: the system's.");
/// How long it may take to connect.
pub const CONNECT_TIMEOUT: OptionSpec =
    option("connect_timeout", "How many seconds it may take to connect, 1 to 300. Default: 5.");

/// That certificates are named where they are looked at.
///
/// # Errors
/// [`Config`](storage_core::ErrorKind::Config) where they are not.
pub fn check_root_certificates(file: Option<&str>, verified: bool) -> Result<()> {
    match file {
        Some(_) if !verified => Err(Error::config("`sslrootcert` is of use with sslmode verify-full alone")),
        _ => Ok(()),
    }
}

/// How many connections there may be: 2 to 256, 8 where nothing is said.
///
/// # Errors
/// [`Config`](storage_core::ErrorKind::Config) for other numbers.
pub fn check_pool_size(config: &DriverConfig) -> Result<usize> {
    let connections = config.pool_size.unwrap_or(DEFAULT_CONNECTIONS);
    if !(2..=MAX_CONNECTIONS).contains(&connections) {
        return Err(Error::config(format!("pool_size = {connections}: use 2 to {MAX_CONNECTIONS}")));
    }
    Ok(usize::try_from(connections).unwrap_or(usize::MAX))
}

/// How long it may take to connect: 1 to 300 s, 5 s where nothing is said.
///
/// # Errors
/// [`Config`](storage_core::ErrorKind::Config) for other numbers.
pub fn check_connect_timeout(seconds: Option<u64>) -> Result<Duration> {
    let seconds = seconds.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
    if !(1..=MAX_CONNECT_TIMEOUT).contains(&seconds) {
        return Err(Error::config(format!("connect_timeout = {seconds}: use 1 to {MAX_CONNECT_TIMEOUT} seconds")));
    }
    Ok(Duration::from_secs(seconds))
}

/// How long a call may take: 10 s where nothing is said.
///
/// # Errors
/// [`Config`](storage_core::ErrorKind::Config) for none at all.
pub fn check_timeout(config: &DriverConfig) -> Result<Duration> {
    let timeout = config.timeout.unwrap_or(DEFAULT_TIMEOUT);
    if timeout.is_zero() {
        return Err(Error::config("a timeout of zero: no call could ever be answered"));
    }
    Ok(timeout)
}

/// No answer in time.
#[must_use]
pub fn late(limit: Duration) -> Error {
    Error::timeout(format!("no answer from the server within {limit:?}"))
}
