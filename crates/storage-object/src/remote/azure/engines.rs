//! A container of Azure, in the words of engines.

use storage_core::Secret;

use super::driver::{Options, Settings};
use crate::remote::engines::{Engines, Opening, Way};

pub(super) fn engines(settings: &Settings, options: &Options) -> Engines {
    Engines {
        object_store: Ok(object_store(settings, options)),
        duck_db: duck_db(settings, options),
        spark: spark(settings, options),
    }
}

fn object_store(settings: &Settings, options: &Options) -> Opening {
    Opening::at(format!("az://{}", settings.container))
        .set("azure_storage_account_name", &*settings.account)
        .set("azure_storage_endpoint", &*settings.endpoint)
        .set_if("azure_allow_http", settings.endpoint.starts_with("http://").then_some("true"))
        .set_if("azure_skip_signature", options.anonymous.then_some("true"))
        .set_if("azure_storage_client_id", options.client_id.as_deref())
        .set_if("azure_storage_tenant_id", options.tenant.as_deref())
        .secret("azure_storage_client_secret", options.client_secret.as_ref())
        .secret("azure_storage_account_key", settings.key.as_ref())
        .secret("azure_storage_sas_key", settings.sas.as_ref())
        .secret("azure_storage_token", options.token.as_ref())
}

fn duck_db(settings: &Settings, options: &Options) -> Way {
    let opening = Opening::at(format!("az://{}", settings.container)).set("TYPE", "azure");
    // A connection string names any place, and carries keys and signatures.
    let keys = [("AccountKey", &settings.key), ("SharedAccessSignature", &settings.sas)];
    if let Some((name, value)) = keys.into_iter().find_map(|(name, value)| Some((name, value.as_ref()?))) {
        let Settings { account, endpoint, .. } = settings;
        let scheme = endpoint.split("://").next().unwrap_or_default();
        let value = value.expose();
        let text = format!("DefaultEndpointsProtocol={scheme};AccountName={account};{name}={value};BlobEndpoint={endpoint}");
        return Ok(opening.set("CONNECTION_STRING", text));
    }
    if settings.endpoint != format!("https://{}.blob.core.windows.net", settings.account) {
        return Err("DuckDB takes another address than ACCOUNT.blob.core.windows.net with an account's key or a signature alone");
    }
    let opening = opening.set("ACCOUNT_NAME", &*settings.account);
    if let Some(token) = &options.token {
        return Ok(opening.set("PROVIDER", "access_token").secret("ACCESS_TOKEN", Some(token)));
    }
    Ok(match (&options.client_id, &options.client_secret) {
        (Some(id), Some(secret)) => opening
            .set("PROVIDER", "service_principal")
            .set("CLIENT_ID", &**id)
            .secret("CLIENT_SECRET", Some(secret))
            .set_if("TENANT_ID", options.tenant.as_deref()),
        (Some(id), None) => opening.set("PROVIDER", "managed_identity").set("CLIENT_ID", &**id),
        _ if options.anonymous => opening.set("PROVIDER", "config"),
        _ => opening.set("PROVIDER", "credential_chain"),
    })
}

/// Spark's way is the account's other address, that of its files.
fn spark(settings: &Settings, options: &Options) -> Way {
    let suffix = settings.endpoint.strip_prefix("https://").and_then(|host| host.strip_prefix(&*settings.account));
    let suffix = suffix.and_then(|host| host.strip_prefix(".blob.")).filter(|suffix| !suffix.contains('/'));
    let Some(suffix) = suffix else {
        return Err("Spark finds accounts of Azure at ACCOUNT.dfs.core.windows.net and its like alone, and not at this endpoint");
    };
    let host = format!("{}.dfs.{suffix}", settings.account);
    let name = |key: &str| format!("fs.azure.{key}.{host}");
    let opening = Opening::at(format!("abfss://{}@{host}", settings.container));
    if let Some(key) = &settings.key {
        return Ok(opening.set(&name("account.auth.type"), "SharedKey").secret(&name("account.key"), Some(key)));
    }
    if let Some(sas) = settings.sas.as_ref().map(Secret::expose) {
        return Ok(opening.set(&name("account.auth.type"), "SAS").set(&name("sas.fixed.token"), sas.trim_start_matches('?')));
    }
    if options.token.is_some() {
        return Err("Spark takes no bearer token for Azure: give a key, a signature, or an application's id and secret");
    }
    let provider = |class: &str| format!("org.apache.hadoop.fs.azurebfs.oauth2.{class}");
    match (&options.client_id, &options.client_secret, &options.tenant) {
        (Some(id), Some(secret), Some(tenant)) => Ok(opening
            .set(&name("account.auth.type"), "OAuth")
            .set(&name("account.oauth.provider.type"), provider("ClientCredsTokenProvider"))
            .set(&name("account.oauth2.client.id"), &**id)
            .secret(&name("account.oauth2.client.secret"), Some(secret))
            .set(&name("account.oauth2.client.endpoint"), format!("https://login.microsoftonline.com/{tenant}/oauth2/token"))),
        (Some(id), None, _) => Ok(opening
            .set(&name("account.auth.type"), "OAuth")
            .set(&name("account.oauth.provider.type"), provider("MsiTokenProvider"))
            .set(&name("account.oauth2.client.id"), &**id)),
        _ if options.anonymous => Err("Spark does not read from Azure without credentials"),
        _ => {
            Err("Spark looks for no credentials for Azure by itself: give a key, a signature, or an application's id and secret")
        }
    }
}
