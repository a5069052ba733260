//! Who may come in, by every way to log in that there is, and whom the client trusts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Server, open, q};
use nkeys::KeyPair;
use serde_json::{Value, json};
use storage_core::{ErrorKind, NewMessage, QueueSpec, QueueStore, Receive};

/// Sends and receives.
async fn works(store: &QueueStore) {
    store.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    store.send(&q(), NewMessage::new("hello")).await.unwrap();
    let request = Receive::default().wait(Duration::from_secs(10));
    assert_eq!(store.receive(&q(), &request).await.unwrap()[0].message.body, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_told_without_them() {
    let Some(server) = Server::or_skip("authorization { user: joe, password: right }\n").await else { return };
    let host = server.address().replace("nats://", "");
    for bad in [format!("nats://{host}"), format!("nats://joe:hunter2@{host}"), format!("nats://{host}?token=hunter2")] {
        let error = open(&bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    for good in [format!("nats://joe:right@{host}"), format!("nats://{host}?user=joe&password=right")] {
        let store = open(&good).await.unwrap();
        store.ping().await.unwrap();
        assert!(!store.info().location.contains("joe"), "{}", store.info());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_may_not_do_is_unauthorized() {
    let users = "authorization { users = [{ user: reader, password: x, permissions: { publish: { deny: [\"$JS.API.STREAM.CREATE.>\"] } } }] }\n";
    let Some(server) = Server::or_skip(users).await else { return };
    let mut config = storage_core::DriverConfig::from_url(&server.address().replace("nats://", "nats://reader:x@"));
    config.timeout = Some(Duration::from_secs(1));
    let store = QueueStore::new(storage_nats::NatsStore::open(&config).await.unwrap().backends().queue.unwrap());
    let error = store.create_queue(&q(), &QueueSpec::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(store.queues().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in() {
    let Some(server) = Server::or_skip("authorization { token: right }\n").await else { return };
    let host = server.address().replace("nats://", "");
    works(&open(&format!("nats://right@{host}")).await.unwrap()).await;
    works(&open(&format!("nats://{host}?prefix=b&token=right")).await.unwrap()).await;
    let error = open(&format!("nats://wrong@{host}")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unauthorized && !format!("{error:?}").contains("wrong"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nkey_lets_in() {
    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    let config = format!("authorization {{ users = [{{ nkey: {} }}] }}\n", user.public_key());
    let Some(server) = Server::or_skip(&config).await else { return };
    let at = |key: &KeyPair| format!("{}?nkey={}", server.address(), key.seed().unwrap());
    works(&open(&at(&user)).await.unwrap()).await;
    let error = open(&at(&other)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!format!("{error:?}").contains(&other.seed().unwrap()), "{error:?}");
}

/// What an operator, or an account, says of somebody, as the servers' own tools write it down.
fn claims(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let body = json!({"jti": "x", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": "x", "nats": nats});
    let text = format!("{header}.{}", part(&body));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// What a credentials file holds.
fn credentials(account: &KeyPair, user: &KeyPair) -> String {
    let jwt =
        claims(account, user, json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}));
    let seed = user.seed().unwrap();
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credentials_file_lets_in() {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    // JetStream wants one for itself.
    let system = KeyPair::new_account();
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1, "wildcards": true,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let folder = tempfile::tempdir().unwrap();
    let described = |account: &KeyPair, limits: &Value| {
        let claims = claims(&operator, account, json!({"type": "account", "version": 2, "limits": limits}));
        format!("{}: {claims}", account.public_key())
    };
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}\n{}\n}}\njetstream {{ store_dir: \"{}\" }}\n",
        claims(&operator, &operator, json!({"type": "operator", "version": 2})),
        system.public_key(),
        described(&account, &unlimited),
        described(&system, &json!({"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1})),
        folder.path().join("store").display(),
    );
    let Some(server) = Server::or_skip(&config).await else { return };
    let file = folder.path().join("user.creds");
    std::fs::write(&file, credentials(&account, &user)).unwrap();
    works(&open(&format!("{}?credentials={}", server.address(), file.display())).await.unwrap()).await;
    // Its text, as it comes from the environment.
    let mut config = storage_core::DriverConfig::from_url(&format!("{}?prefix=b", server.address()));
    config.options.insert("credentials".into(), credentials(&account, &user).into());
    works(&QueueStore::new(storage_nats::NatsStore::open(&config).await.unwrap().backends().queue.unwrap())).await;
    // Somebody whom another account knows, a file that is no such, and one that is not there.
    let stranger = credentials(&KeyPair::new_account(), &user);
    std::fs::write(&file, &stranger).unwrap();
    let error = open(&format!("{}?credentials={}", server.address(), file.display())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!format!("{error:?}").contains(&user.seed().unwrap()), "{error:?}");
    std::fs::write(&file, "hunter2").unwrap();
    for path in [file.display().to_string(), "/nowhere/user.creds".to_owned()] {
        let error = open(&format!("{}?credentials={path}", server.address())).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    let error = open(&server.address()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

/// A server's certificate, its key, and the authority that signed it, as files in `folder`. Skips the test where there is no `openssl`.
fn certificates(folder: &std::path::Path) -> Option<()> {
    let openssl = |arguments: &str| {
        let mut command = std::process::Command::new("openssl");
        command
            .args(arguments.split(' '))
            .current_dir(folder)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !openssl("version") {
        storage_conformance::skip("no program `openssl`: `cargo xtask test --all` installs it");
        return None;
    }
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    assert!(openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=authority"));
    assert!(openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server"));
    assert!(openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.pem"));
    Some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_who_is_known() {
    let folder = tempfile::tempdir().unwrap();
    if certificates(folder.path()).is_none() {
        return;
    }
    let file = |name: &str| folder.path().join(name).display().to_string();
    let config = format!("tls {{ cert_file: \"{}\", key_file: \"{}\", timeout: 5 }}\n", file("server.pem"), file("server.key"));
    let Some(server) = Server::or_skip(&config).await else { return };
    let host = server.address().replace("nats://", "");
    for (scheme, prefix) in [("tls", "a"), ("nats", "b")] {
        let store = open(&format!("{scheme}://{host}?prefix={prefix}&tls_ca={}", file("ca.pem"))).await.unwrap();
        store.create_queue(&q(), &QueueSpec::default()).await.unwrap();
        store.send(&q(), NewMessage::new("secret")).await.unwrap();
        assert_eq!(store.receive(&q(), &Receive::default()).await.unwrap()[0].message.body, "secret");
    }
    let error = open(&format!("tls://{host}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // A server without TLS is not spoken to where TLS is asked for.
    let Some(plain) = Server::or_skip("").await else { return };
    let error = open(&plain.address().replace("nats://", "tls://")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error}");
}
