//! What the backends on Azure Storage share: connection strings, the keys of accounts, and signatures made with them.
//!
//! ```
//! use storage_azure::{ConnectionString, Service};
//!
//! let text = "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=a2V5";
//! let found = ConnectionString::parse(text, Service::Queue)?;
//! assert_eq!(found.endpoint.as_deref(), Some("https://acme.queue.core.windows.net"));
//! # Ok::<(), storage_core::Error>(())
//! ```
//!
//! With the feature `client`: accounts as configuration names them, the ways to be known to a service, and what the official client's failures mean.

#[cfg(feature = "client")]
mod account;
#[cfg(feature = "client")]
mod auth;
mod connection_string;
#[cfg(feature = "client")]
mod error;
mod key;
#[cfg(feature = "client")]
pub mod options;
mod shared_key;

#[cfg(feature = "client")]
pub use account::{Account, CONNECTING, IDLE};
pub use connection_string::{ConnectionString, Service};
#[cfg(feature = "client")]
pub use error::{refused, retry_after, shown, unanswered};
pub use key::AccountKey;
pub use shared_key::{SignedRequest, authorization, table_authorization};

/// The account of the emulators, which everybody knows.
pub const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
/// Its key, which is no secret.
pub const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
