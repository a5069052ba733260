//! Configuration from environment variables.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::{Component, metrics};

/// The environment variables with a prefix: `STORAGE_URL`, `STORAGE_TASK_QUEUE_TYPE`, and deeper keys by `__`:
/// `STORAGE_TASK_QUEUE_OPTIONS__SYNCHRONOUS`.
///
/// A variable with the prefix that names no key is an error that names the variable, not a typo that goes unnoticed.
#[derive(Clone, Debug)]
pub struct EnvLayer {
    prefix: String,
    variables: Vec<(String, String)>,
}

impl EnvLayer {
    /// The variables of this process whose names begin with `prefix` (`STORAGE_`), in any letter case.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::of(prefix, variables)
    }

    /// Given variables in place of the process's own.
    #[must_use]
    pub fn of(prefix: &str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let prefix = prefix.to_ascii_uppercase();
        let variables = variables.into_iter().filter(|(name, _)| name.to_ascii_uppercase().starts_with(&prefix)).collect();
        Self { prefix, variables }
    }

    /// Each variable as a layer of its own, so that a message can name it.
    pub(crate) fn layers(&self) -> impl Iterator<Item = VariableLayer> + '_ {
        self.variables.iter().map(|(name, value)| VariableLayer {
            name: name.clone(),
            path: key_path(&name[self.prefix.len()..].to_ascii_lowercase()),
            value: value.clone(),
        })
    }
}

/// `task_queue_options__synchronous` → `[task_queue, options, synchronous]`.
fn key_path(name: &str) -> Vec<String> {
    let components = Component::ALL.map(Component::key).into_iter().chain(["default", metrics::KEY]);
    let component = components.filter(|c| name.strip_prefix(c).is_some_and(|rest| rest.starts_with('_'))).max_by_key(|c| c.len());
    let Some(component) = component else { return name.split("__").map(str::to_owned).collect() };
    let rest = &name[component.len() + 1..];
    // `TASK_QUEUE_BACKEND_TYPE` may mean `task_queue_backend.type` or `task_queue.backend_type`: both are the same key.
    let rest = rest.strip_prefix('_').unwrap_or(rest);
    [component].into_iter().chain(rest.split("__")).map(str::to_owned).collect()
}

pub(crate) struct VariableLayer {
    name: String,
    path: Vec<String>,
    value: String,
}

impl Provider for VariableLayer {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("environment variable {}", self.name))
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let (first, deeper) = self.path.split_first().ok_or("a variable without a name")?;
        let value = deeper.iter().rev().fold(typed(&self.value), |inner, key| Value::from(Dict::from([(key.clone(), inner)])));
        Ok(Map::from([(Profile::Default, Dict::from([(first.clone(), value)]))]))
    }
}

/// Booleans and integers as such; a table in JSON (`{"base_dir": "./x"}`); the rest is text.
fn typed(text: &str) -> Value {
    if let Ok(flag) = text.parse::<bool>() {
        return Value::from(flag);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Value::from(number);
    }
    let table = text.trim_start().starts_with('{').then(|| serde_json::from_str::<Value>(text).ok()).flatten();
    table.unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_keys() {
        assert_eq!(key_path("url"), ["url"]);
        assert_eq!(key_path("task_queue_url"), ["task_queue", "url"]);
        assert_eq!(key_path("task_queue__url"), ["task_queue", "url"]);
        assert_eq!(key_path("task_queue_options__base_dir"), ["task_queue", "options", "base_dir"]);
        assert_eq!(key_path("task_queue_pool_size"), ["task_queue", "pool_size"]);
        assert_eq!(key_path("metrics__listen"), ["metrics", "listen"]);
        assert_eq!(key_path("metrics_listen"), ["metrics", "listen"]);
        assert_eq!(key_path("metrics"), ["metrics"]);
        assert_eq!(key_path("tsk_queue_url"), ["tsk_queue_url"]);
    }
}
