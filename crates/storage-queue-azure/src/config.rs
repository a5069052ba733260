//! Opening by configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::Url;
use serde::Deserialize;
use storage_azure::{AccountKey, ConnectionString, EMULATOR_ACCOUNT, EMULATOR_KEY, Service};
use storage_core::{Backends, Driver, DriverConfig, Error, OptionSpec, Result, Secret, Surfaces};

use crate::auth::Identity;
use crate::names;
use crate::queue::AzureQueue;
use crate::text::Encoding;

/// How long a request may take, where the configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_CONCURRENCY: usize = 64;
const MOST_CONCURRENCY: usize = 1_024;
const DEFAULT_POLL: Duration = Duration::from_secs(1);

/// Opens the queues of a storage account: `azure-queue://ACCOUNT`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AzureQueueDriver;

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "account", help: "The storage account. Default: that of the URL, AZURE_STORAGE_ACCOUNT_NAME." },
    OptionSpec { name: "account_key", help: "One of the account's keys. Default: AZURE_STORAGE_ACCOUNT_KEY." },
    OptionSpec { name: "sas", help: "A shared access signature: the query part of its URL. Default: AZURE_STORAGE_SAS_TOKEN." },
    OptionSpec {
        name: "connection_string",
        help: "Account, key or signature, and address in one. Default: AZURE_STORAGE_CONNECTION_STRING.",
    },
    OptionSpec {
        name: "identity",
        help: "Whose tokens of Entra ID to use: `managed`, `workload` or `cli`. Default, without key and signature: what the environment says.",
    },
    OptionSpec { name: "client_id", help: "An application's id, with client_secret and tenant; alone: a managed identity." },
    OptionSpec { name: "client_secret", help: "The application's secret." },
    OptionSpec { name: "tenant", help: "The application's tenant." },
    OptionSpec { name: "token", help: "A bearer token, which is not renewed." },
    OptionSpec { name: "endpoint", help: "Where the account's queues are, if not at ACCOUNT.queue.core.windows.net." },
    OptionSpec {
        name: "emulator",
        help: "true: Azurite with its well-known account, at endpoint or http://127.0.0.1:10001. Default: false.",
    },
    OptionSpec { name: "tls_ca", help: "A file with root certificates in PEM, beside those of the system." },
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
    account: Option<String>,
    account_key: Option<Secret>,
    sas: Option<Secret>,
    connection_string: Option<Secret>,
    identity: Option<Named>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
    tenant: Option<String>,
    token: Option<Secret>,
    endpoint: Option<String>,
    emulator: bool,
    tls_ca: Option<PathBuf>,
    prefix: String,
    encoding: Encoding,
    spill: bool,
    concurrency: Option<usize>,
    poll_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Named {
    Managed,
    Workload,
    Cli,
}

/// How requests are signed.
#[derive(Debug)]
pub(crate) enum Login {
    Key {
        account: String,
        key: AccountKey,
    },
    /// It is in the service's address.
    Signature,
    Entra(Identity),
}

/// How a store is opened.
pub(crate) struct Settings {
    /// Where the queues are; with the signature, if there is one.
    pub(crate) service_url: Url,
    /// The same without it.
    pub(crate) location: String,
    pub(crate) login: Login,
    pub(crate) timeout: Duration,
    pub(crate) concurrency: usize,
    pub(crate) poll: Duration,
    pub(crate) prefix: String,
    pub(crate) encoding: Encoding,
    pub(crate) spill: bool,
    pool_size: Option<u32>,
    tls_ca: Option<PathBuf>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Options {
    fn names_a_credential(&self) -> bool {
        self.account_key.is_some()
            || self.sas.is_some()
            || self.token.is_some()
            || self.client_id.is_some()
            || self.identity.is_some()
    }

    /// Takes over what a connection string says and the options don't. One of the environment is left alone where another account is meant.
    fn with_connection_string(mut self, account: Option<&str>) -> Result<Self> {
        let own = self.connection_string.take();
        let is_own = own.is_some();
        let text = match own {
            None if self.names_a_credential() || self.emulator => None,
            None => variable("AZURE_STORAGE_CONNECTION_STRING").map(Secret::new),
            own => own,
        };
        let Some(text) = text else { return Ok(self) };
        let found = ConnectionString::parse(text.expose(), Service::Queue)?;
        let account = account.or(self.account.as_deref());
        if !is_own && account.is_some_and(|account| found.account.as_deref() != Some(account)) {
            return Ok(self);
        }
        self.emulator |= found.emulator;
        self.account = self.account.or(found.account);
        self.endpoint = self.endpoint.or(found.endpoint);
        if !self.names_a_credential() {
            (self.account_key, self.sas) = (found.key, found.sas);
        }
        Ok(self)
    }

    /// Takes over what the environment says, where nothing else says who we are.
    fn with_environment(mut self) -> Self {
        if !self.names_a_credential() && !self.emulator {
            self.account_key = variable("AZURE_STORAGE_ACCOUNT_KEY").map(Secret::new);
            if self.account_key.is_none() {
                self.sas = variable("AZURE_STORAGE_SAS_TOKEN").map(Secret::new);
            }
        }
        self
    }

    fn login(&self, account: &str) -> Result<Login> {
        let entra = self.token.is_some() || self.client_id.is_some() || self.identity.is_some();
        if [self.account_key.is_some(), self.sas.is_some(), entra].iter().filter(|given| **given).count() > 1 {
            return Err(Error::config("several kinds of credentials: keep one of account_key, sas, and those of Entra ID"));
        }
        if self.sas.is_some() {
            return Ok(Login::Signature);
        }
        let emulator = Secret::new(EMULATOR_KEY);
        if let Some(key) = self.account_key.as_ref().or((self.emulator && !entra).then_some(&emulator)) {
            return Ok(Login::Key { account: account.to_owned(), key: AccountKey::new(key)? });
        }
        self.identity().map(Login::Entra)
    }

    fn identity(&self) -> Result<Identity> {
        if let Some(token) = &self.token {
            return Ok(Identity::Token(token.clone()));
        }
        let id = self.client_id.clone();
        match (&self.identity, &self.client_secret) {
            (None, Some(secret)) => match (id, self.tenant.clone()) {
                (Some(id), Some(tenant)) => Ok(Identity::Application { tenant, id, secret: secret.clone() }),
                _ => Err(Error::config("option `client_secret` goes with `client_id` and `tenant`")),
            },
            (Some(_), Some(_)) => Err(Error::config("option `identity` does not go with `client_secret`: keep one")),
            (Some(Named::Workload), None) => Ok(Identity::Workload),
            (Some(Named::Cli), None) => Ok(Identity::Cli),
            (Some(Named::Managed), None) => Ok(Identity::Managed { id }),
            (None, None) if id.is_some() => Ok(Identity::Managed { id }),
            (None, None) => Ok(Identity::FromEnvironment),
        }
    }
}

impl Settings {
    pub(crate) fn new(config: &DriverConfig) -> Result<Self> {
        let options: Options = config.typed_options()?;
        let in_url = config.address().and_then(|address| address.trim_matches('/').split('.').next());
        let options = options.with_connection_string(in_url.filter(|account| !account.is_empty()))?.with_environment();
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
        if let Some(file) = options.tls_ca.as_ref().filter(|file| !file.is_file()) {
            return Err(Error::config(format!("option `tls_ca`: there is no file {}", file.display())));
        }
        let (account, mut service_url) = place(config, &options)?;
        let login = options.login(&account)?;
        let prefix = if options.prefix.is_empty() { String::new() } else { format!(" {}", options.prefix) };
        let location = format!("{}{prefix}", service_url.as_str().trim_end_matches('/'));
        service_url.set_query(options.sas.as_ref().map(|sas| sas.expose().trim_start_matches('?')));
        Ok(Self {
            service_url,
            location,
            login,
            timeout: config.timeout.unwrap_or(DEFAULT_TIMEOUT),
            concurrency,
            poll,
            prefix: options.prefix,
            encoding: options.encoding,
            spill: options.spill,
            pool_size: config.pool_size,
            tls_ca: options.tls_ca,
        })
    }

    /// The client that carries requests.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config).
    pub(crate) fn connect(&self, connecting: Duration, idle: Duration) -> Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(self.timeout.min(connecting))
            .timeout(self.timeout)
            .pool_idle_timeout(idle)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(most) = self.pool_size {
            builder = builder.pool_max_idle_per_host(usize::try_from(most).unwrap_or(usize::MAX));
        }
        if let Some(file) = &self.tls_ca {
            let bad = || Error::config(format!("option `tls_ca`: {} holds no certificates in PEM", file.display()));
            let certificates = reqwest::Certificate::from_pem_bundle(&std::fs::read(file)?).map_err(|_| bad())?;
            if certificates.is_empty() {
                return Err(bad());
            }
            builder = certificates.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        builder.build().map_err(|error| Error::config("the HTTP client can't be made").with_source(error.without_url()))
    }
}

/// The account, and where its queues are.
fn place(config: &DriverConfig, options: &Options) -> Result<(String, Url)> {
    let in_url = config.address().unwrap_or_default().trim_matches('/');
    if in_url.contains(['/', '@', ' ']) {
        return Err(Error::config("the URL names an account and nothing more: azure-queue://ACCOUNT"));
    }
    // The whole host may be given.
    let (in_url, host) = match in_url.split_once('.') {
        Some((account, _)) => (account, Some(format!("https://{in_url}"))),
        None => (in_url, None),
    };
    let in_url = (!in_url.is_empty()).then(|| in_url.to_owned());
    if let (Some(a), Some(b)) = (&in_url, &options.account)
        && a != b
    {
        return Err(Error::config("URL and options name different accounts: give one"));
    }
    let account = in_url.or_else(|| options.account.clone());
    let account = account.or_else(|| options.emulator.then(|| EMULATOR_ACCOUNT.to_owned()));
    let account = account.or_else(|| variable("AZURE_STORAGE_ACCOUNT_NAME"));
    let endpoint = options.endpoint.clone().or(host);
    let endpoint = match (endpoint, &account, options.emulator) {
        (endpoint, Some(account), true) => {
            let address = endpoint.unwrap_or_else(|| Service::Queue.emulator_address().to_owned());
            let address = address.trim_end_matches('/');
            // The emulator has the account in the path.
            if address.ends_with(&format!("/{account}")) { address.to_owned() } else { format!("{address}/{account}") }
        }
        (Some(endpoint), ..) => endpoint,
        (None, Some(account), _) => Service::Queue.endpoint(account),
        (None, None, _) => {
            return Err(Error::config(
                "no account: give azure-queue://ACCOUNT, `connection_string`, or AZURE_STORAGE_ACCOUNT_NAME",
            ));
        }
    };
    let bad = || Error::config("option `endpoint`: an address such as https://host:port, without credentials, is needed");
    let url = Url::parse(&endpoint).map_err(|_| bad())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !plain {
        return Err(bad());
    }
    // Without a name a signature or a token is enough; a key is not.
    let account = account.or_else(|| url.host_str().and_then(|host| host.split('.').next()).map(str::to_owned));
    Ok((account.unwrap_or_default(), url))
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

    #[test]
    fn kinds_of_credentials() {
        let login = |options: &str| settings(&format!("azure-queue://a?{options}")).unwrap().login;
        assert!(matches!(login("account_key=a2V5"), Login::Key { .. }));
        assert!(matches!(login("sas=?sig=x"), Login::Signature));
        assert!(matches!(login("token=t"), Login::Entra(Identity::Token(_))));
        assert!(matches!(login("client_id=i"), Login::Entra(Identity::Managed { id: Some(_) })));
        assert!(matches!(login("client_id=i&tenant=t&client_secret=s"), Login::Entra(Identity::Application { .. })));
        assert!(matches!(login("identity=cli"), Login::Entra(Identity::Cli)));
        assert!(matches!(login("emulator=true"), Login::Key { .. }));
        assert!(!format!("{:?}", login("client_id=i&tenant=t&client_secret=hunter2")).contains("hunter2"));
    }

    /// Tokens don't go over plain HTTP.
    #[test]
    fn tokens_need_tls() {
        let config = DriverConfig::from_url("azure-queue://a?token=t&endpoint=http://127.0.0.1:1");
        assert_eq!(AzureQueue::open(&config).unwrap_err().kind(), ErrorKind::Config);
    }
}
