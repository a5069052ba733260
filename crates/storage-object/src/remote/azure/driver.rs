//! Opening containers of Azure by configuration.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::StaticCredentialProvider;
use object_store::azure::{AzureAccessKey, AzureConfigKey, AzureCredential, MicrosoftAzureBuilder, split_sas};
use serde::Deserialize;
use storage_azure::{ConnectionString, EMULATOR_ACCOUNT, EMULATOR_KEY, Service};
use storage_core::{Backends, Driver, DriverConfig, Error, OptionSpec, Result, Secret, Surfaces};

use super::engines::engines;
use super::service::{AzureBlobs, AzureSigner};
use crate::remote::client::{
    ALLOW_HTTP, ANONYMOUS, CONCURRENCY, PART_MIB, Parts, Shared, checked_endpoint, connect, open, retry_for_credentials,
    split_address,
};
use crate::remote::errors::from_store;
use crate::remote::wire::Wire;

/// Opens containers of Azure Blob Storage: `az://container/prefix`, `abfss://container@account.dfs.core.windows.net/prefix`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AzureDriver;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    #[serde(alias = "account_name")]
    account: Option<String>,
    account_key: Option<Secret>,
    #[serde(alias = "sas_token")]
    sas: Option<Secret>,
    connection_string: Option<Secret>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<Secret>,
    #[serde(alias = "tenant_id")]
    pub(super) tenant: Option<String>,
    pub(super) token: Option<Secret>,
    endpoint: Option<String>,
    emulator: bool,
    allow_http: Option<bool>,
    pub(super) anonymous: bool,
    part_mib: Option<u64>,
    concurrency: Option<usize>,
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "account", help: "The storage account. Default: that of the URL, AZURE_STORAGE_ACCOUNT_NAME." },
    OptionSpec { name: "account_name", help: "Another name of account." },
    OptionSpec { name: "account_key", help: "One of the account's keys. Default: the provider's chain." },
    OptionSpec { name: "sas", help: "A shared access signature: the query part of its URL." },
    OptionSpec { name: "sas_token", help: "Another name of sas." },
    OptionSpec {
        name: "connection_string",
        help: "Account, key or signature, and address in one. Default: AZURE_STORAGE_CONNECTION_STRING.",
    },
    OptionSpec { name: "client_id", help: "An application's id, with client_secret and tenant; alone: a managed identity." },
    OptionSpec { name: "client_secret", help: "The application's secret." },
    OptionSpec { name: "tenant", help: "The application's tenant." },
    OptionSpec { name: "tenant_id", help: "Another name of tenant." },
    OptionSpec { name: "token", help: "A bearer token, which is not renewed." },
    OptionSpec { name: "endpoint", help: "Where the account's blobs are, if not at ACCOUNT.blob.core.windows.net." },
    OptionSpec {
        name: "emulator",
        help: "true: Azurite with its well-known account, at endpoint or http://127.0.0.1:10000. Default: false.",
    },
    ALLOW_HTTP,
    ANONYMOUS,
    PART_MIB,
    CONCURRENCY,
];

/// What configuration says, with the connection string taken apart.
pub(super) struct Settings {
    pub(super) account: String,
    /// The account's address, without a slash at its end.
    pub(super) endpoint: String,
    pub(super) container: String,
    prefix: String,
    /// `None`: the provider's chain.
    credential: Option<AzureCredential>,
    pub(super) key: Option<Secret>,
    pub(super) sas: Option<Secret>,
}

impl Options {
    /// Takes over what a connection string says and the options don't.
    fn with_connection_string(mut self) -> Result<Self> {
        let explicit = self.connection_string.take();
        let has_own = self.account_key.is_some() || self.sas.is_some() || self.token.is_some() || self.client_id.is_some();
        let text = match explicit {
            Some(text) => Some(text),
            None if has_own || self.emulator || self.anonymous => None,
            None => std::env::var("AZURE_STORAGE_CONNECTION_STRING").ok().filter(|text| !text.is_empty()).map(Secret::new),
        };
        let Some(text) = text else { return Ok(self) };
        let found = ConnectionString::parse(text.expose(), Service::Blob)?;
        self.emulator |= found.emulator;
        self.account = self.account.or(found.account);
        self.endpoint = self.endpoint.or(found.endpoint);
        self.account_key = self.account_key.or(found.key);
        self.sas = self.sas.or(found.sas);
        Ok(self)
    }

    fn credential(&self) -> Result<Option<AzureCredential>> {
        if let Some(key) = &self.account_key {
            let key = AzureAccessKey::try_new(key.expose());
            return key
                .map(|key| Some(AzureCredential::AccessKey(key)))
                .map_err(|_| Error::config("option `account_key`: not base64"));
        }
        if let Some(sas) = &self.sas {
            let pairs = split_sas(sas.expose()).map_err(|_| Error::config("option `sas`: not the query part of a URL"))?;
            return Ok(Some(AzureCredential::SASToken(pairs)));
        }
        Ok(self.token.as_ref().map(|token| AzureCredential::BearerToken(token.expose().to_owned())))
    }
}

/// Container, account and host suffix of `container@account.dfs.core.windows.net`, or the container alone.
fn split_authority(authority: &str) -> Result<(&str, Option<(&str, &str)>)> {
    let Some((container, host)) = authority.split_once('@') else { return Ok((authority, None)) };
    let (account, suffix) = host.split_once('.').unwrap_or((host, ""));
    let suffix = suffix.strip_prefix("dfs.").or_else(|| suffix.strip_prefix("blob."));
    let suffix = suffix.filter(|suffix| !suffix.is_empty() && !account.is_empty() && !container.is_empty());
    let suffix = suffix.ok_or_else(|| {
        Error::config("the URL's host is not of the form container@account.dfs.core.windows.net: put credentials into options")
    })?;
    Ok((container, Some((account, suffix))))
}

impl AzureDriver {
    fn settings(config: &DriverConfig, options: &Options) -> Result<Settings> {
        let address = config.address().ok_or_else(|| Error::config("no container: give a URL such as az://container/prefix"))?;
        let (authority, prefix) = split_address(address, "container")?;
        let (container, host) = split_authority(authority)?;
        let from_env = || {
            let known = MicrosoftAzureBuilder::from_env().get_config_value(&AzureConfigKey::AccountName);
            known.filter(|account| !account.is_empty())
        };
        let mut account = options.account.clone();
        let mut endpoint = options.endpoint.as_deref().map(checked_endpoint).transpose()?;
        let (mut credential, mut key) = (options.credential()?, options.account_key.clone());
        if let Some((in_url, suffix)) = host {
            if account.as_deref().is_some_and(|account| account != in_url) {
                return Err(Error::config("the URL and option `account` name different accounts: give one"));
            }
            account = Some(in_url.to_owned());
            endpoint = endpoint.or_else(|| Some(format!("https://{in_url}.blob.{suffix}")));
        }
        if options.emulator {
            let account = account.get_or_insert_with(|| EMULATOR_ACCOUNT.to_owned());
            let address = endpoint.take().unwrap_or_else(|| Service::Blob.emulator_address().to_owned());
            // The emulator has the account in the path.
            endpoint = Some(if address.ends_with(&format!("/{account}")) { address } else { format!("{address}/{account}") });
            if credential.is_none() {
                key = Some(Secret::new(EMULATOR_KEY));
                let known_key = AzureAccessKey::try_new(EMULATOR_KEY).map_err(|e| Error::internal(e.to_string()))?;
                credential = Some(AzureCredential::AccessKey(known_key));
            }
        }
        let account = account.or_else(from_env);
        let account =
            account.ok_or_else(|| Error::config("option `account` is missing, and AZURE_STORAGE_ACCOUNT_NAME is not set"))?;
        let endpoint = endpoint.unwrap_or_else(|| Service::Blob.endpoint(&account));
        Ok(Settings { account, endpoint, container: container.to_owned(), prefix, credential, key, sas: options.sas.clone() })
    }

    fn parts(&self, config: &DriverConfig) -> Result<Parts> {
        self.check_options(config)?;
        let options: Options = config.typed_options()?;
        let options = options.with_connection_string()?;
        let shared = Shared {
            allow_http: options.allow_http,
            anonymous: options.anonymous,
            part_mib: options.part_mib,
            concurrency: options.concurrency,
        };
        let settings = Self::settings(config, &options)?;
        let client_options = shared.client_options(config, Some(&settings.endpoint))?;
        let engines = engines(&settings, &options);
        let is_static = settings.credential.is_some();
        let by_app = options.client_secret.is_some();
        // What the configuration says is not mixed with what the environment says.
        let mut builder = if is_static || by_app { MicrosoftAzureBuilder::new() } else { MicrosoftAzureBuilder::from_env() };
        builder = builder
            .with_account(&settings.account)
            .with_container_name(&settings.container)
            .with_endpoint(settings.endpoint.clone())
            .with_use_emulator(false)
            .with_skip_signature(options.anonymous)
            .with_retry(retry_for_credentials())
            .with_client_options(client_options.clone());
        if let Some(credential) = settings.credential {
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        }
        if let Some(secret) = &options.client_secret {
            let (Some(id), Some(tenant)) = (&options.client_id, &options.tenant) else {
                return Err(Error::config("option `client_secret` goes with `client_id` and `tenant`"));
            };
            builder = builder.with_client_secret_authorization(id, secret.expose(), tenant);
        } else if let Some(id) = &options.client_id {
            builder = builder.with_client_id(id);
        }
        let store = builder.build().map_err(|e| Error::config(from_store(&e).message()))?;
        let credentials = (!options.anonymous).then(|| Arc::clone(store.credentials()));
        let signer = AzureSigner { credentials, account: settings.account.clone() };
        let service = AzureBlobs {
            wire: Wire::new(connect(&client_options)?, Box::new(signer)),
            container_url: format!("{}/{}", settings.endpoint, settings.container),
            signer: Arc::new(store),
            account: settings.account.clone(),
            container: settings.container.clone(),
            key: settings.key.clone(),
            sas: settings.sas.clone(),
        };
        Ok(Parts {
            service: Arc::new(service),
            driver: self.name(),
            base_uri: format!("az://{}", settings.container),
            endpoint: Some(settings.endpoint),
            prefix: settings.prefix,
            chunks: shared.chunks()?,
            // A signature can't be made out of another signature.
            signed_url: !options.anonymous && (settings.sas.is_none() || settings.key.is_some()),
            engines,
        })
    }
}

#[async_trait]
impl Driver for AzureDriver {
    fn name(&self) -> &'static str {
        "az"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["azure", "abfs", "abfss"]
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["az", "azure", "abfs", "abfss"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: true, blobs: true, ..Surfaces::default() }
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn is_remote(&self, _config: &DriverConfig) -> bool {
        true
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let parts = self.parts(config).map_err(|e| e.with_operation("az.open"))?;
        open(parts, config).await.map_err(|e| e.with_operation("az.open"))
    }
}
