//! How requests prove who sends them.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::request::Body;
use azure_core::http::{ClientOptions, Context, Request};
use azure_identity::{
    AzureCliCredential, ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use chrono::Utc;
use storage_core::{Error, Result, Secret};

use crate::{AccountKey, Service, SignedRequest, authorization, table_authorization};

/// Signs every try with the account's key.
#[derive(Debug)]
pub(crate) struct SharedKeyPolicy {
    pub(crate) account: String,
    pub(crate) key: AccountKey,
    pub(crate) service: Service,
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "as the trait declares it; said, it is another lifetime to the macro")]
impl Policy for SharedKeyPolicy {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header("x-ms-date", Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let authorization = self.authorization(request);
        request.insert_header("authorization", authorization);
        let Some((first, rest)) = next.split_first() else {
            let kind = azure_core::error::ErrorKind::Other;
            return Err(azure_core::Error::with_message(kind, "a pipeline that ends with a signature"));
        };
        first.send(context, request, rest).await
    }
}

impl SharedKeyPolicy {
    fn authorization(&self, request: &Request) -> String {
        let url = request.url();
        let query: Vec<(String, String)> = url.query_pairs().map(|(name, value)| (name.into(), value.into())).collect();
        let headers: Vec<(&str, &str)> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let content_length = match request.body() {
            Body::Bytes(bytes) => bytes.len(),
            // No request to queues or tables has such a body.
            Body::SeekableStream(stream) => stream.len().and_then(|len| usize::try_from(len).ok()).unwrap_or_default(),
        };
        let verb = request.method().to_string();
        let signed = SignedRequest { verb: &verb, path: url.path(), query: &query, headers: &headers, content_length };
        match self.service {
            Service::Table => table_authorization(&self.account, &self.key, &signed),
            Service::Blob | Service::Queue => authorization(&self.account, &self.key, &signed),
        }
    }
}

/// A token that was given, and is not renewed.
#[derive(Debug)]
struct GivenToken(Secret);

#[async_trait]
impl TokenCredential for GivenToken {
    async fn get_token(&self, _scopes: &[&str], _options: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        // When it ends is not known; asked for again, it would be the same.
        let expires = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
        Ok(AccessToken::new(self.0.expose().to_owned(), expires.into()))
    }
}

/// Who is asked for tokens.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// The environment decides: a workload's identity, an application's secret, else a managed identity.
    FromEnvironment,
    Token(Secret),
    Application {
        tenant: String,
        id: String,
        secret: Secret,
    },
    Managed {
        id: Option<String>,
    },
    Workload,
    Cli,
}

impl Identity {
    /// What the client is given.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) where something is missing.
    pub(crate) fn credential(&self, client_options: &ClientOptions) -> Result<Arc<dyn TokenCredential>> {
        let client_options = client_options.clone();
        let credential: azure_core::Result<Arc<dyn TokenCredential>> = match self {
            Self::FromEnvironment => return Self::from_environment().credential(&client_options),
            Self::Token(token) => return Ok(Arc::new(GivenToken(token.clone()))),
            Self::Application { tenant, id, secret } => {
                let options = ClientSecretCredentialOptions { client_options };
                let secret = azure_core::credentials::Secret::new(secret.expose().to_owned());
                ClientSecretCredential::new(tenant, id.clone(), secret, Some(options)).map(|made| made as _)
            }
            Self::Managed { id } => {
                let user_assigned_id = id.clone().map(UserAssignedId::ClientId);
                let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
                ManagedIdentityCredential::new(Some(options)).map(|made| made as _)
            }
            Self::Workload => {
                let mut options = WorkloadIdentityCredentialOptions::default();
                options.credential_options.client_options = client_options;
                WorkloadIdentityCredential::new(Some(options)).map(|made| made as _)
            }
            Self::Cli => AzureCliCredential::new(None).map(|made| made as _),
        };
        credential.map_err(|error| Error::config(format!("credentials of Entra ID: {error}")))
    }

    fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if variable("AZURE_FEDERATED_TOKEN_FILE").is_some() {
            return Self::Workload;
        }
        let id = variable("AZURE_CLIENT_ID");
        match (variable("AZURE_TENANT_ID"), &id, variable("AZURE_CLIENT_SECRET")) {
            (Some(tenant), Some(id), Some(secret)) => Self::Application { tenant, id: id.clone(), secret: Secret::new(secret) },
            _ => Self::Managed { id },
        }
    }
}
