//! The servers that `cargo xtask test` starts, as the tests find them.

#![allow(dead_code, reason = "each test binary uses a part")]

/// Key and secret that every server for tests is started with.
pub const KEY: &str = "storagetest";
pub const SECRET: &str = "storagetestsecret";

/// A server for tests.
#[derive(Clone, Copy, Debug)]
pub enum Server {
    SeaweedFs,
    Moto,
    Azurite,
}

impl Server {
    const fn variable(self) -> &'static str {
        match self {
            Self::SeaweedFs => "STORAGE_TEST_SEAWEEDFS",
            Self::Moto => "STORAGE_TEST_MOTO",
            Self::Azurite => "STORAGE_TEST_AZURITE",
        }
    }

    /// Its address, or why it is not there.
    pub fn address(self) -> Result<String, String> {
        std::env::var(self.variable()).map_err(|_| {
            format!("no {self:?}: `cargo xtask test --backend object` starts it where it is installed (`--all` installs it), or set {}", self.variable())
        })
    }

    /// Its address; skips the test where there is none.
    pub fn or_skip(self) -> Option<String> {
        self.address().map_err(|reason| storage_conformance::skip(&reason)).ok()
    }
}

/// The options of an S3 server, as a query.
pub fn s3_options(endpoint: &str) -> String {
    format!("endpoint={endpoint}&access_key={KEY}&secret_key={SECRET}")
}
