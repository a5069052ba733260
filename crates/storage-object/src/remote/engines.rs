//! What engines are told that open the same container by themselves.

use std::collections::BTreeMap;

use storage_core::{Engine, Secret};

/// The way to a container for one engine, or what stands in it.
pub(crate) type Way = Result<Opening, &'static str>;

/// How an engine opens a container.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// What its addresses begin with, without a slash at the end: `s3a://bucket`.
    pub(crate) base_uri: String,
    pub(crate) options: BTreeMap<String, Secret>,
}

impl Opening {
    pub(crate) fn at(base_uri: impl Into<String>) -> Self {
        Self { base_uri: base_uri.into(), options: BTreeMap::new() }
    }

    pub(crate) fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.options.insert(name.to_owned(), Secret::new(value));
        self
    }

    pub(crate) fn set_if(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    pub(crate) fn secret(self, name: &str, value: Option<&Secret>) -> Self {
        self.set_if(name, value.map(Secret::expose))
    }
}

/// The ways of all engines.
#[derive(Clone, Debug)]
pub(crate) struct Engines {
    pub(crate) object_store: Way,
    pub(crate) duck_db: Way,
    pub(crate) spark: Way,
}

impl Engines {
    pub(crate) fn way(&self, engine: Engine) -> &Way {
        match engine {
            Engine::ObjectStore => &self.object_store,
            Engine::DuckDb => &self.duck_db,
            Engine::Spark => &self.spark,
        }
    }
}

/// Host and port, and whether it is by TLS, of `https://host:port`; `None` where there is more to the address.
#[cfg(any(feature = "aws", feature = "gcp"))]
pub(crate) fn host_of(endpoint: &str) -> Option<(&str, bool)> {
    let (scheme, host) = endpoint.split_once("://")?;
    (!host.contains('/')).then_some((host, scheme == "https"))
}
