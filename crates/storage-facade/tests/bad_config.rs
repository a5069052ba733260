//! Bad configurations, each with the message that its author gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;
use std::sync::Arc;

use storage_facade::{EnvLayer, Registry, Storage};

/// File name, content, and environment variables.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const CASES: &[Case] = &[
    // Files that are not what they say.
    ("c.toml", "task_queue = ", &[]),
    ("c.yaml", "task_queue: [", &[]),
    ("c.json", "{\"task_queue\": }", &[]),
    ("c.ini", "[task_queue]", &[]),
    ("c.json", "[1, 2]", &[]),
    ("c.yaml", "just text", &[]),
    // Keys.
    ("c.toml", "task_queu = \"memory:\"", &[]),
    ("c.toml", "tasks = \"memory:\"", &[]),
    ("c.toml", "zebra = 1", &[]),
    ("c.yaml", "task_queue_backend:\n  backend_typ: memory", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\npoolsize = 4", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\nsynchronous = \"full\"", &[]),
    ("c.toml", "cache = \"memory:\"", &[]),
    ("c.toml", "datasets = \"memory:\"", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\nretry = 3", &[]),
    ("c.toml", "retry = 3", &[]),
    ("c.toml", "[task_queue]\nurl = \"memory:\"\n[task_queue_backend]\nurl = \"memory:\"", &[]),
    ("c.toml", "[records]\ntype = \"memory\"\nbackend_type = \"memory\"", &[]),
    ("c.toml", "[records]\ntype = \"fs\"\n[records.options]\nbase_dir = \"x\"\n[records.config]\nbase_dir = \"y\"", &[]),
    // Values.
    ("c.toml", "records = 5", &[]),
    ("c.toml", "records = [\"memory:\"]", &[]),
    ("c.toml", "[records]", &[]),
    ("c.toml", "[records]\npool_size = 4", &[]),
    ("c.toml", "[records]\ntype = 5", &[]),
    ("c.toml", "[records]\ntype = \"\"", &[]),
    ("c.toml", "[records]\nurl = \"\"", &[]),
    ("c.toml", "[records]\nurl = 5", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\npool_size = 0", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\npool_size = -1", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\npool_size = \"many\"", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\ntimeout = \"soon\"", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\ntimeout = 0", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\ntimeout = \"2h\"", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\nauto_create = \"maybe\"", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\nversioning = 0", &[]),
    ("c.toml", "[task_queue]\nurl = \"memory:\"\nversioning = 0", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\noptions = 5", &[]),
    // Policies.
    ("c.toml", "blobs = \"memory:\"\n[task_queue]\nurl = \"memory:\"\n[task_queue.retry]\nattemps = 3", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.retry]\nattempts = \"three\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.retry]\nattempts = 0", &[]),
    ("c.yaml", "blobs:\n  url: \"memory:\"\n  retry: {first: soon}", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\nbreaker = { error_rate = 50 }", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\nbreaker = { zebra = 1 }", &[]),
    ("c.json", "{\"blobs\": {\"url\": \"memory:\", \"rate_limit\": {\"per_second\": -5}}}", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\nrate_limit = 100", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\nconcurrency = { max = 0 }", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\ntimeouts = { call = \"3h\" }", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\ndeadline = \"never\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"", &[("STORAGE_BLOBS_RETRY__ATTEMPTS", "1000")]),
    // Drivers.
    ("c.toml", "records = \"sqllite:///x.db\"", &[]),
    ("c.toml", "records = \"floppy://a\"", &[]),
    ("c.toml", "records = \"just/a/path\"", &[]),
    ("c.toml", "[records]\ntype = \"memroy\"", &[]),
    ("c.toml", "[records]\ntype = \"postgres\"", &[]),
    ("c.toml", "task_queue = \"postgres://joe:hunter2@db/app\"", &[]),
    ("c.toml", "blobs = \"s3://bucket/prefix\"", &[]),
    ("c.toml", "[records]\ntype = \"memory\"\nurl = \"sqlite:///x.db\"", &[]),
    ("c.toml", "blobs = \"sqlite:///x.db\"", &[]),
    ("c.toml", "[records]\nurl = \"sqlite:///x.db\"\n[records.options]\nsynchronos = \"full\"", &[]),
    ("c.toml", "records = \"sqlite:///x.db?synchronous=sometimes\"", &[]),
    ("c.toml", "records = \"sqlite:///x.db?bogus=1\"", &[]),
    ("c.toml", "[records]\nurl = \"sqlite:///x.db?synchronous=full\"\n[records.options]\nsynchronous = \"normal\"", &[]),
    ("c.toml", "[records]\nurl = \"memory:\"\nbackup = true", &[]),
    // Variables.
    ("c.toml", "[records]\nurl_env = \"STORAGE_FACADE_TEST_NOT_SET\"", &[]),
    ("c.toml", "[records]\nurl_env = 5", &[]),
    ("c.toml", "[records]\ntype = \"fs\"\n[records.options]\nbase_dir_env = \"STORAGE_FACADE_TEST_NOT_SET\"", &[]),
    ("c.toml", "[records]\ntype = \"fs\"\n[records.options]\nbase_dir = \"x\"\nbase_dir_env = \"PATH\"", &[]),
    ("c.toml", "", &[("STORAGE_TSK_QUEUE_URL", "memory:")]),
    ("c.toml", "", &[("STORAGE_TASK_QUEUE_ULR", "memory:")]),
    ("c.toml", "", &[("STORAGE_TASK_QUEUE_TYPE", "memroy")]),
    ("c.toml", "", &[("STORAGE_TASK_QUEUE_TYPE", "memory"), ("STORAGE_TASK_QUEUE_URL", "sqlite:///x.db")]),
    ("c.toml", "", &[("STORAGE_RECORDS_POOL_SIZE", "4")]),
    ("c.toml", "", &[("STORAGE_RECORDS_URL", "memory:"), ("STORAGE_RECORDS_OPTIONS__BOGUS", "1")]),
    ("c.toml", "", &[("STORAGE_", "x")]),
    // The landing-zone layout.
    ("c.yaml", "platform: 5", &[]),
    ("c.yaml", "platform: {}", &[]),
    ("c.yaml", "platform:\n  bronze:\n    storage_backend: ftp", &[]),
    ("c.yaml", "platform:\n  bronze:\n    s3_buckt: x", &[]),
    ("c.yaml", "platform:\n  bronze:\n    s3_prefix: x", &[]),
    ("c.yaml", "platform:\n  bronze:\n    storage_backend: local", &[]),
    ("c.yaml", "platform:\n  bronze:\n    s3_bucket: b\n  s3_connection:\n    secret_key_env: STORAGE_FACADE_TEST_NOT_SET", &[]),
    ("c.yaml", "platform:\n  bronze:\n    s3_bucket: b\nrecords: \"memory:\"", &[]),
    // Metrics.
    ("c.toml", "metrics = 5", &[]),
    ("c.toml", "metric = true", &[]),
    ("c.toml", "[metrics]\nlisen = \"127.0.0.1:9000\"", &[]),
    ("c.toml", "[metrics]\nlisten = \"localhost\"", &[]),
    ("c.toml", "[metrics]\nlisten = 9000", &[]),
    ("c.toml", "[metrics]\nenabled = \"maybe\"", &[]),
    ("c.toml", "[metrics]\nlisten_env = \"STORAGE_FACADE_TEST_NOT_SET\"", &[]),
    ("c.toml", "metrics = true", &[("STORAGE_METRICS__LISTEN", "here")]),
    ("c.toml", "", &[("STORAGE_METRICS_LISEN", "127.0.0.1:9000")]),
];

/// Transforms of blobs.
#[cfg(all(feature = "cache", feature = "encryption", feature = "zstd"))]
const TRANSFORMS: &[Case] = &[
    ("c.toml", "[records]\nurl = \"memory:\"\nencryption = {}", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\nencrypton = {}", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\nread_only = \"maybe\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\nprefix = \"a/../b\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\ncompression = 3", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.compression]\nlevle = 3", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.compression]\nlevel = \"best\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.compression]\nlevel = 23", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nkey = \"hunter2\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nkey_evn = \"PATH\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nkey_env = \"STORAGE_FACADE_TEST_NOT_SET\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nkey_file = \"not/there\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nkey = \"hunter2\"\nkey_file = \"x\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nkey = \"hunter2\"\nalgorithm = \"rot13\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nkey = 5", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nprevious = [{ kye = \"hunter2\" }]", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nprevious = [\"hunter2\"]", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.mirror]\nrequire = \"all\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.mirror]\nto = 5", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.mirror]\nto = \"sqlite:///x.db\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.mirror]\nto = { tpye = \"memory\" }", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.mirror]\nto = \"memroy:\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.mirror]\nto = { url = \"memory:\", encryption = {} }", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.mirror]\nto = \"memory:\"\nrequire = \"most\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.mirror]\nto = \"memory:\"\nrequire = 3", &[]),
    ("c.toml", "[blobs]\nurl = \"memory://a\"\n[blobs.mirror]\nto = \"memory://a\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\nmax_age = \"soon\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\nmax_bytes = -1", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"", &[("STORAGE_BLOBS_ENCRYPTION__KEYY", "hunter2")]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\ncache = true", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\nmax_bytes = 0", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\nmax_blob_bytes = 0", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndri = \"x\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndir = 5", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndir = \"\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndir = \"Cargo.toml\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndir_max_mib = 10", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndir = \"x\"\ndir_max_mib = 0", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndir = \"x\"\ndir_max_mib = \"1 GiB\"", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndir = \"x\"\ndir_max_mib = 1073741825", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndir = \"x\"\ndir_max_mib = 10\ndir_max_blob_mib = 11", &[]),
    ("c.toml", "[blobs]\nurl = \"memory:\"\n[blobs.cache]\ndir = \"x\"", &[("STORAGE_BLOBS_CACHE__DIR_MAX_MIB", "0")]),
];

#[tokio::test]
async fn every_bad_configuration_gets_a_message_that_helps() {
    assert!(CASES.len() >= 40);
    insta::assert_snapshot!(messages(CASES).await);
}

#[cfg(all(feature = "cache", feature = "encryption", feature = "zstd"))]
#[tokio::test]
async fn every_bad_transform_gets_a_message_that_helps() {
    insta::assert_snapshot!(messages(TRANSFORMS).await);
}

/// The embedded drivers, whatever is compiled in besides: messages list what there is.
fn embedded() -> Registry {
    let mut registry = Registry::empty();
    registry.register(Arc::new(storage_sqlite::SqliteDriver));
    registry.register(Arc::new(storage_fs::FsDriver));
    registry.register(Arc::new(storage_memory::MemoryDriver));
    registry
}

async fn messages(cases: &[Case]) -> String {
    let mut messages = String::new();
    for (index, (name, content, variables)) in cases.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let env = EnvLayer::of("STORAGE_", variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let outcome = Storage::builder().file(&path).env(env).registry(embedded()).open().await;
        let error = match outcome {
            Err(error) => error,
            Ok(_) => panic!("case {index} was accepted: {content:?} {variables:?}"),
        };
        assert_eq!(error.kind(), storage_core::ErrorKind::Config, "case {index}: {error}");
        let message = error.to_string().replace(&folder.path().display().to_string(), "DIR");
        assert!(!message.contains("hunter2"), "a secret in: {message}");
        writeln!(messages, "{index:2} {content:?} {variables:?}\n   → {message}").unwrap();
    }
    messages
}
