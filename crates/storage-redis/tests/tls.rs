//! `rediss://`: the server's certificate is checked, and the client shows its own.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::server::{Server, can_start, free_port};
use common::{open, queue};
use storage_conformance::certificates::authority;
use storage_core::{ErrorKind, NewMessage, Receive};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked() {
    if !can_start() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["ours", "theirs"] {
        if let Err(reason) = authority(folder.path(), name) {
            return storage_conformance::skip(&reason);
        }
    }
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (port, cert, key, ca) = (free_port().to_string(), file("ours-own.pem"), file("ours-own.key"), file("ours.pem"));
    let options = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let _server = Server::start(free_port(), &[&options[..], &["--tls-auth-clients", "yes"]].concat());
    let with = |ca: &str, own: &str| {
        format!(
            "rediss://127.0.0.1:{port}?tls_ca={}&tls_cert={}&tls_key={}",
            file(ca),
            file(&format!("{own}-own.pem")),
            file(&format!("{own}-own.key"))
        )
    };
    let store = open(&with("ours.pem", "ours")).await.unwrap();
    assert!(store.info().location.starts_with("rediss://"));
    let name = queue(&store, "work").await;
    store.send(&name, NewMessage::new("hello")).await.unwrap();
    let request = Receive::default().wait(common::PATIENCE);
    assert_eq!(store.receive(&name, &request).await.unwrap()[0].message.body, "hello");
    for (ca, own) in [("theirs.pem", "ours"), ("ours.pem", "theirs")] {
        let error = open(&with(ca, own)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let error = open(&format!("rediss://127.0.0.1:{port}?tls_ca={}", file("missing.pem"))).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("missing.pem"), "{error}");
    let plain = open(&format!("redis://127.0.0.1:{port}")).await.unwrap_err();
    assert!(matches!(plain.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{plain}");
}
