//! Blobs on S3, Azure Blob Storage and Google Cloud Storage, and records on any blobs.

pub mod records;
#[cfg(feature = "remote")]
mod remote;
#[cfg(feature = "view")]
mod view;

#[cfg(feature = "remote")]
pub use remote::ObjectBlobs;
#[cfg(feature = "aws")]
pub use remote::aws::S3Driver;
#[cfg(feature = "azure")]
pub use remote::azure::AzureDriver;
#[cfg(feature = "gcp")]
pub use remote::gcp::GcsDriver;
#[cfg(feature = "view")]
pub use view::ObjectStoreView;
