//! Opening by configuration.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use storage_azure::{Account, Service, options};
use storage_core::{Backends, Driver, DriverConfig, Error, OptionSpec, Result, Surfaces};

use crate::names;
use crate::queue::AzureQueue;
use crate::text::Encoding;

const DEFAULT_CONCURRENCY: usize = 64;
const MOST_CONCURRENCY: usize = 1_024;
const DEFAULT_POLL: Duration = Duration::from_secs(1);

/// Opens the queues of a storage account: `azure-queue://ACCOUNT`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AzureQueueDriver;

const OPTIONS: &[OptionSpec] = &[
    options::ACCOUNT,
    options::ACCOUNT_KEY,
    options::SAS,
    options::CONNECTION_STRING,
    options::IDENTITY,
    options::CLIENT_ID,
    options::CLIENT_SECRET,
    options::TENANT,
    options::TOKEN,
    OptionSpec { name: "endpoint", help: "Where the account's queues are, if not at ACCOUNT.queue.core.windows.net." },
    OptionSpec {
        name: "emulator",
        help: "true: Azurite with its well-known account, at endpoint or http://127.0.0.1:10001. Default: false.",
    },
    options::TLS_CA,
    OptionSpec {
        name: "prefix",
        help: "What the names of queues begin with on the service: lower-case letters, digits and single hyphens, 24 at most. Default: nothing.",
    },
    OptionSpec {
        name: "encoding",
        help: "How bodies without anything beside them are written: `base64`, or `text` as they are. Default: base64.",
    },
    OptionSpec {
        name: "spill",
        help: "true: bodies that are too large for the service go into the component `blobs`, under `queues/`. Default: false, they are refused.",
    },
    OptionSpec {
        name: "concurrency",
        help: "How many requests are under way at once, 1 to 1024; calls with many messages use them all. Default: 64.",
    },
    OptionSpec {
        name: "poll_ms",
        help: "How often a waiting receive asks at least, in milliseconds, 10 to 60000; after a message it begins with a tenth. Default: 1000.",
    },
];

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    prefix: String,
    encoding: Encoding,
    spill: bool,
    concurrency: Option<usize>,
    poll_ms: Option<u64>,
}

/// How a store is opened.
pub(crate) struct Settings {
    pub(crate) account: Account,
    /// Where the queues are, without a signature.
    pub(crate) location: String,
    pub(crate) concurrency: usize,
    pub(crate) poll: Duration,
    pub(crate) prefix: String,
    pub(crate) encoding: Encoding,
    pub(crate) spill: bool,
}

impl Settings {
    pub(crate) fn new(config: &DriverConfig) -> Result<Self> {
        let (account, own) = options::split(config);
        let options: Options = own.typed_options()?;
        if !names::is_prefix(&options.prefix) {
            return Err(Error::config(
                "option `prefix`: use lower-case letters, digits and single hyphens, 24 at most, a hyphen not first",
            ));
        }
        let concurrency = options.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        if !(1..=MOST_CONCURRENCY).contains(&concurrency) {
            return Err(Error::config(format!("option `concurrency`: 1 to {MOST_CONCURRENCY}, not {concurrency}")));
        }
        let poll = options.poll_ms.map_or(DEFAULT_POLL, Duration::from_millis);
        if !(10..=60_000).contains(&poll.as_millis()) {
            return Err(Error::config("option `poll_ms`: 10 to 60000 milliseconds"));
        }
        let account = Account::new(&account, Service::Queue, "azure-queue")?;
        let prefix = if options.prefix.is_empty() { String::new() } else { format!(" {}", options.prefix) };
        Ok(Self {
            location: format!("{}{prefix}", account.location),
            account,
            concurrency,
            poll,
            prefix: options.prefix,
            encoding: options.encoding,
            spill: options.spill,
        })
    }
}

#[async_trait]
impl Driver for AzureQueueDriver {
    fn name(&self) -> &'static str {
        "azure-queue"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["azure-queue"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { queue: true, ..Surfaces::default() }
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn is_remote(&self, _: &DriverConfig) -> bool {
        true
    }

    fn wants_blobs(&self, config: &DriverConfig) -> bool {
        config.options.get("spill").and_then(serde_json::Value::as_bool).unwrap_or_default()
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let queue = AzureQueue::open(config).map_err(|error| error.with_operation("azure-queue.open"))?;
        Ok(Backends { queue: Some(Arc::new(queue)), ..Backends::default() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use storage_core::ErrorKind;

    use super::*;

    fn settings(url: &str) -> Result<Settings> {
        Settings::new(&DriverConfig::from_url(url))
    }

    #[test]
    fn addresses_are_read() {
        for (url, location) in [
            ("azure-queue://acme?account_key=a2V5", "https://acme.queue.core.windows.net"),
            ("azure-queue://acme?account_key=a2V5&prefix=app-", "https://acme.queue.core.windows.net app-"),
            ("azure-queue://acme.queue.core.chinacloudapi.cn?token=t", "https://acme.queue.core.chinacloudapi.cn"),
            ("azure-queue:?emulator=true", "http://127.0.0.1:10001/devstoreaccount1"),
            ("azure-queue://?connection_string=UseDevelopmentStorage=true", "http://127.0.0.1:10001/devstoreaccount1"),
            ("azure-queue:?emulator=true&endpoint=http://127.0.0.1:5", "http://127.0.0.1:5/devstoreaccount1"),
            ("azure-queue:?connection_string=AccountName=acme;AccountKey=a2V5", "https://acme.queue.core.windows.net"),
            ("azure-queue://acme?endpoint=http://h:1/acme/&sas=sig=x", "http://h:1/acme"),
        ] {
            assert_eq!(settings(url).unwrap().location, location, "{url}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for bad in [
            "azure-queue://a/b?account_key=a2V5",
            "azure-queue://u:p@a?account_key=a2V5",
            "azure-queue://a?account_key=no base64",
            "azure-queue://a?account_key=a2V5&sas=sig=x",
            "azure-queue://a?account_key=a2V5&account=b",
            "azure-queue://a?client_secret=s&client_id=i",
            "azure-queue://a?identity=managed&client_secret=s&client_id=i&tenant=t",
            "azure-queue://a?identity=nobody",
            "azure-queue://a?account_key=a2V5&prefix=A",
            "azure-queue://a?account_key=a2V5&concurrency=0",
            "azure-queue://a?account_key=a2V5&poll_ms=1",
            "azure-queue://a?account_key=a2V5&encoding=morse",
            "azure-queue://a?account_key=a2V5&spill=maybe",
            "azure-queue://a?account_key=a2V5&endpoint=ftp://h",
            "azure-queue://a?account_key=a2V5&endpoint=http://u:p@h",
            "azure-queue://a?account_key=a2V5&tls_ca=/nowhere.pem",
        ] {
            assert_eq!(settings(bad).err().expect(bad).kind(), ErrorKind::Config, "{bad}");
        }
    }

    /// Tokens don't go over plain HTTP.
    #[test]
    fn tokens_need_tls() {
        let config = DriverConfig::from_url("azure-queue://a?token=t&endpoint=http://127.0.0.1:1");
        assert_eq!(AzureQueue::open(&config).unwrap_err().kind(), ErrorKind::Config);
    }
}
