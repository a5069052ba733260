//! What the services share.

mod errors;
mod pieces;
mod read;
mod wire;

// What services that keep buckets or containers share.
#[cfg(feature = "buckets")]
mod backend;
#[cfg(feature = "buckets")]
mod client;
#[cfg(feature = "buckets")]
mod engines;
#[cfg(feature = "buckets")]
mod list;
#[cfg(feature = "buckets")]
mod service;
#[cfg(feature = "buckets")]
mod signing;
#[cfg(feature = "buckets")]
mod upload;
#[cfg(any(feature = "aws", feature = "gcp"))]
mod xml_api;

#[cfg(feature = "aws")]
pub(crate) mod aws;

#[cfg(feature = "azure")]
pub(crate) mod azure;

#[cfg(feature = "gcp")]
pub(crate) mod gcp;

#[cfg(feature = "http")]
pub(crate) mod http;

#[cfg(feature = "buckets")]
pub use backend::ObjectBlobs;
