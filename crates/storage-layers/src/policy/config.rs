//! A policy in configuration.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use storage_core::{OptionSpec, nearest};

use super::{Breaker, Concurrency, RateLimit, Retry, Timeouts};

/// The longest deadline.
const MAX_DEADLINE: Duration = Duration::from_secs(86_400);

/// A whole policy as data. What is `None` is not guarded; a policy that retries has timeouts all the same.
///
/// ```
/// use storage_layers::policy::{PolicyBuilder, PolicyConfig};
/// let config: PolicyConfig = serde_json::from_str(r#"{"retry": {"attempts": 3, "first": "50ms"}, "deadline": "1m"}"#)?;
/// let policy = PolicyBuilder::from(config).build()?;
/// assert!(policy.timeouts().is_some());
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// See [`PolicyBuilder::timeouts`](super::PolicyBuilder::timeouts).
    pub timeouts: Option<Timeouts>,
    /// See [`PolicyBuilder::deadline`](super::PolicyBuilder::deadline).
    #[serde(with = "optional_duration")]
    pub deadline: Option<Duration>,
    /// See [`PolicyBuilder::retry`](super::PolicyBuilder::retry).
    pub retry: Option<Retry>,
    /// See [`PolicyBuilder::breaker`](super::PolicyBuilder::breaker).
    pub breaker: Option<Breaker>,
    /// See [`PolicyBuilder::rate`](super::PolicyBuilder::rate).
    pub rate_limit: Option<RateLimit>,
    /// See [`PolicyBuilder::concurrency`](super::PolicyBuilder::concurrency).
    pub concurrency: Option<Concurrency>,
}

impl PolicyConfig {
    /// What guards a backend behind a network unless it is said otherwise: timeouts and retries.
    #[must_use]
    pub fn remote() -> Self {
        Self { timeouts: Some(Timeouts::default()), retry: Some(Retry::default()), ..Self::default() }
    }

    /// The first setting that is out of range, and what it should be.
    pub(super) fn check(&self) -> Result<(), (String, &'static str)> {
        if self.deadline.is_some_and(|deadline| deadline.is_zero() || deadline > MAX_DEADLINE) {
            return Err(("deadline".into(), "is a time up to 1 day"));
        }
        check_section("timeouts", self.timeouts.as_ref())?;
        check_section("retry", self.retry.as_ref())?;
        check_section("breaker", self.breaker.as_ref())?;
        check_section("rate_limit", self.rate_limit.as_ref())?;
        check_section("concurrency", self.concurrency.as_ref())
    }
}

fn check_section<T: Settings>(section: &str, settings: Option<&T>) -> Result<(), (String, &'static str)> {
    let wrong = settings.and_then(Settings::wrong_key);
    wrong.map_or(Ok(()), |key| Err((format!("{section}.{key}"), T::help(key))))
}

/// One part of a policy, as a table of configuration.
pub trait Settings: Default + DeserializeOwned {
    /// Its keys, and what each is.
    const KEYS: &'static [OptionSpec];

    /// The first key whose value is out of range.
    fn wrong_key(&self) -> Option<&'static str>;

    /// What a key is.
    #[must_use]
    fn help(key: &str) -> &'static str {
        Self::KEYS.iter().find(|spec| spec.name == key).map_or("is not a key", |spec| spec.help)
    }

    /// Reads a table.
    ///
    /// # Errors
    /// The key that is unknown or has a wrong value, and what would be right.
    fn read(table: &Map<String, Value>) -> Result<Self, (String, String)> {
        for (key, value) in table {
            if Self::KEYS.iter().all(|spec| spec.name != key) {
                return Err((key.clone(), unknown::<Self>(key)));
            }
            // By itself, so that the message can name it: serde does not.
            let alone = Map::from_iter([(key.clone(), value.clone())]);
            let right = serde_json::from_value::<Self>(Value::Object(alone)).is_ok_and(|read| read.wrong_key().is_none());
            if !right {
                return Err((key.clone(), Self::help(key).to_owned()));
            }
        }
        serde_json::from_value(Value::Object(table.clone())).map_err(|e| (String::new(), format!("is not right: {e}")))
    }
}

fn unknown<T: Settings>(key: &str) -> String {
    let names = || T::KEYS.iter().map(|spec| spec.name);
    match nearest(key, names()) {
        Some(near) => format!("is no key; did you mean `{near}`?"),
        None => format!("is no key; there are: {}", names().collect::<Vec<_>>().join(", ")),
    }
}

/// A duration as text (`"30s"`) or in seconds.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Seconds(u64),
}

impl Written {
    fn read<E: serde::de::Error>(self) -> Result<Duration, E> {
        match self {
            Self::Text(text) => humantime::parse_duration(&text).map_err(E::custom),
            Self::Seconds(seconds) => Ok(Duration::from_secs(seconds)),
        }
    }
}

/// For serde: durations as in [`Written`].
pub(super) mod duration {
    use super::{Deserialize, Duration, Written};

    pub(crate) fn serialize<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Written::deserialize(deserializer)?.read()
    }
}

/// For serde: durations as in [`Written`], or none.
mod optional_duration {
    use super::{Deserialize, Duration, Written};

    pub(crate) fn serialize<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Option::<Written>::deserialize(deserializer)?.map(Written::read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T: Settings>(value: Value) -> Result<T, (String, String)> {
        T::read(value.as_object().unwrap())
    }

    #[test]
    fn a_wrong_key_is_named_with_what_would_be_right() {
        let (key, what) = read::<Retry>(json!({"first": "1s", "attemps": 3})).unwrap_err();
        assert_eq!((key.as_str(), what.as_str()), ("attemps", "is no key; did you mean `attempts`?"));
        for (key, value) in
            [("attempts", json!("three")), ("attempts", json!(0)), ("first", json!("soon")), ("budget", json!(-1))]
        {
            let (wrong, what) = read::<Retry>(json!({"longest": "1s", key: value})).unwrap_err();
            assert_eq!((wrong.as_str(), what.as_str()), (key, Retry::help(key)));
        }
        assert_eq!(read::<Concurrency>(json!({"max": 0})).unwrap_err().0, "max");
        assert_eq!(read::<RateLimit>(json!({"burst": 0})).unwrap_err().0, "burst");
        assert_eq!(read::<Breaker>(json!({"error_rate": 0})).unwrap_err().0, "error_rate");
        assert_eq!(read::<Timeouts>(json!({"call": "2h"})).unwrap_err().0, "call");
    }

    #[test]
    fn durations_are_text_or_seconds() {
        let timeouts: Timeouts = read(json!({"call": "1m 30s", "idle": 5})).unwrap();
        assert_eq!((timeouts.call, timeouts.idle), (Duration::from_secs(90), Duration::from_secs(5)));
    }

    #[test]
    fn a_policy_comes_back_as_written() {
        let config = PolicyConfig {
            deadline: Some(Duration::from_secs(60)),
            breaker: Some(Breaker::default()),
            rate_limit: Some(RateLimit::per_second(5)),
            concurrency: Some(Concurrency::default()),
            ..PolicyConfig::remote()
        };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<PolicyConfig>(&text).unwrap(), config);
        assert!(config.check().is_ok());
        let wrong = PolicyConfig { retry: Some(Retry::attempts(0)), ..config };
        assert_eq!(wrong.check().unwrap_err().0, "retry.attempts");
    }
}
