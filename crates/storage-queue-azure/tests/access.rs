//! The ways to be known to the service: keys, signatures, connection strings, tokens of Entra ID.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;

use common::access;
use serde_json::Value;
use storage_azure::{EMULATOR_ACCOUNT, EMULATOR_KEY};
use storage_core::{DriverConfig, ErrorKind, NewMessage, QueueName, QueueStore, Receive};
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
    access::signature('q', "2021-12-02", permissions, "\n")
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
    let open = |endpoint: &str, token: String, authority: String| {
        let url = format!("azure-queue://{EMULATOR_ACCOUNT}?endpoint={endpoint}");
        open(&url, &[("token", token.into()), ("tls_ca", authority.into())])
    };
    access::tokens_of_entra_id("queue", open, round_trip, async |store| store.ping().await).await;
}
