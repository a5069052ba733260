//! What the services share.

mod backend;
mod client;
mod engines;
mod errors;
mod list;
mod service;
mod signing;
mod upload;
mod wire;
#[cfg(any(feature = "aws", feature = "gcp"))]
mod xml_api;

#[cfg(feature = "aws")]
pub(crate) mod aws;

#[cfg(feature = "azure")]
pub(crate) mod azure;

#[cfg(feature = "gcp")]
pub(crate) mod gcp;

pub use backend::ObjectBlobs;
