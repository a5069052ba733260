//! What the services share.

mod backend;
mod client;
mod errors;
mod list;
mod service;
mod upload;
mod wire;
#[cfg(any(feature = "aws", feature = "gcp"))]
mod xml_api;

#[cfg(feature = "aws")]
pub(crate) mod aws;

pub use backend::ObjectBlobs;
