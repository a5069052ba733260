//! Amazon S3, and the many that speak its protocol.

mod engines;

use std::sync::Arc;

use async_trait::async_trait;
use object_store::StaticCredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::HttpRequest;
use serde::Deserialize;
use storage_core::{Backends, Driver, DriverConfig, Error, OptionSpec, Result, Secret, Surfaces};

use super::client::{
    ALLOW_HTTP, ANONYMOUS, CONCURRENCY, PART_MIB, Parts, Shared, checked_endpoint, connect, open, retry_for_credentials,
    split_address,
};
use super::errors::{from_store, no_credentials};
use super::wire::{Authorize, Wire};
use super::xml_api::{Creation, Vendor, XmlApi};

const FIRST_REGION: &str = "us-east-1";

/// Opens buckets of S3: `s3://bucket/prefix`.
#[derive(Clone, Copy, Debug, Default)]
pub struct S3Driver;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    region: Option<String>,
    #[serde(alias = "endpoint_url")]
    endpoint: Option<String>,
    #[serde(alias = "access_key_id")]
    access_key: Option<Secret>,
    #[serde(alias = "secret_access_key")]
    secret_key: Option<Secret>,
    session_token: Option<Secret>,
    virtual_hosted: Option<bool>,
    unsigned_payload: bool,
    dialect: Dialect,
    allow_http: Option<bool>,
    anonymous: bool,
    part_mib: Option<u64>,
    concurrency: Option<usize>,
}

/// Which S3 it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dialect {
    #[default]
    Aws,
    Seaweedfs,
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "region", help: "The bucket's region. Default: AWS_REGION, AWS_DEFAULT_REGION, us-east-1." },
    OptionSpec {
        name: "endpoint",
        help: "Where the service is, if not at Amazon: https://host:port. Default: AWS_ENDPOINT_URL.",
    },
    OptionSpec { name: "endpoint_url", help: "Another name of endpoint." },
    OptionSpec { name: "access_key", help: "The access key's id. Default, with secret_key: the provider's chain." },
    OptionSpec { name: "access_key_id", help: "Another name of access_key." },
    OptionSpec { name: "secret_key", help: "The access key's secret." },
    OptionSpec { name: "secret_access_key", help: "Another name of secret_key." },
    OptionSpec { name: "session_token", help: "Belongs to temporary keys." },
    OptionSpec {
        name: "virtual_hosted",
        help: "true: the bucket is part of the host's name, false: of the path. Default: true at Amazon (but for buckets with a dot), else false.",
    },
    OptionSpec {
        name: "unsigned_payload",
        help: "true: bodies are not part of the signature, which saves a hash; TLS protects them. Default: false.",
    },
    OptionSpec {
        name: "dialect",
        help: "aws, or seaweedfs: refuses paths with a backslash (it takes them for slashes), starts listings and looks into folders its way. Default: aws.",
    },
    ALLOW_HTTP,
    ANONYMOUS,
    PART_MIB,
    CONCURRENCY,
];

#[derive(Debug)]
struct Sigv4 {
    /// `None`: requests go unsigned.
    credentials: Option<AwsCredentialProvider>,
    region: String,
    sign_payload: bool,
}

#[async_trait]
impl Authorize for Sigv4 {
    async fn authorize(&self, request: &mut HttpRequest) -> Result<()> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let credential = credentials.get_credential().await.map_err(|e| no_credentials(&e))?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.region).with_sign_payload(self.sign_payload);
        authorizer.try_authorize(request, None).map_err(|e| from_store(&e))
    }
}

/// Where the bucket is: `(its address, the service's)`.
fn bucket_url(bucket: &str, endpoint: Option<&str>, region: &str, virtual_hosted: Option<bool>) -> String {
    let hosted = virtual_hosted.unwrap_or(endpoint.is_none() && !bucket.contains('.'));
    match (endpoint, hosted) {
        (None, true) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        (None, false) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
        (Some(endpoint), false) => format!("{endpoint}/{bucket}"),
        (Some(endpoint), true) => match endpoint.split_once("://") {
            Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
            None => format!("{endpoint}/{bucket}"),
        },
    }
}

impl Options {
    /// Keys of the configuration; `None`: those of the provider's chain.
    fn keys(&self) -> Result<Option<AwsCredential>> {
        match (&self.access_key, &self.secret_key) {
            (Some(key), Some(secret)) => Ok(Some(AwsCredential {
                key_id: key.expose().to_owned(),
                secret_key: secret.expose().to_owned(),
                token: self.session_token.as_ref().map(|token| token.expose().to_owned()),
            })),
            (None, None) if self.session_token.is_none() => Ok(None),
            (None, _) => Err(Error::config("option `access_key` is missing: it goes with `secret_key`")),
            (Some(_), None) => Err(Error::config("option `secret_key` is missing: it goes with `access_key`")),
        }
    }

    fn shared(&self) -> Shared {
        Shared { allow_http: self.allow_http, anonymous: self.anonymous, part_mib: self.part_mib, concurrency: self.concurrency }
    }
}

impl S3Driver {
    fn parts(&self, config: &DriverConfig) -> Result<Parts> {
        self.check_options(config)?;
        let options: Options = config.typed_options()?;
        let shared = options.shared();
        let address = config.address().ok_or_else(|| Error::config("no bucket: give a URL such as s3://bucket/prefix"))?;
        let (bucket, prefix) = split_address(address, "bucket")?;
        let from_env = AmazonS3Builder::from_env();
        let known = |key| from_env.get_config_value(&key).filter(|value| !value.is_empty());
        let region = options.region.clone().or_else(|| known(AmazonS3ConfigKey::Region));
        let region = region.unwrap_or_else(|| FIRST_REGION.to_owned());
        let endpoint = options.endpoint.clone();
        let endpoint = endpoint.or_else(|| known(AmazonS3ConfigKey::S3Endpoint)).or_else(|| known(AmazonS3ConfigKey::Endpoint));
        let endpoint = endpoint.as_deref().map(checked_endpoint).transpose()?;
        let bucket_url = bucket_url(bucket, endpoint.as_deref(), &region, options.virtual_hosted);
        let client_options = shared.client_options(config, endpoint.as_deref())?;

        // object_store finds the credentials and signs URLs; its `endpoint` is the bucket's where the host is virtual.
        let mut builder = from_env
            .with_bucket_name(bucket)
            .with_region(&region)
            .with_endpoint(&bucket_url)
            .with_config(AmazonS3ConfigKey::S3Endpoint, &bucket_url)
            .with_virtual_hosted_style_request(true)
            .with_skip_signature(options.anonymous)
            .with_retry(retry_for_credentials())
            .with_client_options(client_options.clone());
        if let Some(keys) = options.keys()? {
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(keys)));
        }
        let store = builder.build().map_err(|e| Error::config(from_store(&e).message()))?;
        let credentials = (!options.anonymous).then(|| Arc::clone(store.credentials()));
        let signer = Sigv4 { credentials, region: region.clone(), sign_payload: !options.unsigned_payload };
        let hosted = !bucket_url.ends_with(&format!("/{bucket}"));
        let seaweed = options.dialect == Dialect::Seaweedfs;
        let mut traits = Vendor::S3.traits();
        if seaweed {
            traits.refused = "\\";
            traits.folders_linger = true;
        }
        let service = XmlApi {
            vendor: Vendor::S3,
            wire: Wire::new(connect(&client_options)?, Box::new(signer)),
            traits,
            by_folder: seaweed,
            bucket: bucket.to_owned(),
            bucket_url,
            signer: Arc::new(store),
            creation: Creation { location: (region != FIRST_REGION).then(|| region.clone()), project: None },
        };
        Ok(Parts {
            service: Arc::new(service),
            driver: self.name(),
            base_uri: format!("s3://{bucket}"),
            prefix,
            chunks: shared.chunks()?,
            signed_url: !options.anonymous,
            engines: engines::Bucket { name: bucket, region: &region, endpoint: endpoint.as_deref(), hosted }.engines(&options),
            endpoint,
        })
    }
}

#[async_trait]
impl Driver for S3Driver {
    fn name(&self) -> &'static str {
        "s3"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["s3a"]
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["s3", "s3a"]
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
        let parts = self.parts(config).map_err(|e| e.with_operation("s3.open"))?;
        open(parts, config).await.map_err(|e| e.with_operation("s3.open"))
    }
}
