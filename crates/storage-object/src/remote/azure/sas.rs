//! Signed URLs by the account's key.
//!
//! object_store makes them too, but signs the path as the URL has it, where Azure wants it decoded: those for paths with a space are
//! refused.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::Utc;
use ring::hmac;
use storage_core::{Error, Result, Secret, SignedAccess};

use crate::remote::wire::{encoded_path, with_query};

/// Of the service: it decides what is signed, in which order.
const VERSION: &str = "2021-12-02";

/// Where blobs are, for people and for signatures.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) account: &'a str,
    pub(crate) container: &'a str,
    /// Without a slash at its end.
    pub(crate) container_url: &'a str,
}

impl Signed<'_> {
    /// A URL that lets its owner do `access` with blob `path` until `expires_in` has passed.
    pub(crate) fn url(&self, account_key: &Secret, path: &str, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        let permissions = match access {
            SignedAccess::Get => "r",
            SignedAccess::Put => "cw",
        };
        let expiry = (Utc::now() + expires_in).format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let resource = format!("/blob/{}/{}/{path}", self.account, self.container);
        // Start, identifier, addresses and protocol are not limited; snapshot, encryption scope and five headers of answers not set.
        let text = format!("{permissions}\n\n{expiry}\n{resource}\n\n\n\n{VERSION}\nb\n\n\n\n\n\n\n");
        let bad_key = |_| Error::config("option `account_key`: not base64");
        let key = BASE64_STANDARD.decode(account_key.expose()).map_err(bad_key)?;
        let signature = BASE64_STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes()));
        let query = [("sv", VERSION), ("se", &expiry), ("sr", "b"), ("sp", permissions), ("sig", &signature)];
        Ok(Secret::new(with_query(&format!("{}/{}", self.container_url, encoded_path(path)), &query)))
    }
}
