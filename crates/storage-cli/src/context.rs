//! What every command has at hand: the stores, the output, the signals.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use storage_core::{BlobStore, DriverConfig, Error, QueueStore, RecordStore};
use storage_facade::Storage;
use tokio::sync::{Mutex, OnceCell};

use crate::args::Global;
use crate::exit::Failure;
use crate::output::Out;
use crate::signals::Signals;

/// What every command has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) out: Arc<Out>,
    pub(crate) signals: Signals,
    global: Global,
    storage: OnceCell<Storage>,
    /// Other stores, by their URLs.
    elsewhere: Mutex<BTreeMap<String, Storage>>,
}

impl Context {
    pub(crate) fn new(global: &Global, signals: Signals) -> Self {
        Self {
            out: Arc::new(Out::new(global)),
            signals,
            global: global.clone(),
            storage: OnceCell::new(),
            elsewhere: Mutex::default(),
        }
    }

    /// How much is said besides the output.
    pub(crate) fn verbosity(&self) -> u8 {
        self.global.verbose
    }

    /// Uses this backend where nothing is configured. Answers whether it does.
    pub(crate) async fn default_to(&self, url: &str) -> Result<bool, Error> {
        let configured = self.configured()?;
        let config = configured.config();
        if config.default.is_some() || !config.components.is_empty() {
            return Ok(false);
        }
        let chosen = || async { Storage::builder().no_file().no_env().url(url).called("the default").plan() };
        self.storage.get_or_try_init(chosen).await?;
        Ok(true)
    }

    /// The configured components; each is opened when it is first asked for.
    pub(crate) async fn storage(&self) -> Result<&Storage, Error> {
        self.storage.get_or_try_init(|| async { self.configured() }).await
    }

    fn configured(&self) -> Result<Storage, Error> {
        let mut builder = Storage::builder();
        if let Some(url) = &self.global.url {
            // One backend for every component: whatever else is configured must not take a part of it.
            return builder.no_file().no_env().url(url).called("--url").plan();
        }
        if let Some(file) = &self.global.config {
            builder = builder.file(file);
        }
        if let Some(prefix) = &self.global.env_prefix {
            builder = builder.env_prefix(prefix);
        }
        builder.plan()
    }

    pub(crate) async fn records(&self) -> Result<RecordStore, Error> {
        self.storage().await?.records().await
    }

    pub(crate) async fn queues(&self) -> Result<QueueStore, Error> {
        self.storage().await?.queues().await
    }

    pub(crate) async fn blobs(&self) -> Result<BlobStore, Error> {
        self.storage().await?.blobs().await
    }

    /// The blobs that a URL names, whatever is configured. The same URL is opened once. Without `create`, what isn't there is an error.
    pub(crate) async fn blobs_at(&self, url: &str, create: bool) -> Result<BlobStore, Error> {
        let mut elsewhere = self.elsewhere.lock().await;
        if let Some(storage) = elsewhere.get(url) {
            return storage.blobs().await;
        }
        // The options apart, so that those that name a variable (`secret_key_env`) are read from it.
        let DriverConfig { url: address, options, .. } = DriverConfig::from_url(url);
        let blobs = json!({"url": address, "options": options, "auto_create": create});
        let storage = Storage::builder().no_file().no_env().set("blobs", blobs).called("the URL").plan()?;
        let blobs = storage.blobs().await;
        elsewhere.insert(url.to_owned(), storage);
        blobs
    }

    pub(crate) async fn close(&self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        for storage in self.elsewhere.lock().await.values().chain(self.storage.get()) {
            outcome = outcome.and(storage.close().await);
        }
        Ok(outcome?)
    }
}
