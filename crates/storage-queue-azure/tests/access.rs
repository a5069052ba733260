//! The ways to be known to the service: keys, signatures, connection strings, tokens of Entra ID.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;

use chrono::{SecondsFormat, TimeDelta, Utc};
use common::server::{Server, token};
use serde_json::Value;
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

/// Tokens of Entra ID go over TLS.
#[tokio::test]
async fn tokens_of_entra_id() {
    let folder = tempfile::tempdir().unwrap();
    if let Err(reason) = storage_conformance::certificates::authority(folder.path(), "ca") {
        return storage_conformance::skip(&reason);
    }
    let [key, certificate, authority] =
        ["ca-own.key", "ca-own.pem", "ca.pem"].map(|name| folder.path().join(name).display().to_string());
    let Some(server) = Server::start_or_skip("queue", &["--cert", &certificate, "--key", &key, "--oauth", "basic"]) else {
        return;
    };
    let url = format!("azure-queue://{EMULATOR_ACCOUNT}?endpoint=https://127.0.0.1:{}/{EMULATOR_ACCOUNT}", server.port());
    let open = |token: String| open(&url, &[("token", token.into()), ("tls_ca", authority.clone().into())]);
    round_trip(&open(token(TimeDelta::hours(1)))).await;
    let expired = token(TimeDelta::hours(-1));
    let error = open(expired.clone()).ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    assert!(!format!("{error:?}").contains(&expired));
}
