//! A bucket of S3, in the words of engines.

use super::Options;
use crate::remote::engines::{Engines, Opening, Way, host_of};

/// What is known of a bucket besides its options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket<'a> {
    pub(super) name: &'a str,
    pub(super) region: &'a str,
    /// Where the service is, if not at Amazon.
    pub(super) endpoint: Option<&'a str>,
    /// The bucket is part of the host's name.
    pub(super) hosted: bool,
}

const fn text(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}

impl Bucket<'_> {
    pub(super) fn engines(self, options: &Options) -> Engines {
        Engines { object_store: Ok(self.object_store(options)), duck_db: self.duck_db(options), spark: Ok(self.spark(options)) }
    }

    fn object_store(self, options: &Options) -> Opening {
        let plain = self.endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        Opening::at(format!("s3://{}", self.name))
            .set("aws_region", self.region)
            .set_if("aws_endpoint_url", self.endpoint)
            .set_if("aws_allow_http", plain.then_some("true"))
            .set("aws_virtual_hosted_style_request", text(self.hosted))
            .set_if("aws_skip_signature", options.anonymous.then_some("true"))
            .secret("aws_access_key_id", options.access_key.as_ref())
            .secret("aws_secret_access_key", options.secret_key.as_ref())
            .secret("aws_session_token", options.session_token.as_ref())
    }

    fn duck_db(self, options: &Options) -> Way {
        let place = self.endpoint.map(|endpoint| {
            host_of(endpoint).ok_or("DuckDB takes a host and a port as the service's address, and this one has a path")
        });
        let place = place.transpose()?;
        let chain = options.access_key.is_none() && !options.anonymous;
        Ok(Opening::at(format!("s3://{}", self.name))
            .set("TYPE", "s3")
            // DuckDB's own, of its extension `aws`.
            .set("PROVIDER", if chain { "credential_chain" } else { "config" })
            .set("REGION", self.region)
            .set("URL_STYLE", if self.hosted { "vhost" } else { "path" })
            .set("USE_SSL", text(place.is_none_or(|(_, tls)| tls)))
            .set_if("ENDPOINT", place.map(|(host, _)| host))
            .secret("KEY_ID", options.access_key.as_ref())
            .secret("SECRET", options.secret_key.as_ref())
            .secret("SESSION_TOKEN", options.session_token.as_ref()))
    }

    /// Without keys, S3A looks for some in the environment and at the instance.
    fn spark(self, options: &Options) -> Opening {
        let tls = self.endpoint.is_none_or(|endpoint| endpoint.starts_with("https://"));
        let nobody = options.anonymous.then_some("org.apache.hadoop.fs.s3a.AnonymousAWSCredentialsProvider");
        Opening::at(format!("s3a://{}", self.name))
            .set("fs.s3a.endpoint.region", self.region)
            .set_if("fs.s3a.endpoint", self.endpoint)
            .set("fs.s3a.path.style.access", text(!self.hosted))
            .set("fs.s3a.connection.ssl.enabled", text(tls))
            .set_if("fs.s3a.aws.credentials.provider", nobody)
            .secret("fs.s3a.access.key", options.access_key.as_ref())
            .secret("fs.s3a.secret.key", options.secret_key.as_ref())
            .secret("fs.s3a.session.token", options.session_token.as_ref())
    }
}
