//! Records on Azure Table Storage.

use serde_json::json;

use crate::support::Sandbox;

/// The address of the emulator with a prefix that nobody else uses; skips the test where there is none.
fn address(test: &str) -> Option<String> {
    let Ok(address) = std::env::var("XTASK_TEST_AZURITE_TABLE") else {
        storage_conformance::skip(
            "no Azurite: `cargo xtask test` starts it where it is installed, or set XTASK_TEST_AZURITE_TABLE",
        );
        return None;
    };
    Some(format!("azure-table:?emulator=true&endpoint={address}&prefix=cli{test}{}", storage_conformance::process_mark()))
}

#[test]
fn table_azure_by_url() {
    let Some(url) = address("r") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("orders.toml", "name = \"orders\"\nid = { name = \"number\" }\nundeclared = \"keep\"\n");
    let on = |args: &[&str]| [&["--url", &url], args].concat().iter().map(ToString::to_string).collect::<Vec<_>>();
    let ok = |args: &[&str]| sandbox.ok(&on(args).iter().map(String::as_str).collect::<Vec<_>>());
    let json = |args: &[&str]| sandbox.json(&on(args).iter().map(String::as_str).collect::<Vec<_>>());
    ok(&["table", "create", "orders.toml"]);
    assert!(ok(&["table", "ls"]).contains("orders"));
    for n in 0..5 {
        ok(&["record", "put", "orders", &format!("o-{n}"), &json!({"cents": n * 100}).to_string()]);
    }
    assert_eq!(json(&["record", "get", "orders", "o-3"]).remove(0)["record"]["cents"], 300);
    let found = json(&["record", "query", "orders", "--filter", "number >= 'o-2' and cents < 400"]);
    assert_eq!(found.iter().map(|order| order["record"]["number"].as_str().unwrap()).collect::<Vec<_>>(), ["o-2", "o-3"]);
    ok(&["record", "delete", "orders", "o-3"]);
    assert_eq!(json(&["record", "count", "orders"]).remove(0)["count"], 4);
    ok(&["table", "drop", "orders"]);
}
