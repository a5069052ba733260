//! Another program at a table: Python's azure-data-tables.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

pub(crate) struct Peer {
    address: String,
    table: String,
}

impl Peer {
    /// At a table by its name on the service; skips the test where the client is not installed.
    pub(crate) fn or_skip(address: &str, table: &str) -> Option<Self> {
        let found = Command::new("python3").args(["-c", "import azure.data.tables"]).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            storage_conformance::skip(
                "no azure.data.tables in `python3`: `cargo xtask test --backend table-azure --all` installs it",
            );
            return None;
        }
        Some(Self { address: address.to_owned(), table: table.to_owned() })
    }

    pub(crate) fn ask(&self, calls: &[Value]) -> Vec<Value> {
        let account = storage_azure::EMULATOR_ACCOUNT;
        let asked = json!({
            "endpoint": format!("{}/{account}", self.address), "account": account, "key": storage_azure::EMULATOR_KEY,
            "table": self.table, "calls": calls,
        });
        // Blocked, the runtime would not see that a server closes an idle connection.
        tokio::task::block_in_place(|| {
            let mut python = Command::new("python3");
            python.args(["-c", include_str!("../peer.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut python = python.spawn().unwrap();
            python.stdin.take().unwrap().write_all(&serde_json::to_vec(&asked).unwrap()).unwrap();
            let output = python.wait_with_output().unwrap();
            assert!(output.status.success(), "the script failed, see above");
            serde_json::from_slice(&output.stdout).unwrap()
        })
    }

    pub(crate) fn one(&self, call: Value) -> Value {
        self.ask(&[call]).remove(0)
    }
}
