//! The options that name an account and who asks: the same for each service.

use std::path::PathBuf;

use serde::Deserialize;
use storage_core::{DriverConfig, OptionSpec, Secret};

/// `account`.
pub const ACCOUNT: OptionSpec =
    OptionSpec { name: "account", help: "The storage account. Default: that of the URL, AZURE_STORAGE_ACCOUNT_NAME." };
/// `account_key`.
pub const ACCOUNT_KEY: OptionSpec =
    OptionSpec { name: "account_key", help: "One of the account's keys. Default: AZURE_STORAGE_ACCOUNT_KEY." };
/// `sas`.
pub const SAS: OptionSpec =
    OptionSpec { name: "sas", help: "A shared access signature: the query part of its URL. Default: AZURE_STORAGE_SAS_TOKEN." };
/// `connection_string`.
pub const CONNECTION_STRING: OptionSpec = OptionSpec {
    name: "connection_string",
    help: "Account, key or signature, and address in one. Default: AZURE_STORAGE_CONNECTION_STRING.",
};
/// `identity`.
pub const IDENTITY: OptionSpec = OptionSpec {
    name: "identity",
    help: "Whose tokens of Entra ID to use: `managed`, `workload` or `cli`. Default, without key and signature: what the environment says.",
};
/// `client_id`.
pub const CLIENT_ID: OptionSpec =
    OptionSpec { name: "client_id", help: "An application's id, with client_secret and tenant; alone: a managed identity." };
/// `client_secret`.
pub const CLIENT_SECRET: OptionSpec = OptionSpec { name: "client_secret", help: "The application's secret." };
/// `tenant`.
pub const TENANT: OptionSpec = OptionSpec { name: "tenant", help: "The application's tenant." };
/// `token`.
pub const TOKEN: OptionSpec = OptionSpec { name: "token", help: "A bearer token, which is not renewed." };
/// `tls_ca`.
pub const TLS_CA: OptionSpec =
    OptionSpec { name: "tls_ca", help: "A file with root certificates in PEM, beside those of the system." };

/// Those above, and `endpoint` and `emulator`, whose help says where a service is.
const NAMES: [&str; 12] = [
    ACCOUNT.name,
    ACCOUNT_KEY.name,
    SAS.name,
    CONNECTION_STRING.name,
    IDENTITY.name,
    CLIENT_ID.name,
    CLIENT_SECRET.name,
    TENANT.name,
    TOKEN.name,
    TLS_CA.name,
    "endpoint",
    "emulator",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    pub(crate) account: Option<String>,
    pub(crate) account_key: Option<Secret>,
    pub(crate) sas: Option<Secret>,
    pub(crate) connection_string: Option<Secret>,
    pub(crate) identity: Option<Named>,
    pub(crate) client_id: Option<String>,
    pub(crate) client_secret: Option<Secret>,
    pub(crate) tenant: Option<String>,
    pub(crate) token: Option<Secret>,
    pub(crate) endpoint: Option<String>,
    pub(crate) emulator: bool,
    pub(crate) tls_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Named {
    Managed,
    Workload,
    Cli,
}

/// The configuration with the options of the account alone, and with the others alone.
#[must_use]
pub fn split(config: &DriverConfig) -> (DriverConfig, DriverConfig) {
    let (mut account, mut others) = (config.clone(), config.clone());
    account.options.retain(|name, _| NAMES.contains(&name.as_str()));
    others.options.retain(|name, _| !NAMES.contains(&name.as_str()));
    (account, others)
}
