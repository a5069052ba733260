//! Opening by configuration.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use storage_azure::{Account, Service, options};
use storage_core::{Backends, Driver, DriverConfig, Error, OptionSpec, Result, Surfaces};

use crate::names;
use crate::records::AzureTables;

const DEFAULT_CONCURRENCY: usize = 64;
const MOST_CONCURRENCY: usize = 1_024;

/// Opens the tables of a storage account: `azure-table://ACCOUNT`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AzureTableDriver;

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
    OptionSpec { name: "endpoint", help: "Where the account's tables are, if not at ACCOUNT.table.core.windows.net." },
    OptionSpec {
        name: "emulator",
        help: "true: Azurite with its well-known account, at endpoint or http://127.0.0.1:10002. Default: false.",
    },
    options::TLS_CA,
    OptionSpec {
        name: "prefix",
        help: "What the names of tables begin with on the service: a letter, then letters and digits, 24 at most. Default: nothing.",
    },
    OptionSpec {
        name: "concurrency",
        help: "How many requests are under way at once, 1 to 1024; calls about many records use up to 16. Default: 64.",
    },
];

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    prefix: String,
    concurrency: Option<usize>,
}

/// How a store is opened.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) account: Account,
    /// Where the tables are, without a signature.
    pub(crate) location: String,
    pub(crate) concurrency: usize,
    pub(crate) prefix: String,
}

impl Settings {
    pub(crate) fn new(config: &DriverConfig) -> Result<Self> {
        let (account, own) = options::split(config);
        let options: Options = own.typed_options()?;
        if !names::is_prefix(&options.prefix) {
            return Err(Error::config("option `prefix`: use a letter, then letters and digits, 24 at most"));
        }
        let concurrency = options.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        if !(1..=MOST_CONCURRENCY).contains(&concurrency) {
            return Err(Error::config(format!("option `concurrency`: 1 to {MOST_CONCURRENCY}, not {concurrency}")));
        }
        let account = Account::new(&account, Service::Table, "azure-table")?;
        let prefix = if options.prefix.is_empty() { String::new() } else { format!(" {}", options.prefix) };
        Ok(Self { location: format!("{}{prefix}", account.location), account, concurrency, prefix: options.prefix })
    }
}

#[async_trait]
impl Driver for AzureTableDriver {
    fn name(&self) -> &'static str {
        "azure-table"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["azure-table"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: true, ..Surfaces::default() }
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn is_remote(&self, _: &DriverConfig) -> bool {
        true
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let records = AzureTables::open(config).map_err(|error| error.with_operation("azure-table.open"))?;
        Ok(Backends { records: Some(Arc::new(records)), ..Backends::default() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use storage_core::ErrorKind;

    use super::*;

    fn settings(url: &str) -> Result<Settings> {
        Settings::new(&DriverConfig::from_url(url))
    }

    #[test]
    fn addresses_are_read() {
        for (url, location) in [
            ("azure-table://acme?account_key=a2V5", "https://acme.table.core.windows.net"),
            ("azure-table://acme?account_key=a2V5&prefix=app", "https://acme.table.core.windows.net app"),
            ("azure-table:?emulator=true", "http://127.0.0.1:10002/devstoreaccount1"),
            ("azure-table://?connection_string=UseDevelopmentStorage=true", "http://127.0.0.1:10002/devstoreaccount1"),
            ("azure-table:?connection_string=AccountName=acme;AccountKey=a2V5", "https://acme.table.core.windows.net"),
            ("azure-table://acme?endpoint=http://h:1/acme/&sas=sig=x", "http://h:1/acme"),
        ] {
            assert_eq!(settings(url).unwrap().location, location, "{url}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for bad in [
            "azure-table://a/b?account_key=a2V5",
            "azure-table://a?account_key=a2V5&sas=sig=x",
            "azure-table://a?account_key=a2V5&prefix=a-b",
            "azure-table://a?account_key=a2V5&concurrency=0",
            "azure-table://a?account_key=a2V5&endpoint=ftp://h",
        ] {
            assert_eq!(settings(bad).expect_err(bad).kind(), ErrorKind::Config, "{bad}");
        }
        // Tokens don't go over plain HTTP.
        let config = DriverConfig::from_url("azure-table://a?token=t&endpoint=http://127.0.0.1:1");
        assert_eq!(AzureTables::open(&config).unwrap_err().kind(), ErrorKind::Config);
    }
}
