//! The services' own clients, in Python.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use storage_core::BlobAttributes;

use crate::common::Server;

/// A client in another language.
pub(crate) struct Peer {
    script: &'static str,
    pub(crate) container: &'static str,
    pub(crate) options: BTreeMap<String, String>,
}

/// A blob as a peer reads it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    content: String,
    pub(crate) etag: String,
    pub(crate) attributes: BlobAttributes,
}

impl Read {
    pub(crate) fn content(&self) -> Vec<u8> {
        STANDARD.decode(&self.content).unwrap()
    }
}

/// A blob as a peer lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) etag: String,
}

/// What a write came to.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Put {
    Etag(String),
    /// The status.
    Refused(u16),
}

impl Put {
    pub(crate) fn etag(self) -> String {
        match self {
            Self::Etag(etag) => etag,
            Self::Refused(status) => panic!("the service refused with {status}"),
        }
    }
}

impl Peer {
    /// Skips the test where Python or the client is not there.
    pub(crate) fn or_skip(server: Server, container: &'static str, options: BTreeMap<String, String>) -> Option<Self> {
        let (script, module) = match server {
            Server::SeaweedFs | Server::Moto => (include_str!("s3.py"), "boto3"),
            Server::Azurite => (include_str!("azure.py"), "azure.storage.blob"),
        };
        is_there_or_skip(module).then_some(Self { script, container, options })
    }

    pub(crate) fn read(&self, names: &[String]) -> Vec<Read> {
        self.ask(names.iter().map(|name| json!({ "do": "get", "name": name })).collect())
    }

    pub(crate) fn list(&self, prefix: &str) -> Vec<Listed> {
        self.ask::<Vec<Vec<Listed>>>(vec![json!({ "do": "list", "prefix": prefix })]).remove(0)
    }

    pub(crate) fn put_all(&self, puts: Vec<Value>) -> Vec<Put> {
        self.ask(puts)
    }

    fn ask<T: DeserializeOwned>(&self, calls: Vec<Value>) -> T {
        ask(self.script, &json!({ "options": self.options, "container": self.container, "calls": calls }))
    }
}

/// Whether `python3` has these modules; skips the test where it has not.
pub(crate) fn is_there_or_skip(modules: &str) -> bool {
    let found = Command::new("python3").args(["-c", &format!("import {modules}")]).stderr(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    if !is_there {
        storage_conformance::skip(&format!(
            "no {modules} in `python3`: `cargo xtask test --backend object --all` installs it, or install it into the Python in PATH"
        ));
    }
    is_there
}

/// Runs a script that reads JSON and answers JSON.
pub(crate) fn ask<T: DeserializeOwned>(script: &str, asked: &Value) -> T {
    // Blocked, the runtime would not see that a server closes an idle connection.
    tokio::task::block_in_place(|| {
        let mut python = Command::new("python3");
        python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().unwrap();
        python.stdin.take().unwrap().write_all(&serde_json::to_vec(asked).unwrap()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "the script failed, see above");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
    })
}

/// A write for [`Peer::put_all`].
pub(crate) fn put(name: &str, content: &[u8], attributes: &BlobAttributes) -> Value {
    json!({ "do": "put", "name": name, "content": STANDARD.encode(content), "attributes": attributes })
}

/// The write, with more said of it.
pub(crate) fn with(mut put: Value, name: &str, value: impl Into<Value>) -> Value {
    put[name] = value.into();
    put
}
