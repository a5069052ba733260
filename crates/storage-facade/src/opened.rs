//! A backend that is open, as each component uses it.

use std::collections::BTreeMap;

use storage_core::{Backends, Result};
use storage_layers::guarded::guard;
use storage_layers::policy::{Policy, PolicyBuilder, PolicyConfig};

use crate::config::{BackendConfig, Component};

/// A backend that is open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) config: BackendConfig,
    is_remote: bool,
    pub(crate) backends: Backends,
    /// Components with equal settings share breaker, limits and retry budget.
    policies: Vec<(PolicyConfig, Policy)>,
    guarded: BTreeMap<Component, Backends>,
}

impl Opened {
    pub(crate) fn new(config: BackendConfig, is_remote: bool, backends: Backends) -> Self {
        Self { config, is_remote, backends, policies: Vec::new(), guarded: BTreeMap::new() }
    }

    /// The backends as a component uses them: behind its policy, observed as itself.
    pub(crate) fn guarded(&mut self, component: Component, config: &BackendConfig, observed: bool) -> Result<Backends> {
        if let Some(guarded) = self.guarded.get(&component) {
            return Ok(guarded.clone());
        }
        let settings = config.policy.resolve(self.is_remote, config.timeout);
        let policy = match self.policies.iter().find(|(there, _)| *there == settings) {
            Some((_, policy)) => policy.clone(),
            None => {
                let policy = PolicyBuilder::from(settings.clone()).name(component.key()).build()?;
                self.policies.push((settings, policy.clone()));
                policy
            }
        };
        let guarded = match policy.is_none() && !observed {
            true => self.backends.clone(),
            false => guard(self.backends.clone(), &policy, observed.then(|| component.key())),
        };
        self.guarded.insert(component, guarded.clone());
        Ok(guarded)
    }
}
