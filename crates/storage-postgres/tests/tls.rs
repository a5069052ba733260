//! `sslmode`: what is encrypted, and whose certificate is checked.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::open;
use common::server::{Server, can_start};
use storage_conformance::certificates::authority;
use storage_conformance::load::{number, schema, table};
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
    let (cert, key) = (format!("ssl_cert_file={cert}"), format!("ssl_key_file={key}"));
    let server = Server::start_in(folder, &["-c", "ssl=on", "-c", &cert, "-c", &key]);
    for (mode, is_encrypted) in [
        ("sslmode=disable".to_owned(), false),
        ("sslmode=prefer".to_owned(), true),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=verify-full&sslrootcert={ours}"), true),
        (format!("sslrootcert={ours}"), true),
    ] {
        let opened = open(&format!("{}?{mode}&application_name=tested", server.url())).await.unwrap();
        opened.records.create_table(&schema()).await.unwrap();
        opened.records.upsert(&table(), "a", number(1)).await.unwrap();
        let raw = common::raw(&server.url()).await;
        let encrypted =
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'tested'";
        assert_eq!(raw.query_one(encrypted, &[]).await.unwrap().get::<_, Option<bool>>(0), Some(is_encrypted), "{mode}");
        opened.close().await.close().await.unwrap();
        let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tested'";
        storage_conformance::server::until("it is closed", async || {
            (raw.query_one(gone, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }
    for (mode, kind) in [
        (format!("sslmode=verify-full&sslrootcert={theirs}"), ErrorKind::Unavailable),
        // No authority of the system's has signed it.
        ("sslmode=verify-full".to_owned(), ErrorKind::Unavailable),
        ("sslrootcert=/nowhere.pem".to_owned(), ErrorKind::Config),
    ] {
        let error = open(&format!("{}?{mode}", server.url())).await.err().unwrap();
        assert_eq!((error.kind(), error.is_retryable()), (kind, false), "{mode}: {error:?}");
    }
}
