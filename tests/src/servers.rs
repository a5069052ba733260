//! The servers that `cargo xtask test` starts, as the tests find them.

/// Key and secret that every server for tests is started with.
pub const KEY: &str = "storagetest";
/// See [`KEY`].
pub const SECRET: &str = "storagetestsecret";

/// A server that speaks S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Keeps what it has in files, checks signatures.
    SeaweedFs,
    /// In memory; checks no signatures.
    Moto,
}

impl Server {
    const fn variable(self) -> &'static str {
        match self {
            Self::SeaweedFs => "XTASK_TEST_SEAWEEDFS",
            Self::Moto => "XTASK_TEST_MOTO",
        }
    }

    /// Its address, `http://127.0.0.1:PORT`; skips the test where there is none.
    #[must_use]
    pub fn or_skip(self) -> Option<String> {
        let address = std::env::var(self.variable()).map_err(|_| {
            format!(
                "no {self:?}: `cargo xtask test` starts it where it is installed (`--all` installs it), or set {}",
                self.variable()
            )
        });
        address.map_err(|reason| storage_conformance::skip(&reason)).ok()
    }

    /// The options that reach it at `endpoint`, as a query.
    #[must_use]
    pub fn options(self, endpoint: &str) -> String {
        let dialect = match self {
            Self::SeaweedFs => "seaweedfs",
            Self::Moto => "aws",
        };
        format!("endpoint={endpoint}&access_key={KEY}&secret_key={SECRET}&dialect={dialect}")
    }
}
