//! What errors of object_store, and errors within good answers, mean.

#[cfg(feature = "buckets")]
use object_store::Error as StoreError;
#[cfg(feature = "buckets")]
use storage_core::{Error, ErrorKind};

/// The text of the first element of that name.
pub(crate) fn element(xml: &str, name: &str) -> Option<String> {
    let from = xml.find(&format!("<{name}>"))? + name.len() + 2;
    let text = &xml[from..from + xml[from..].find("</")?];
    quick_xml::escape::unescape(text).ok().map(|text| text.trim().to_owned())
}

/// An error of building a client or of getting credentials. object_store's own texts name no secrets.
#[cfg(feature = "buckets")]
pub(crate) fn from_store(error: &StoreError) -> Error {
    let kind = match error {
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => ErrorKind::Unsupported,
        StoreError::UnknownConfigurationKey { .. } => ErrorKind::Config,
        StoreError::InvalidPath { .. } => ErrorKind::InvalidInput,
        _ => ErrorKind::Unauthorized,
    };
    Error::new(kind, chain(error))
}

/// An error with its causes, each once.
#[cfg(feature = "buckets")]
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// No credentials could be had.
#[cfg(feature = "buckets")]
pub(crate) fn no_credentials(error: &StoreError) -> Error {
    Error::new(
        ErrorKind::Unauthorized,
        format!("no credentials: give them in the configuration or the environment ({})", chain(error)),
    )
}
