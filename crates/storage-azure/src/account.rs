//! An account as configuration names it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, RetryOptions, Transport, Url};
use storage_core::{DriverConfig, Error, Result, Secret};

use crate::auth::{Identity, SharedKeyPolicy};
use crate::options::{Named, Options};
use crate::{AccountKey, ConnectionString, EMULATOR_ACCOUNT, EMULATOR_KEY, Service};

/// How long a request may take, where the configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Within the time for a request: how long connecting may take.
pub const CONNECTING: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses is kept: emulators close theirs after 5 seconds, by their own count, and a request that goes out at that moment is lost.
pub const IDLE: Duration = Duration::from_secs(2);

/// How requests are signed.
#[derive(Debug)]
enum Login {
    Key {
        account: String,
        key: AccountKey,
    },
    /// It is in the service's address.
    Signature,
    Entra(Identity),
}

/// A service of an account, and how to be known to it.
pub struct Account {
    /// Where the service is; with the signature, if there is one.
    pub service_url: Url,
    /// The same without it.
    pub location: String,
    /// How long a request may take.
    pub timeout: Duration,
    service: Service,
    login: Login,
    pool_size: Option<u32>,
    tls_ca: Option<PathBuf>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its address may hold a signature.
        f.debug_struct("Account").field("location", &self.location).field("timeout", &self.timeout).finish_non_exhaustive()
    }
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
    fn with_connection_string(mut self, service: Service, account: Option<&str>) -> Result<Self> {
        let own = self.connection_string.take();
        let is_own = own.is_some();
        let text = match own {
            None if self.names_a_credential() || self.emulator => None,
            None => variable("AZURE_STORAGE_CONNECTION_STRING").map(Secret::new),
            own => own,
        };
        let Some(text) = text else { return Ok(self) };
        let found = ConnectionString::parse(text.expose(), service)?;
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

impl Account {
    /// The account that `config` names, whose options are those of the account alone ([`split`](crate::options::split)). `scheme` is that of its URLs.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config).
    pub fn new(config: &DriverConfig, service: Service, scheme: &str) -> Result<Self> {
        let options: Options = config.typed_options()?;
        let in_url = config.address().and_then(|address| address.trim_matches('/').split('.').next());
        let in_url = in_url.filter(|account| !account.is_empty());
        let options = options.with_connection_string(service, in_url)?.with_environment();
        if let Some(file) = options.tls_ca.as_ref().filter(|file| !file.is_file()) {
            return Err(Error::config(format!("option `tls_ca`: there is no file {}", file.display())));
        }
        let (account, mut service_url) = place(config, &options, service, scheme)?;
        let login = options.login(&account)?;
        let location = service_url.as_str().trim_end_matches('/').to_owned();
        service_url.set_query(options.sas.as_ref().map(|sas| sas.expose().trim_start_matches('?')));
        let timeout = config.timeout.unwrap_or(DEFAULT_TIMEOUT);
        Ok(Self { service_url, location, timeout, service, login, pool_size: config.pool_size, tls_ca: options.tls_ca })
    }

    /// What the official client is made with: it repeats nothing, signs each try where a key is given, and asks for tokens where there is a credential.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config).
    pub fn client_options(
        &self,
        connecting: Duration,
        idle: Duration,
    ) -> Result<(ClientOptions, Option<Arc<dyn TokenCredential>>)> {
        let mut client_options = ClientOptions {
            // Repeating is the business of layers.
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(self.connect(connecting, idle)?))),
            ..ClientOptions::default()
        };
        match &self.login {
            Login::Key { account, key } => {
                let policy = SharedKeyPolicy { account: account.clone(), key: key.clone(), service: self.service };
                client_options.per_try_policies.push(Arc::new(policy));
                Ok((client_options, None))
            }
            Login::Signature => Ok((client_options, None)),
            Login::Entra(identity) => {
                if self.service_url.scheme() != "https" {
                    return Err(Error::config("credentials of Entra ID go over https alone: check the endpoint"));
                }
                let credential = identity.credential(&client_options)?;
                Ok((client_options, Some(credential)))
            }
        }
    }

    /// The client that carries requests.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config).
    fn connect(&self, connecting: Duration, idle: Duration) -> Result<reqwest::Client> {
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

/// The account, and where the service is.
fn place(config: &DriverConfig, options: &Options, service: Service, scheme: &str) -> Result<(String, Url)> {
    let in_url = config.address().unwrap_or_default().trim_matches('/');
    if in_url.contains(['/', '@', ' ']) {
        return Err(Error::config(format!("the URL names an account and nothing more: {scheme}://ACCOUNT")));
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
            let address = endpoint.unwrap_or_else(|| service.emulator_address().to_owned());
            let address = address.trim_end_matches('/');
            // The emulator has the account in the path.
            if address.ends_with(&format!("/{account}")) { address.to_owned() } else { format!("{address}/{account}") }
        }
        (Some(endpoint), ..) => endpoint,
        (None, Some(account), _) => service.endpoint(account),
        (None, None, _) => {
            return Err(Error::config(format!(
                "no account: give {scheme}://ACCOUNT, `connection_string`, or AZURE_STORAGE_ACCOUNT_NAME"
            )));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn kinds_of_credentials() {
        let login = |options: &str| {
            Account::new(&DriverConfig::from_url(&format!("azure-queue://a?{options}")), Service::Queue, "azure-queue")
                .unwrap()
                .login
        };
        assert!(matches!(login("account_key=a2V5"), Login::Key { .. }));
        assert!(matches!(login("sas=?sig=x"), Login::Signature));
        assert!(matches!(login("token=t"), Login::Entra(Identity::Token(_))));
        assert!(matches!(login("client_id=i"), Login::Entra(Identity::Managed { id: Some(_) })));
        assert!(matches!(login("client_id=i&tenant=t&client_secret=s"), Login::Entra(Identity::Application { .. })));
        assert!(matches!(login("identity=cli"), Login::Entra(Identity::Cli)));
        assert!(matches!(login("emulator=true"), Login::Key { .. }));
        assert!(!format!("{:?}", login("client_id=i&tenant=t&client_secret=hunter2")).contains("hunter2"));
    }
}
