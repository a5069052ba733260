//! Connection strings of Azure Storage.

use storage_core::{Error, Result, Secret, nearest};

/// A service of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Blobs.
    Blob,
    /// Queues.
    Queue,
    /// Tables.
    Table,
}

impl Service {
    /// The part of a host's name that means it: `blob`.
    #[must_use]
    pub const fn host(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Queue => "queue",
            Self::Table => "table",
        }
    }

    const fn endpoint_name(self) -> &'static str {
        match self {
            Self::Blob => "BlobEndpoint",
            Self::Queue => "QueueEndpoint",
            Self::Table => "TableEndpoint",
        }
    }

    /// Where it is without a word to the contrary.
    #[must_use]
    pub fn endpoint(self, account: &str) -> String {
        format!("https://{account}.{}.core.windows.net", self.host())
    }

    /// Where the emulator serves it.
    #[must_use]
    pub const fn emulator_address(self) -> &'static str {
        match self {
            Self::Blob => "http://127.0.0.1:10000",
            Self::Queue => "http://127.0.0.1:10001",
            Self::Table => "http://127.0.0.1:10002",
        }
    }
}

/// What a connection string says of a service.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ConnectionString {
    /// The account's name.
    pub account: Option<String>,
    /// One of its keys.
    pub key: Option<Secret>,
    /// A shared access signature: the query part of a URL.
    pub sas: Option<Secret>,
    /// Where the service is, without a slash at its end.
    pub endpoint: Option<String>,
    /// The emulator on this machine is meant.
    pub emulator: bool,
}

/// Names that speak of one service or of replicas.
const OTHERS: [&str; 9] = [
    "BlobEndpoint",
    "QueueEndpoint",
    "TableEndpoint",
    "FileEndpoint",
    "BlobSecondaryEndpoint",
    "QueueSecondaryEndpoint",
    "TableSecondaryEndpoint",
    "FileSecondaryEndpoint",
    "DevelopmentStorageProxyUri",
];
const OURS: [&str; 6] =
    ["DefaultEndpointsProtocol", "AccountName", "AccountKey", "SharedAccessSignature", "EndpointSuffix", "UseDevelopmentStorage"];

impl ConnectionString {
    /// Reads `Name=value;…`.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config), which shows names alone.
    pub fn parse(text: &str, service: Service) -> Result<Self> {
        let mut found = Self::default();
        let (mut protocol, mut suffix) = ("https".to_owned(), "core.windows.net".to_owned());
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            // Keys end in `=`, signatures are full of them: the first one divides.
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                Error::config("the connection string has a part without `=`: it is `Name=value` pairs with `;` between them")
            })?;
            let known = OURS.iter().chain(&OTHERS).find(|known| known.eq_ignore_ascii_case(name.trim()));
            match *known.ok_or_else(|| unknown(name, service))? {
                "DefaultEndpointsProtocol" => protocol = value.to_ascii_lowercase(),
                "AccountName" => found.account = Some(value.to_owned()),
                "AccountKey" => found.key = Some(Secret::new(value)),
                "SharedAccessSignature" => found.sas = Some(Secret::new(value.trim_start_matches('?'))),
                "EndpointSuffix" => value.clone_into(&mut suffix),
                "UseDevelopmentStorage" => found.emulator = value.eq_ignore_ascii_case("true"),
                name if name == service.endpoint_name() => found.endpoint = Some(value.trim_end_matches('/').to_owned()),
                _ => {}
            }
        }
        if !matches!(protocol.as_str(), "http" | "https") {
            return Err(Error::config("the connection string's DefaultEndpointsProtocol is neither http nor https"));
        }
        if let (None, Some(account)) = (&found.endpoint, &found.account) {
            found.endpoint = Some(format!("{protocol}://{account}.{}.{suffix}", service.host()));
        }
        if found.endpoint.is_none() && !found.emulator {
            let endpoint = service.endpoint_name();
            return Err(Error::config(format!("the connection string has neither AccountName nor {endpoint}")));
        }
        Ok(found)
    }
}

fn unknown(name: &str, service: Service) -> Error {
    let known = OURS.into_iter().chain([service.endpoint_name()]);
    // What stands before the `=` may be a key that lost its name: only what is like a name is shown.
    match nearest(name.trim(), known.clone()) {
        Some(near) => Error::config(format!("the connection string has an unknown name that is like `{near}`: correct it")),
        None => {
            let known = known.collect::<Vec<_>>().join(", ");
            Error::config(format!("the connection string has an unknown name; there are {known}"))
        }
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
            Service::Blob,
        );
        let parsed = parsed.unwrap();
        assert_eq!(parsed.account.as_deref(), Some("acme"));
        assert_eq!(parsed.key, Some(Secret::new("a+b/c==")));
        assert_eq!(parsed.endpoint.as_deref(), Some("https://acme.blob.core.windows.net"));
        let parsed = ConnectionString::parse(
            "BlobEndpoint=https://acme.blob.core.windows.net/;QueueEndpoint=x;SharedAccessSignature=?sv=1&sig=a%3D",
            Service::Blob,
        );
        let parsed = parsed.unwrap();
        assert_eq!(parsed.sas, Some(Secret::new("sv=1&sig=a%3D")));
        assert_eq!(parsed.endpoint.as_deref(), Some("https://acme.blob.core.windows.net"));
        assert!(ConnectionString::parse("usedevelopmentstorage=true;", Service::Queue).unwrap().emulator);
        let azurite = "AccountName=a;AccountKey=k;BlobEndpoint=http://h:1/a;QueueEndpoint=http://h:2/a;";
        assert_eq!(ConnectionString::parse(azurite, Service::Queue).unwrap().endpoint.as_deref(), Some("http://h:2/a"));
        assert_eq!(
            ConnectionString::parse(azurite, Service::Table).unwrap().endpoint.as_deref(),
            Some("https://a.table.core.windows.net")
        );
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
            let error = ConnectionString::parse(bad, Service::Queue).unwrap_err();
            assert_eq!(error.kind(), storage_core::ErrorKind::Config, "{bad}");
            assert!(!error.message().contains("hunter2"), "{error}");
        }
        assert!(ConnectionString::parse("AccountNam=x", Service::Blob).unwrap_err().message().contains("AccountName"));
    }
}
