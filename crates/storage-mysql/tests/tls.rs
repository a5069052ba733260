//! `sslmode`: what is encrypted, and whose certificate is checked.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::server::{Server, can_start};
use common::{Raw, open};
use storage_conformance::certificates::authority;
use storage_conformance::load::{number, schema, table};
use storage_conformance::server::until;
use storage_core::ErrorKind;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_where_that_is_asked_for() {
    if !can_start() {
        return;
    }
    let (folder, others) = (Server::folder(), tempfile::tempdir().unwrap());
    for (folder, name) in [(folder.path(), "ours"), (others.path(), "theirs")] {
        if let Err(reason) = authority(folder, name) {
            return storage_conformance::skip(&reason);
        }
    }
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key, ours) = (file("ours-own.pem"), file("ours-own.key"), file("ours.pem"));
    let theirs = others.path().join("theirs.pem").display().to_string();
    let server = Server::start_in(folder, &[&format!("--ssl-cert={cert}"), &format!("--ssl-key={key}")]);
    let mut accepted = 0;
    for (mode, is_encrypted) in [
        ("sslmode=disable".to_owned(), false),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=verify-full&sslrootcert={ours}"), true),
        (format!("sslrootcert={ours}"), true),
    ] {
        let url = format!("{}/t", server.url());
        let opened = open(&format!("{url}?{mode}")).await.unwrap();
        opened.records.create_table(&schema()).await.unwrap();
        opened.records.upsert(&table(), "a", number(1)).await.unwrap();
        let mut raw = Raw::new(&server.url()).await;
        let connections = raw.connections(&url).await;
        let encrypted =
            raw.number("SELECT VARIABLE_VALUE FROM information_schema.global_status WHERE variable_name = 'SSL_ACCEPTS'").await;
        assert_eq!((connections.is_empty(), encrypted > accepted), (false, is_encrypted), "{mode}");
        accepted = encrypted;
        opened.close().await.close().await.unwrap();
        until("it is closed", async || raw.connections(&url).await.is_empty().then_some(())).await;
    }
    for (mode, kind) in [
        (format!("sslmode=verify-full&sslrootcert={theirs}"), ErrorKind::Unavailable),
        // No authority of the system's has signed it.
        ("sslmode=verify-full".to_owned(), ErrorKind::Unavailable),
        ("sslrootcert=/nowhere.pem".to_owned(), ErrorKind::Config),
    ] {
        let error = open(&format!("{}/t?{mode}", server.url())).await.err().unwrap();
        assert_eq!((error.kind(), error.is_retryable()), (kind, false), "{mode}: {error:?}");
    }
}
