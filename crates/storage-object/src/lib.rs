//! Blobs on S3, Azure Blob Storage and Google Cloud Storage, and records on any blobs.

pub mod records;
#[cfg(feature = "remote")]
mod remote;

#[cfg(feature = "remote")]
pub use remote::ObjectBlobs;
#[cfg(feature = "aws")]
pub use remote::aws::S3Driver;
