//! Opening by configuration: `celery+amqp://…`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use storage_core::{
    Backends, Driver, DriverConfig, Error, OptionSpec, QueueName, Result, Surfaces, ValuesDriver, nearest, url_scheme,
};

use super::queue::CeleryQueue;
use super::results::Results;
use crate::AmqpDriver;
use crate::config::Settings;

/// Options of this driver; the others are [`AmqpDriver`]'s.
const OWN: [OptionSpec; 3] = [
    OptionSpec {
        name: "results",
        help: "Where the app keeps the results of its tasks: `rpc` (default; in messages to whoever sent a task), the URL of its Redis \
               (`redis://…`, with the cargo feature `redis`), or `none`",
    },
    OptionSpec {
        name: "reply_queue",
        help: "With `results=rpc`: the queue to which results of tasks are sent that were submitted from here (default \
               `storage-results`). Programs that keep their tasks in different places need different ones",
    },
    OptionSpec {
        name: "result_expires",
        help: "How many seconds a result is kept in Redis, and in the reply queue, 1 to 31536000 (default 86400)",
    },
];
/// An option of [`AmqpDriver`], as it is meant here.
fn as_celery(option: OptionSpec) -> OptionSpec {
    const QUEUE_TYPE: &str = "What queues are created as that the app has not declared yet: `classic` (default, as Celery's), or `quorum` (for apps \
                              with `task_default_queue_type = \"quorum\"`)";
    if option.name == "queue_type" { OptionSpec { help: QUEUE_TYPE, ..option } } else { option }
}

/// The queue to which results are sent, where the configuration does not say.
const REPLY_QUEUE: &str = "storage-results";
const DAY: u64 = 86_400;

/// Opens the queues of a Celery app: `celery+amqp://user:password@host:5672/vhost`, with the feature `tls` also `celery+amqps://`.
///
/// Results in Redis need [`with_results`](Self::with_results), since a backend knows no other.
#[derive(Clone, Debug)]
pub struct CeleryDriver {
    results: Vec<Arc<dyn ValuesDriver>>,
    options: &'static [OptionSpec],
}

impl Default for CeleryDriver {
    fn default() -> Self {
        static OPTIONS: std::sync::LazyLock<Vec<OptionSpec>> =
            std::sync::LazyLock::new(|| AmqpDriver.options().iter().copied().map(as_celery).chain(OWN).collect());
        Self { results: Vec::new(), options: &OPTIONS }
    }
}

impl CeleryDriver {
    /// Also for apps that keep their results where this driver opens values.
    #[must_use]
    pub fn with_results(mut self, driver: Arc<dyn ValuesDriver>) -> Self {
        self.results.push(driver);
        self
    }

    pub(super) fn parts(&self, config: &DriverConfig) -> Result<Parts> {
        self.check_options(config)?;
        let mut config = config.clone();
        let options = Options::take(&mut config)?;
        if let Some(url) = config.url.as_mut()
            && let Some(rest) = url.strip_prefix("celery+")
        {
            *url = rest.to_owned();
        }
        config.options.entry("queue_type").or_insert_with(|| "classic".into());
        let mut settings = Settings::new(&config)?;
        settings.info = storage_core::BackendInfo::new("celery", format!("celery+{}", settings.info.location));
        let keep = Duration::from_secs(options.result_expires);
        Ok(Parts { settings, results: self.results(&options.results, keep)?, reply_queue: options.reply_queue, keep })
    }

    fn results(&self, results: &str, keep: Duration) -> Result<Results> {
        match results {
            "rpc" | "rpc://" => return Ok(Results::Messages),
            "none" | "disabled" => return Ok(Results::Nowhere),
            _ => {}
        }
        let Some(scheme) = url_scheme(results) else {
            return Err(Error::config("results: `rpc`, `none`, or the URL of a Redis: redis://host:6379/0"));
        };
        let known = self.results.iter().flat_map(|driver| driver.schemes().iter().copied());
        let Some(driver) = self.results.iter().find(|driver| driver.schemes().contains(&scheme)) else {
            return Err(Error::config(match nearest(scheme, known) {
                Some(near) => format!("results: nothing here opens `{scheme}:`; did you mean `{near}:`?"),
                None => format!("results: nothing here opens `{scheme}:`; results in Redis need the cargo feature `redis`"),
            }));
        };
        let values = driver.open_values(&DriverConfig::from_url(results));
        values.map(|values| Results::Values { values, keep }).map_err(|e| Error::config(format!("results: {}", e.message())))
    }
}

/// What the configuration says.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) settings: Settings,
    pub(super) results: Results,
    pub(super) reply_queue: QueueName,
    pub(super) keep: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Options {
    results: String,
    reply_queue: QueueName,
    result_expires: u64,
}

impl Default for Options {
    #[expect(clippy::expect_used, reason = "a literal that is a good name")]
    fn default() -> Self {
        let reply_queue = QueueName::new(REPLY_QUEUE).expect("a good name");
        Self { results: "rpc".into(), reply_queue, result_expires: DAY }
    }
}

impl Options {
    /// Takes this driver's own options away.
    fn take(config: &mut DriverConfig) -> Result<Self> {
        let mut own = DriverConfig::default();
        for OptionSpec { name, .. } in OWN {
            if let Some(value) = config.options.remove(name) {
                own.options.insert(name.to_owned(), value);
            }
        }
        let options: Self = own.typed_options()?;
        if !(1..=365 * DAY).contains(&options.result_expires) {
            return Err(Error::config(format!("result_expires = {}: use 1 to 31536000 seconds", options.result_expires)));
        }
        Ok(options)
    }
}

#[async_trait]
impl Driver for CeleryDriver {
    fn name(&self) -> &'static str {
        "celery"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["celery+amqp", "celery+amqps"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: false, queue: true, blobs: false }
    }

    fn options(&self) -> &'static [OptionSpec] {
        self.options
    }

    fn is_remote(&self, _config: &DriverConfig) -> bool {
        true
    }

    fn has_foreign_tasks(&self) -> bool {
        true
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let queue = CeleryQueue::new(self.parts(config)?);
        Ok(Backends { queue: Some(Arc::new(queue)), ..Backends::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Result<Parts> {
        CeleryDriver::default().parts(&DriverConfig::from_url(url))
    }

    #[test]
    fn addresses_are_those_of_the_broker() {
        let parts = parts("celery+amqp://u:hunter2@h/shop?prefix=a.&result_expires=60").unwrap();
        assert!(!parts.settings.info.to_string().contains("hunter2"));
        assert_eq!(
            (&parts.settings.info.driver[..], &parts.settings.info.location[..]),
            ("celery", "celery+amqp://h:5672/shop#a.")
        );
        assert!(matches!(parts.results, Results::Messages));
        assert_eq!((parts.reply_queue.as_str(), parts.keep.as_secs()), (REPLY_QUEUE, 60));
    }

    #[test]
    fn results_are_where_something_opens_them() {
        let refused = |url: &str| parts(url).unwrap_err().to_string();
        assert!(matches!(parts("celery+amqp://h?results=none").unwrap().results, Results::Nowhere));
        assert!(refused("celery+amqp://h?results=redis://h/0").contains("cargo feature `redis`"));
        assert!(refused("celery+amqp://h?results=database").contains("`rpc`, `none`"));
        assert!(refused("celery+amqp://h?result_expires=0").contains("result_expires"));
        assert!(refused("celery+amqp://h?reply_to=x").contains("no option `reply_to`"));
        assert!(refused("celery+amqp://h?reply_queue=a.b").contains("reply_queue"));
    }
}
