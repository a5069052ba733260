//! The ways to be known to the service: keys, signatures, connection strings, tokens of Entra ID.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{SecondsFormat, TimeDelta, Utc};
use common::server::Server;
use serde_json::{Value, json};
use storage_azure::{AccountKey, EMULATOR_ACCOUNT, EMULATOR_KEY};
use storage_core::{DriverConfig, ErrorKind, NewMessage, QueueName, QueueStore, Receive, Secret};
use storage_queue_azure::AzureQueue;

fn open(url: &str, options: &[(&str, Value)]) -> QueueStore {
    let mut config = DriverConfig::from_url(url);
    config.options.extend(options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    QueueStore::new(Arc::new(AzureQueue::open(&config).unwrap()))
}

/// A message there and back.
async fn round_trip(store: &QueueStore) {
    let queue: QueueName = "access".parse().unwrap();
    store.ping().await.unwrap();
    store.ensure_queue(&queue, &store.default_spec()).await.unwrap();
    store.send(&queue, NewMessage::new("a b&c=ü")).await.unwrap();
    let taken = store.receive(&queue, &Receive::default()).await.unwrap().remove(0);
    assert_eq!(taken.message.body, "a b&c=ü");
    store.delete(&queue, &taken.receipt).await.unwrap();
    assert!(store.delete_queue(&queue).await.unwrap());
}

/// A signature for an account's queues, with these permissions.
fn signature(permissions: &str) -> String {
    let version = "2021-12-02";
    let end = (Utc::now() + TimeDelta::hours(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let signed = format!("{EMULATOR_ACCOUNT}\n{permissions}\nq\nsco\n\n{end}\n\n\n{version}\n\n");
    let signature = AccountKey::new(&Secret::new(EMULATOR_KEY)).unwrap().sign(&signed);
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("sv={version}&ss=q&srt=sco&sp={permissions}&se={}&sig={signature}", end.replace(':', "%3A"))
}

#[tokio::test]
async fn keys_signatures_and_connection_strings() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let endpoint = format!("{address}/{EMULATOR_ACCOUNT}");
    let by_account = format!("azure-queue://{EMULATOR_ACCOUNT}?prefix={prefix}&endpoint={endpoint}");
    round_trip(&open(&by_account, &[("account_key", EMULATOR_KEY.into())])).await;
    round_trip(&open(&by_account, &[("sas", signature("rwdlacup").into())])).await;
    let with_key = format!("AccountName={EMULATOR_ACCOUNT};AccountKey={EMULATOR_KEY};QueueEndpoint={endpoint};");
    let with_signature = format!("QueueEndpoint={endpoint};SharedAccessSignature={}", signature("rwdlacup"));
    for text in [with_key, with_signature] {
        round_trip(&open(&format!("azure-queue:?prefix={prefix}"), &[("connection_string", text.into())])).await;
    }
}

/// A signature is good for what it permits.
#[tokio::test]
async fn a_signature_permits_what_it_says() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let all = common::open(&common::url(&address, &prefix));
    let queue: QueueName = "access".parse().unwrap();
    all.create_queue(&queue, &all.default_spec()).await.unwrap();
    let url = format!("azure-queue://{EMULATOR_ACCOUNT}?prefix={prefix}&endpoint={address}/{EMULATOR_ACCOUNT}");
    let sender = open(&url, &[("sas", signature("a").into())]);
    sender.send(&queue, NewMessage::new("a")).await.unwrap();
    let error = sender.receive(&queue, &Receive::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
}

/// A token as the emulator wants it: it looks at what is in it, not at who signed it.
fn token(valid_for: TimeDelta) -> String {
    let now = Utc::now();
    let claims = json!({
        "aud": "https://storage.azure.com", "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "iat": (now - TimeDelta::hours(2)).timestamp(), "nbf": (now - TimeDelta::hours(2)).timestamp(),
        "exp": (now + valid_for).timestamp(), "oid": "23657296-5cd5-45b0-a809-d972a7f4dfe1",
    });
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims), BASE64_URL_SAFE_NO_PAD.encode("unsigned"))
}

/// A key and a certificate for 127.0.0.1, and the authority that signed it.
fn certificates(folder: &Path) -> [String; 3] {
    const NEW: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
    for arguments in [
        format!("req -x509 {NEW} -keyout ca.key -out ca.pem -days 2 -subj /CN=tests"),
        format!("req {NEW} -keyout own.key -out own.csr -subj /CN=own"),
        "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem -days 2 -extfile names".into(),
    ] {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
    ["own.key", "own.pem", "ca.pem"].map(|name| folder.join(name).display().to_string())
}

/// Tokens of Entra ID go over TLS.
#[tokio::test]
async fn tokens_of_entra_id() {
    let folder = tempfile::tempdir().unwrap();
    if Command::new("openssl").arg("version").output().is_err() {
        return storage_conformance::skip("no openssl to make certificates: `cargo xtask test --all` installs it");
    }
    let [key, certificate, authority] = certificates(folder.path());
    let Some(server) = Server::start_or_skip(&["--cert", &certificate, "--key", &key, "--oauth", "basic"]) else { return };
    let url = format!("azure-queue://{EMULATOR_ACCOUNT}?endpoint=https://127.0.0.1:{}/{EMULATOR_ACCOUNT}", server.port());
    let open = |token: String| open(&url, &[("token", token.into()), ("tls_ca", authority.clone().into())]);
    round_trip(&open(token(TimeDelta::hours(1)))).await;
    let expired = token(TimeDelta::hours(-1));
    let error = open(expired.clone()).ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    assert!(!format!("{error:?}").contains(&expired));
}
