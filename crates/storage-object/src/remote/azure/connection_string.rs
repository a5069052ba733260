//! Connection strings of Azure Storage.

use storage_core::{Error, Result, Secret, nearest};

/// What a connection string says of blobs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionString {
    pub(crate) account: Option<String>,
    pub(crate) key: Option<Secret>,
    pub(crate) sas: Option<Secret>,
    /// Where the blobs are.
    pub(crate) endpoint: Option<String>,
    /// The emulator on this machine is meant.
    pub(crate) emulator: bool,
}

/// Keys that speak of other services or of replicas.
const OTHERS: [&str; 8] = [
    "QueueEndpoint",
    "TableEndpoint",
    "FileEndpoint",
    "BlobSecondaryEndpoint",
    "QueueSecondaryEndpoint",
    "TableSecondaryEndpoint",
    "FileSecondaryEndpoint",
    "DevelopmentStorageProxyUri",
];
const OURS: [&str; 7] = [
    "DefaultEndpointsProtocol",
    "AccountName",
    "AccountKey",
    "SharedAccessSignature",
    "BlobEndpoint",
    "EndpointSuffix",
    "UseDevelopmentStorage",
];

impl ConnectionString {
    /// Reads `Name=value;…`.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config), which shows names alone.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut found = Self::default();
        let (mut protocol, mut suffix) = ("https".to_owned(), "core.windows.net".to_owned());
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            // Keys end in `=`, signatures are full of them: the first one divides.
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                Error::config("the connection string has a part without `=`: it is `Name=value` pairs with `;` between them")
            })?;
            let known = OURS.iter().chain(&OTHERS).find(|known| known.eq_ignore_ascii_case(name.trim()));
            match *known.ok_or_else(|| unknown(name))? {
                "DefaultEndpointsProtocol" => protocol = value.to_ascii_lowercase(),
                "AccountName" => found.account = Some(value.to_owned()),
                "AccountKey" => found.key = Some(Secret::new(value)),
                "SharedAccessSignature" => found.sas = Some(Secret::new(value.trim_start_matches('?'))),
                "BlobEndpoint" => found.endpoint = Some(value.trim_end_matches('/').to_owned()),
                "EndpointSuffix" => value.clone_into(&mut suffix),
                "UseDevelopmentStorage" => found.emulator = value.eq_ignore_ascii_case("true"),
                _ => {}
            }
        }
        if !matches!(protocol.as_str(), "http" | "https") {
            return Err(Error::config("the connection string's DefaultEndpointsProtocol is neither http nor https"));
        }
        if let (None, Some(account)) = (&found.endpoint, &found.account) {
            found.endpoint = Some(format!("{protocol}://{account}.blob.{suffix}"));
        }
        if found.endpoint.is_none() && !found.emulator {
            return Err(Error::config("the connection string has neither AccountName nor BlobEndpoint"));
        }
        Ok(found)
    }
}

fn unknown(name: &str) -> Error {
    // What stands before the `=` may be a key that lost its name: only what is like a name is shown.
    match nearest(name.trim(), OURS) {
        Some(near) => Error::config(format!("the connection string has an unknown name that is like `{near}`: correct it")),
        None => Error::config(format!("the connection string has an unknown name; for blobs there are {}", OURS.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_usual_forms() {
        let parsed = ConnectionString::parse(
            "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=a+b/c==;EndpointSuffix=core.windows.net",
        );
        let parsed = parsed.unwrap();
        assert_eq!(parsed.account.as_deref(), Some("acme"));
        assert_eq!(parsed.key, Some(Secret::new("a+b/c==")));
        assert_eq!(parsed.endpoint.as_deref(), Some("https://acme.blob.core.windows.net"));
        let parsed = ConnectionString::parse(
            "BlobEndpoint=https://acme.blob.core.windows.net/;QueueEndpoint=x;SharedAccessSignature=?sv=1&sig=a%3D",
        );
        let parsed = parsed.unwrap();
        assert_eq!(parsed.sas, Some(Secret::new("sv=1&sig=a%3D")));
        assert_eq!(parsed.endpoint.as_deref(), Some("https://acme.blob.core.windows.net"));
        assert!(ConnectionString::parse("usedevelopmentstorage=true;").unwrap().emulator);
    }

    #[test]
    fn mistakes_are_told_without_secrets() {
        for bad in [
            "AccountName",
            "AccountNam=x;AccountKey=hunter2",
            "AccountKey=hunter2",
            "hunter2=",
            "DefaultEndpointsProtocol=ftp;AccountName=x",
        ] {
            let error = ConnectionString::parse(bad).unwrap_err();
            assert_eq!(error.kind(), storage_core::ErrorKind::Config, "{bad}");
            assert!(!error.message().contains("hunter2"), "{error}");
        }
        assert!(ConnectionString::parse("AccountNam=x").unwrap_err().message().contains("AccountName"));
    }
}
