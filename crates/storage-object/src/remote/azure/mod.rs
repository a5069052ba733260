//! Azure Blob Storage, and ADLS Gen2 by its blob endpoint.

mod driver;
mod engines;
mod sas;
mod service;

pub use driver::AzureDriver;
