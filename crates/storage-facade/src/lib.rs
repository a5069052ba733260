//! One configuration, every component: [`Storage`].
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use storage_facade::Storage;
//! use storage_core::NewMessage;
//!
//! // Without the builder's calls: storage.toml and STORAGE_… variables, else SQLite and files in the working directory.
//! let storage = Storage::builder().no_file().no_env().url("memory:").open().await?;
//! let queues = storage.queues().await?;
//! let mail = "mail".parse()?;
//! queues.create_queue(&mail, &Default::default()).await?;
//! queues.send(&mail, NewMessage::new("hello")).await?;
//! # Ok::<(), storage_core::Error>(()) })?;
//! # Ok::<(), storage_core::Error>(())
//! ```

pub mod blocking;
mod builder;
pub mod config;
mod metrics;
mod opened;
mod plan;
mod registry;
mod storage;
mod tasks;

pub use builder::StorageBuilder;
pub use config::{
    BackendConfig, Component, Config, ConfigFile, EnvLayer, MetricsConfig, PlatformLayout, PolicySettings, Versioning,
};
pub use registry::Registry;
pub use storage::Storage;
