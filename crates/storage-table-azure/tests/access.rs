//! The ways to be known to the service: keys, signatures, connection strings, tokens of Entra ID.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;

use common::access;
use serde_json::{Value, json};
use storage_azure::{EMULATOR_ACCOUNT, EMULATOR_KEY};
use storage_core::{Batch, DriverConfig, ErrorKind, Expect, KeyType, Query, RecordStore, TableName, TableSchema, fields};
use storage_table_azure::AzureTables;

fn open(url: &str, options: &[(&str, Value)]) -> RecordStore {
    let mut config = DriverConfig::from_url(url);
    config.options.extend(options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    RecordStore::new(Arc::new(AzureTables::open(&config).unwrap()))
}

fn schema() -> TableSchema {
    TableSchema::builder("access").partition("p", KeyType::Text).keep_undeclared().build().unwrap()
}

fn table() -> TableName {
    "access".parse().unwrap()
}

/// Records there and back, by every kind of request: the odd keys are in what is signed.
async fn round_trip(store: &RecordStore) {
    store.ping().await.unwrap();
    assert!(store.create_table(&schema()).await.unwrap());
    let key = |id: &str| ("a b&c='ü'/?", format!("{id} +%'\u{1F600}"));
    let put = |batch: Batch, id: &str| batch.put(&table(), key(id), fields(json!({"is": id})), Expect::Absent);
    store.commit(["a", "b", "c"].into_iter().fold(Batch::new(), put)).await.unwrap();
    store.insert(&table(), key("d"), fields(json!({}))).await.unwrap();
    store.update(&table(), key("d"), fields(json!({"n": 1})), Expect::Present).await.unwrap();
    assert_eq!(store.get(&table(), key("d")).await.unwrap().unwrap().fields, fields(json!({"n": 1})));
    assert_eq!(store.scan(&Query::table("access").unwrap()).await.unwrap().records.len(), 4);
    assert!(store.delete(&table(), key("d"), Expect::Anything).await.unwrap());
    assert!(store.drop_table(&table()).await.unwrap());
}

/// A signature for an account's tables, with these permissions.
fn signature(permissions: &str) -> String {
    access::signature('t', "2019-02-02", permissions, "")
}

#[tokio::test]
async fn keys_signatures_and_connection_strings() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let endpoint = format!("{address}/{EMULATOR_ACCOUNT}");
    let by_account = format!("azure-table://{EMULATOR_ACCOUNT}?prefix={prefix}&endpoint={endpoint}");
    round_trip(&open(&by_account, &[("account_key", EMULATOR_KEY.into())])).await;
    round_trip(&open(&by_account, &[("sas", signature("rwdlacu").into())])).await;
    let with_key = format!("AccountName={EMULATOR_ACCOUNT};AccountKey={EMULATOR_KEY};TableEndpoint={endpoint};");
    let with_signature = format!("TableEndpoint={endpoint};SharedAccessSignature={}", signature("rwdlacu"));
    for text in [with_key, with_signature] {
        round_trip(&open(&format!("azure-table:?prefix={prefix}"), &[("connection_string", text.into())])).await;
    }
}

/// Who may read, reads; every write of theirs is refused as such, and changes nothing. (The emulator does not ask what a batch's writer may do.)
#[tokio::test]
async fn a_signature_permits_what_it_says() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let all = common::open(&common::url(&address, &prefix));
    all.create_table(&schema()).await.unwrap();
    all.insert(&table(), ("p", "a"), fields(json!({"n": 1}))).await.unwrap();
    let url = format!("azure-table://{EMULATOR_ACCOUNT}?prefix={prefix}&endpoint={address}/{EMULATOR_ACCOUNT}");
    let reader = open(&url, &[("sas", signature("rl").into())]);
    assert!(!reader.create_table(&schema()).await.unwrap(), "it is there: nothing has to be written");
    assert_eq!(reader.get(&table(), ("p", "a")).await.unwrap().unwrap().fields, fields(json!({"n": 1})));
    assert_eq!(reader.count(&Query::table("access").unwrap()).await.unwrap(), 1);
    for error in [
        reader.insert(&table(), ("p", "b"), fields(json!({}))).await.unwrap_err(),
        reader.upsert(&table(), ("p", "a"), fields(json!({}))).await.unwrap_err(),
        reader.delete(&table(), ("p", "a"), Expect::Anything).await.map(drop).unwrap_err(),
        reader.create_table(&TableSchema::builder("other").build().unwrap()).await.map(drop).unwrap_err(),
        reader.drop_table(&table()).await.map(drop).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unauthorized, false), "{error:?}");
        assert!(!format!("{error:?} {reader:?}").contains("sig="), "{error:?}");
    }
    assert_eq!(all.get(&table(), ("p", "a")).await.unwrap().unwrap().fields, fields(json!({"n": 1})));
}

/// Wrong keys and signatures are refused as such, and nothing says them.
#[tokio::test]
async fn wrong_credentials_are_unauthorized() {
    let Some(address) = common::address_or_skip() else { return };
    // `hunter2hunter2hu`, as keys are written.
    let key = "aHVudGVyMmh1bnRlcjJodQ==";
    for (name, value) in [("account_key", key), ("sas", "sv=2019-02-02&ss=t&srt=sco&sp=rl&se=2999-01-01&sig=hunter2")] {
        let at = format!("azure-table://{EMULATOR_ACCOUNT}?endpoint={address}/{EMULATOR_ACCOUNT}");
        let store = open(&at, &[(name, value.into())]);
        for error in [store.ping().await.unwrap_err(), store.tables().await.map(drop).unwrap_err()] {
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unauthorized, false), "{error:?}");
            assert!(!format!("{error:?} {store:?}").contains("hunter2"), "{error:?}");
            assert!(!format!("{error:?} {store:?}").contains(key), "{error:?}");
        }
    }
    // Where nothing listens, neither.
    let store = open("azure-table://acme?endpoint=http://127.0.0.1:1/acme", &[("sas", "sv=2019-02-02&sig=hunter2".into())]);
    let error = store.ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error:?} {store:?}").contains("hunter2"), "{error:?}");
}

/// Tokens of Entra ID go over TLS.
#[tokio::test]
async fn tokens_of_entra_id() {
    let open = |endpoint: &str, token: String, authority: String| {
        let url = format!("azure-table://{EMULATOR_ACCOUNT}?endpoint={endpoint}");
        open(&url, &[("token", token.into()), ("tls_ca", authority.into())])
    };
    access::tokens_of_entra_id("table", open, round_trip, async |store| store.ping().await).await;
}
