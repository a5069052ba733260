//! Which backend each component will use.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage_core::{Driver, Error, Result, Surfaces};

use crate::config::{BackendConfig, COPIES, Component, Config};
use crate::registry::Registry;

/// Where records and queues are without any configuration.
const DEFAULT_URL: &str = "sqlite:///storage.db";
/// Where blobs are beside it.
const DEFAULT_BLOBS: &str = "./storage-blobs";

/// What a component will use.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) config: BackendConfig,
    /// The copies of a mirror of blobs.
    pub(crate) copies: Vec<Self>,
}

/// Decides what each component uses: its own setting; else `default`; else the task queue's backend if it can serve; else the embedded defaults.
pub(crate) fn plan(config: &Config, registry: &Registry) -> Result<BTreeMap<Component, Planned>> {
    let resolve = |backend: &BackendConfig, component: &str, needs| -> Result<Planned> {
        let driver = registry.resolve(backend, component, needs)?;
        let copies = backend.transforms.copies.iter().map(|copy| {
            let driver = registry.resolve(copy, COPIES, Component::Blobs.needs())?;
            Ok(Planned { driver, config: copy.clone(), copies: Vec::new() })
        });
        let copies = copies.collect::<Result<Vec<_>>>()?;
        let checked = backend.transforms.stack.check(copies.len());
        checked.map_err(|e| Error::config(format!("{}: `{component}`: {}", backend.source, e.message())))?;
        Ok(Planned { driver, config: backend.clone(), copies })
    };
    let mut plan = BTreeMap::new();
    for (component, backend) in &config.components {
        plan.insert(*component, resolve(backend, component.key(), component.needs())?);
    }
    let default = config.default.as_ref().map(|d| resolve(d, "default", Surfaces::default())).transpose()?;
    let shared = default.clone().or_else(|| plan.get(&Component::TaskQueue).cloned());
    for component in Component::ALL {
        if plan.contains_key(&component) {
            continue;
        }
        if let Some(shared) = shared.as_ref().filter(|shared| component.is_served_by(&*shared.driver)) {
            plan.insert(component, shared.clone());
        } else if component == Component::Blobs {
            // Blobs beside an embedded database are an embedded folder; beside a server they must be said.
            let beside = shared.as_ref().map_or(Some(DEFAULT_BLOBS.to_owned()), blobs_beside);
            if let Some(planned) = beside.and_then(|path| resolve(&embedded("fs", &path), "blobs", component.needs()).ok()) {
                plan.insert(component, planned);
            }
        } else if let Ok(planned) = resolve(&BackendConfig::at(DEFAULT_URL), component.key(), component.needs()) {
            plan.insert(component, planned);
        }
    }
    Ok(plan)
}

fn embedded(driver: &str, path: &str) -> BackendConfig {
    BackendConfig { driver: Some(driver.into()), url: Some(path.into()), ..BackendConfig::default() }
}

/// The folder for blobs beside an SQLite file: `app.db` → `app.db-blobs`.
fn blobs_beside(shared: &Planned) -> Option<String> {
    if shared.driver.name() != "sqlite" {
        return None;
    }
    let url = shared.config.url.as_deref()?;
    let path = url.strip_prefix("sqlite://").map_or(url, |rest| rest.strip_prefix('/').unwrap_or(rest));
    Some(if path.starts_with(['/', '.']) { format!("{path}-blobs") } else { format!("./{path}-blobs") })
}
