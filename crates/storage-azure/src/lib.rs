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

mod connection_string;
mod key;
mod shared_key;

pub use connection_string::{ConnectionString, Service};
pub use key::AccountKey;
pub use shared_key::{SignedRequest, authorization};

/// The account of the emulators, which everybody knows.
pub const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
/// Its key, which is no secret.
pub const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
