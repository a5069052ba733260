//! Blobs on S3, Azure Blob Storage and Google Cloud Storage, and records on any blobs.

pub mod records;
