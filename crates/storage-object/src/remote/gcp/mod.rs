//! Google Cloud Storage, by its XML API.

mod engines;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, HeaderValue};
use object_store::StaticCredentialProvider;
use object_store::client::HttpRequest;
use object_store::gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder};
use serde::Deserialize;
use storage_core::{Backends, Driver, DriverConfig, Error, OptionSpec, Result, Secret, Surfaces};

use super::client::{
    ALLOW_HTTP, ANONYMOUS, CONCURRENCY, PART_MIB, Parts, Shared, checked_endpoint, connect, open, retry_for_credentials,
    split_address,
};
use super::errors::{from_store, no_credentials};
use super::wire::{Authorize, Wire};
use super::xml_api::{Creation, Vendor, XmlApi};

const ADDRESS: &str = "https://storage.googleapis.com";

/// Opens buckets of Google Cloud Storage: `gs://bucket/prefix`.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcsDriver;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    service_account: Option<Secret>,
    token: Option<Secret>,
    project: Option<String>,
    endpoint: Option<String>,
    allow_http: Option<bool>,
    anonymous: bool,
    part_mib: Option<u64>,
    concurrency: Option<usize>,
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "service_account",
        help: "A service account's key: the path of its JSON file, or the JSON itself. Default: the provider's chain.",
    },
    OptionSpec { name: "token", help: "A bearer token, which is not renewed, and which can't sign URLs." },
    OptionSpec { name: "project", help: "The project in which a missing bucket is created. Without it, none is." },
    OptionSpec { name: "endpoint", help: "Where the service is, if not at https://storage.googleapis.com." },
    ALLOW_HTTP,
    ANONYMOUS,
    PART_MIB,
    CONCURRENCY,
];

#[derive(Debug)]
struct Bearer {
    /// `None`: requests go unsigned.
    credentials: Option<GcpCredentialProvider>,
}

#[async_trait]
impl Authorize for Bearer {
    async fn authorize(&self, request: &mut HttpRequest) -> Result<()> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let credential = credentials.get_credential().await.map_err(|e| no_credentials(&e))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", credential.bearer))
            .map_err(|_| Error::config("the bearer token does not fit into a header"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}

impl GcsDriver {
    fn parts(&self, config: &DriverConfig) -> Result<Parts> {
        self.check_options(config)?;
        let options: Options = config.typed_options()?;
        let shared = Shared {
            allow_http: options.allow_http,
            anonymous: options.anonymous,
            part_mib: options.part_mib,
            concurrency: options.concurrency,
        };
        let address = config.address().ok_or_else(|| Error::config("no bucket: give a URL such as gs://bucket/prefix"))?;
        let (bucket, prefix) = split_address(address, "bucket")?;
        let endpoint = options.endpoint.as_deref().map(checked_endpoint).transpose()?;
        let base = endpoint.clone().unwrap_or_else(|| ADDRESS.to_owned());
        let client_options = shared.client_options(config, endpoint.as_deref())?;
        let is_explicit = options.service_account.is_some() || options.token.is_some() || options.anonymous;
        // What the configuration says is not mixed with what the environment says.
        let mut builder = if is_explicit { GoogleCloudStorageBuilder::new() } else { GoogleCloudStorageBuilder::from_env() };
        builder = builder
            .with_bucket_name(bucket)
            .with_base_url(&base)
            .with_skip_signature(options.anonymous)
            .with_retry(retry_for_credentials())
            .with_client_options(client_options.clone());
        match (&options.service_account, &options.token) {
            (Some(_), Some(_)) => return Err(Error::config("options `service_account` and `token`: give one")),
            (Some(account), None) => {
                let text = account.expose().trim();
                let is_json = text.starts_with('{');
                builder = if is_json { builder.with_service_account_key(text) } else { builder.with_service_account_path(text) };
            }
            (None, token) if token.is_some() || options.anonymous => {
                let bearer = token.as_ref().map_or_else(String::new, |token| token.expose().to_owned());
                builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential { bearer })));
            }
            _ => {}
        }
        // The message of a key that can't be read names the place, not the key.
        let store = builder.build().map_err(|e| match options.service_account {
            Some(_) => Error::config("option `service_account`: neither the path nor the JSON of a service account's key"),
            None => Error::config(from_store(&e).message()),
        })?;
        let credentials = (!options.anonymous).then(|| Arc::clone(store.credentials()));
        let service = XmlApi {
            vendor: Vendor::Google,
            wire: Wire::new(connect(&client_options)?, Box::new(Bearer { credentials })),
            traits: Vendor::Google.traits(),
            bucket: bucket.to_owned(),
            bucket_url: format!("{base}/{bucket}"),
            signer: Arc::new(store),
            by_folder: false,
            creation: Creation { location: None, project: options.project.clone() },
        };
        let engines = engines::engines(bucket, endpoint.as_deref(), &options);
        Ok(Parts {
            service: Arc::new(service),
            driver: self.name(),
            base_uri: format!("gs://{bucket}"),
            endpoint,
            prefix,
            chunks: shared.chunks()?,
            signed_url: options.token.is_none() && !options.anonymous,
            engines,
        })
    }
}

#[async_trait]
impl Driver for GcsDriver {
    fn name(&self) -> &'static str {
        "gs"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["gcs"]
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["gs", "gcs"]
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
        let parts = self.parts(config).map_err(|e| e.with_operation("gs.open"))?;
        open(parts, config).await.map_err(|e| e.with_operation("gs.open"))
    }
}
