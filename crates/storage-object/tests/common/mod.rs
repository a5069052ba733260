//! The servers that `cargo xtask test` starts, as the tests find them.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod services;

/// Key and secret that every server for tests is started with.
pub(crate) const KEY: &str = "storagetest";
pub(crate) const SECRET: &str = "storagetestsecret";

/// A service of buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    SeaweedFs,
    Moto,
    Azurite,
}

impl Server {
    const fn variable(self) -> &'static str {
        match self {
            Self::SeaweedFs => "XTASK_TEST_SEAWEEDFS",
            Self::Moto => "XTASK_TEST_MOTO",
            Self::Azurite => "XTASK_TEST_AZURITE",
        }
    }

    /// Its address, or why it is not there.
    pub(crate) fn address(self) -> Result<String, String> {
        address(&format!("{self:?}"), self.variable())
    }

    /// Its address; skips the test where there is none.
    pub(crate) fn or_skip(self) -> Option<String> {
        self.address().map_err(|reason| storage_conformance::skip(&reason)).ok()
    }
}

fn address(name: &str, variable: &str) -> Result<String, String> {
    std::env::var(variable).map_err(|_| {
        format!("no {name}: `cargo xtask test --backend object` starts it where it is installed (`--all` installs it), or set {variable}")
    })
}

/// The address of a WebDAV server, or why there is none.
pub(crate) fn apache() -> Result<String, String> {
    address("Apache", "XTASK_TEST_APACHE")
}

/// The options of an S3 server, as a query.
pub(crate) fn s3_options(endpoint: &str) -> String {
    format!("endpoint={endpoint}&access_key={KEY}&secret_key={SECRET}")
}

/// Runs a Python script and answers what it prints.
pub(crate) async fn python(script: &str, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("python3").args(["-c", script]).args(arguments).output().await;
    let output = output.expect("python3 is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
