//! `curl`, which knows of signed URLs what they say.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// The status and the body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// True where there is one; else skips the test.
pub(crate) fn or_skip() -> bool {
    let found = Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        storage_conformance::skip("no curl: install it, or let `cargo xtask test --backend object --all` do so");
    }
    found
}

pub(crate) fn get(url: &str) -> Answer {
    run(&[url], &[])
}

pub(crate) fn put(url: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut arguments: Vec<&str> = headers.iter().flat_map(|header| ["--header", header]).collect();
    arguments.extend(["--upload-file", "-", url]);
    // A body from a pipe goes in chunks of unknown number, which services refuse.
    let length = format!("Content-Length: {}", body.len());
    run(&[&["--header", &length, "--header", "Transfer-Encoding:"], &arguments[..]].concat(), body)
}

fn run(arguments: &[&str], input: &[u8]) -> Answer {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--globoff", "--path-as-is", "--noproxy", "*", "--write-out", "%{http_code}"]);
    let mut curl = curl.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    curl.stdin.take().unwrap().write_all(input).unwrap();
    let output = curl.wait_with_output().unwrap();
    assert!(output.status.success(), "curl failed, see above");
    let (body, status) = output.stdout.split_at(output.stdout.len() - 3);
    Answer { status: std::str::from_utf8(status).unwrap().parse().unwrap(), body: body.to_vec() }
}
