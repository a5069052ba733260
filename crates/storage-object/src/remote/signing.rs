//! Signed URLs.

use std::time::Duration;

use http::Method;
use object_store::path::Path;
use object_store::signer::Signer;
use storage_core::{Error, Result, Secret, SignedAccess};

use super::errors::from_store;

/// A URL signed by object_store.
pub(crate) async fn signed(signer: &dyn Signer, key: &str, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
    let path = Path::parse(key).map_err(|e| Error::invalid(e.to_string()))?;
    let method = match access {
        SignedAccess::Get => Method::GET,
        SignedAccess::Put => Method::PUT,
    };
    let url = signer.signed_url(method, &path, expires_in).await.map_err(|e| from_store(&e))?;
    Ok(Secret::new(url.to_string()))
}
