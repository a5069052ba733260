//! Blobs on S3, Azure Blob Storage, Google Cloud Storage and WebDAV servers, and records on any blobs.
//!
//! Each service is a feature (`aws`, `azure`, `gcp`, `http`; none by default) and a driver: [`S3Driver`], [`AzureDriver`], [`GcsDriver`],
//! [`HttpDriver`]. Clients, credentials
//! and signatures are those of the crate `object_store`; the requests are made here, since conditional uploads in parts, conditional deletes and
//! copies, exact keys and the service's own words in errors are not to be had through its trait. The other way round, [`ObjectStoreView`] (feature
//! `view`) is any `BlobStore` as an `ObjectStore`, for engines.
//!
//! ```no_run
//! use storage_core::{BlobPath, BlobStore, Driver, DriverConfig};
//! use storage_object::S3Driver;
//!
//! # async fn example() -> storage_core::Result<()> {
//! let config = DriverConfig::from_url("s3://bucket/prefix?region=eu-central-1");
//! let backends = S3Driver.open(&config).await?;
//! let blobs = BlobStore::new(backends.blobs.expect("the driver serves blobs"));
//! blobs.put_text(&BlobPath::new("hello.txt")?, "hello").await?;
//! # Ok(()) }
//! ```

pub mod records;
#[cfg(feature = "remote")]
mod remote;
#[cfg(feature = "view")]
mod view;

#[cfg(feature = "buckets")]
pub use remote::ObjectBlobs;
#[cfg(feature = "aws")]
pub use remote::aws::S3Driver;
#[cfg(feature = "azure")]
pub use remote::azure::AzureDriver;
#[cfg(feature = "gcp")]
pub use remote::gcp::GcsDriver;
#[cfg(feature = "http")]
pub use remote::http::{HttpBlobs, HttpDriver};
#[cfg(feature = "view")]
pub use view::ObjectStoreView;
