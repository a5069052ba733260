//! A bucket of Google Cloud Storage, in the words of engines.

use storage_core::Secret;

use super::Options;
use crate::remote::engines::{Engines, Opening, Way, host_of};

/// What a service account's key is given as.
enum Account<'a> {
    /// The path of a file.
    File(&'a str),
    Json(&'a str),
}

fn account(options: &Options) -> Option<Account<'_>> {
    let text = options.service_account.as_ref().map(Secret::expose)?.trim();
    Some(if text.starts_with('{') { Account::Json(text) } else { Account::File(text) })
}

/// `endpoint`: where the service is, if not at Google.
pub(super) fn engines(bucket: &str, endpoint: Option<&str>, options: &Options) -> Engines {
    Engines {
        object_store: Ok(object_store(bucket, endpoint, options)),
        duck_db: duck_db(bucket, endpoint, options),
        spark: spark(bucket, endpoint, options),
    }
}

fn object_store(bucket: &str, endpoint: Option<&str>, options: &Options) -> Opening {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let opening = Opening::at(format!("gs://{bucket}"))
        .set_if("google_base_url", endpoint)
        .set_if("google_allow_http", plain.then_some("true"))
        .set_if("google_skip_signature", options.anonymous.then_some("true"))
        .secret("google_bearer_token", options.token.as_ref());
    match account(options) {
        Some(Account::File(path)) => opening.set("google_service_account", path),
        Some(Account::Json(key)) => opening.set("google_service_account_key", key),
        None => opening,
    }
}

fn duck_db(bucket: &str, endpoint: Option<&str>, options: &Options) -> Way {
    if !options.anonymous {
        return Err(
            "DuckDB takes an HMAC key for Google's storage, and there is none here: make one at Google, and give it to DuckDB",
        );
    }
    let place = endpoint.map(|endpoint| {
        host_of(endpoint).ok_or("DuckDB takes a host and a port as the service's address, and this one has a path")
    });
    let place = place.transpose()?;
    let use_ssl = place.map(|(_, tls)| if tls { "true" } else { "false" });
    let opening = Opening::at(format!("gs://{bucket}")).set("TYPE", "gcs");
    Ok(opening.set_if("ENDPOINT", place.map(|(host, _)| host)).set_if("USE_SSL", use_ssl))
}

fn spark(bucket: &str, endpoint: Option<&str>, options: &Options) -> Way {
    if options.token.is_some() {
        return Err("Spark takes no bearer token for Google's storage: give the path of a service account's key");
    }
    let opening = Opening::at(format!("gs://{bucket}")).set_if("fs.gs.storage.root.url", endpoint);
    Ok(match account(options) {
        Some(Account::File(path)) => {
            opening.set("fs.gs.auth.type", "SERVICE_ACCOUNT_JSON_KEYFILE").set("fs.gs.auth.service.account.json.keyfile", path)
        }
        Some(Account::Json(_)) => return Err("Spark takes a service account's key as a file alone: give its path"),
        None if options.anonymous => opening.set("fs.gs.auth.type", "UNAUTHENTICATED"),
        None => opening.set("fs.gs.auth.type", "APPLICATION_DEFAULT"),
    })
}
