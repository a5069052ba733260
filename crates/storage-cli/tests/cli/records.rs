//! `table` and `record`.

use serde_json::{Value, json};

use crate::support::Sandbox;

const INVOICES: &str = r#"
name = "invoices"
id = { name = "number" }
columns = [
  { name = "customer", type = "text", required = true },
  { name = "cents", type = "integer", default = 0 },
  { name = "due", type = "timestamp" },
]
indexes = [{ name = "by_customer", columns = ["customer", "cents"] }]
undeclared = "keep"
history = { keep = 3 }
"#;

fn with_invoices() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("invoices.toml", INVOICES);
    sandbox.ok(&["table", "create", "invoices.toml"]);
    sandbox
}

fn numbers(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["key"].as_str()).collect()
}

#[test]
fn tables_come_and_go() {
    let sandbox = with_invoices();
    assert!(sandbox.ok(&["table", "create", "invoices.toml"]).contains("there already"));
    assert_eq!(sandbox.json1(&["table", "create", "invoices.toml"]), json!({"table": "invoices", "created": false}));
    assert!(sandbox.ok(&["table", "ls"]).contains("invoices"));
    let text = sandbox.ok(&["table", "describe", "invoices"]);
    assert!(text.contains("customer") && text.contains("by_customer") && text.contains("3 versions"), "{text}");

    // What describe says can be read by create: as JSON, as YAML, and from stdin.
    let schema = sandbox.json1(&["table", "describe", "invoices"]);
    sandbox.write("same.json", schema.to_string());
    assert!(sandbox.ok(&["table", "create", "same.json"]).contains("there already"));
    let other = schema.to_string().replace("\"invoices\"", "\"copies\"");
    sandbox.run_with(&["table", "create", "-"], other.as_bytes()).ok();
    sandbox.write("third.yaml", "name: third\nid: { name: id, type: integer }\n");
    sandbox.ok(&["table", "create", "third.yaml"]);
    let names: Vec<_> = sandbox.json(&["table", "ls"]).iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, ["copies", "invoices", "third"]);

    sandbox.write("changed.toml", INVOICES.replace("keep = 3", "keep = 4"));
    assert!(sandbox.fails(4, &["table", "create", "changed.toml"]).contains("invoices"));
    sandbox.write("bad.toml", "name = 5");
    assert!(sandbox.fails(2, &["table", "create", "bad.toml"]).contains("bad.toml"));
    sandbox.write("bad.yaml", "name: [");
    assert!(sandbox.fails(2, &["table", "create", "bad.yaml"]).contains("bad.yaml"));
    sandbox.fails(3, &["table", "create", "gone.toml"]);
    sandbox.fails(3, &["table", "describe", "gone"]);

    assert_eq!(sandbox.json1(&["table", "drop", "third"]), json!({"table": "third", "dropped": true}));
    sandbox.fails(3, &["table", "drop", "third"]);
    sandbox.ok(&["table", "drop", "third", "--missing-ok"]);
}

#[test]
fn records_are_written_read_and_removed() {
    let sandbox = with_invoices();
    let put = |args: &[&str]| sandbox.json1(&[&["record", "put", "invoices"], args].concat())["version"].clone();
    assert_eq!(put(&["a", r#"{"customer": "acme", "cents": 5, "note": "kept"}"#]), 1);
    assert_eq!(put(&["a", r#"{"customer": "acme", "cents": 6}"#, "--if-version", "1"]), 2);
    assert_eq!(put(&["a", r#"{"note": "again"}"#, "--merge"]), 3);
    let shown: Value = serde_json::from_str(&sandbox.ok(&["record", "get", "invoices", "a"])).unwrap();
    assert_eq!(shown, json!({"number": "a", "customer": "acme", "cents": 6, "note": "again"}));
    // What get shows can be put back.
    assert_eq!(put(&["a", &shown.to_string()]), 4);
    let got = sandbox.json1(&["record", "get", "invoices", "a"]);
    assert_eq!((&got["key"], &got["version"], &got["record"]["cents"]), (&json!("a"), &json!(4), &json!(6)));
    assert!(got["updated_at"].as_str().unwrap().ends_with('Z'));
    let history = sandbox.json(&["record", "history", "invoices", "a"]);
    assert_eq!(history.iter().map(|h| h["version"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 3, 2]);

    sandbox.fails(4, &["record", "put", "invoices", "a", "{\"customer\": \"x\"}", "--insert"]);
    sandbox.fails(4, &["record", "put", "invoices", "a", "{\"customer\": \"x\"}", "--if-version", "1"]);
    sandbox.fails(3, &["record", "put", "invoices", "gone", "{}", "--merge"]);
    sandbox.fails(3, &["record", "put", "gone", "a", "{}"]);
    sandbox.fails(3, &["record", "get", "invoices", "gone"]);
    sandbox.fails(3, &["record", "history", "invoices", "gone"]);
    assert!(sandbox.fails(2, &["record", "put", "invoices", "b", "{}"]).contains("customer"));
    assert!(sandbox.fails(2, &["record", "put", "invoices", "b", "[1]"]).contains("an array"));
    assert!(sandbox.fails(2, &["record", "put", "invoices", "b", "{x"]).contains("not JSON"));

    sandbox.run_with(&["record", "put", "invoices", "b", "-", "--ttl", "1h"], br#"{"customer": "from stdin"}"#).ok();
    assert!(sandbox.json1(&["record", "get", "invoices", "b"])["expires_at"].is_string());

    assert_eq!(sandbox.json1(&["record", "delete", "invoices", "a", "--if-version", "4"])["deleted"], true);
    sandbox.fails(3, &["record", "delete", "invoices", "a"]);
    assert_eq!(sandbox.json1(&["record", "delete", "invoices", "a", "--missing-ok"])["deleted"], false);
}

#[test]
fn queries_filter_sort_and_page() {
    let sandbox = with_invoices();
    for (key, customer, cents) in [("a", "acme", 5), ("b", "acme", 50), ("c", "it's", 7), ("d", "zeta", -3)] {
        let fields = json!({"customer": customer, "cents": cents}).to_string();
        sandbox.ok(&["record", "put", "invoices", key, &fields]);
    }
    let query = |args: &[&str]| {
        let lines = sandbox.json(&[&["record", "query", "invoices"], args].concat());
        numbers(&lines).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(query(&[]), ["a", "b", "c", "d"]);
    assert_eq!(query(&["--filter", "customer = 'acme' and cents > 10"]), ["b"]);
    assert_eq!(query(&["--filter", "customer = 'it''s' or cents < 0"]), ["c", "d"]);
    assert_eq!(query(&["--order", "cents:desc"]), ["b", "c", "a", "d"]);
    assert_eq!(query(&["--order", "customer:desc,cents", "--limit", "3"]), ["d", "c", "a"]);
    assert_eq!(sandbox.ok(&["record", "count", "invoices", "--filter", "customer starts_with 'a'"]), "2\n");
    assert_eq!(sandbox.json1(&["record", "count", "invoices"]), json!({"table": "invoices", "count": 4}));

    let page = sandbox.json(&["record", "query", "invoices", "--limit", "3"]);
    assert_eq!(numbers(&page), ["a", "b", "c"]);
    let token = page.last().unwrap()["next"].as_str().unwrap();
    let rest = sandbox.json(&["record", "query", "invoices", "--limit", "3", "--after", token]);
    assert_eq!(numbers(&rest), ["d"]);
    assert_eq!(rest.len(), 1, "nothing comes after the last one");

    let table = sandbox.ok(&["record", "query", "invoices", "--filter", "cents = 7"]);
    assert!(table.contains("it's") && table.contains("customer"), "{table}");
    assert!(sandbox.fails(2, &["record", "query", "invoices", "--filter", "cents = "]).contains("filter"));
    assert!(sandbox.fails(2, &["record", "query", "invoices", "--filter", "cents == 1"]).contains("column 7"));
    assert!(sandbox.fails(2, &["record", "query", "invoices", "--filter", "cents = 'x'"]).contains("cents"));
    sandbox.fails(2, &["record", "query", "invoices", "--after", "nonsense"]);
    assert_eq!(sandbox.run(&["record", "query", "invoices", "--order", "cents:up"]).code, Some(2));
}

#[test]
fn keys_of_two_parts_and_of_numbers() {
    let sandbox = Sandbox::new();
    sandbox.write("t.yaml", "{name: t, partition: {name: tenant}, id: {name: n, type: integer}, undeclared: keep}");
    sandbox.ok(&["table", "create", "t.yaml"]);
    sandbox.ok(&["record", "put", "t", "acme/-7", "{\"x\": 1}"]);
    sandbox.ok(&["record", "put", "t", "[\"a/b\", 7]", "{\"x\": 2}"]);
    assert_eq!(sandbox.json1(&["record", "get", "t", "acme/-7"])["key"], json!(["acme", -7]));
    assert_eq!(sandbox.json1(&["record", "get", "t", "[\"a/b\", 7]"])["record"], json!({"tenant": "a/b", "n": 7, "x": 2}));
    assert!(sandbox.fails(2, &["record", "get", "t", "acme"]).contains("TENANT/N"));
    assert!(sandbox.fails(2, &["record", "get", "t", "acme/x"]).contains("integer"));
    // Text that would move the cursor is shown, not done.
    sandbox.ok(&["record", "put", "t", "acme/1", "{\"x\": \"\\u001b[2J\"}"]);
    assert!(!sandbox.ok(&["record", "query", "t"]).contains('\u{1b}'));
}
