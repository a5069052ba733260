//! Engines open the same data, by nothing but [`BlobStore::engine_uri`] and [`BlobStore::storage_options`].

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use serde_json::{Value, json};
use storage_conformance::Place;
use storage_core::{BlobStore, Driver as _, Engine};
use storage_fs::FsDriver;

use crate::house::{House, path};
use crate::python::{ask, is_there_or_skip};

const MODULES: &str = "polars, deltalake, duckdb";
const CSV: &str = "n\n1\n2\n3\n";

/// What the calls, each at the address of a path, came to.
fn told(blobs: &BlobStore, engine: Engine, calls: &[(&str, &str)]) -> Vec<Value> {
    let options = blobs.storage_options(engine).unwrap();
    let options: BTreeMap<_, _> = options.iter().map(|(name, value)| (name, value.expose())).collect();
    let uri = |at: &str| blobs.engine_uri(&path(at), engine).unwrap();
    let calls: Vec<_> = calls.iter().map(|(call, at)| json!({ "do": call, "uri": uri(at) })).collect();
    ask(include_str!("engines.py"), &json!({ "options": options, "calls": calls }))
}

async fn polars(blobs: &BlobStore) {
    if !is_there_or_skip(MODULES) {
        return;
    }
    blobs.put(&path("a b/100%.csv"), CSV).await.unwrap();
    let calls = [("polars_csv", "a b/100%.csv"), ("polars_parquet", "a b/c.parquet")];
    assert_eq!(told(blobs, Engine::ObjectStore, &calls), [6, 6]);
    let written = blobs.get(&path("a b/c.parquet")).await.unwrap();
    assert!(written.starts_with(b"PAR1") && written.ends_with(b"PAR1"));
}

async fn delta(blobs: &BlobStore) {
    if !is_there_or_skip(MODULES) {
        return;
    }
    assert_eq!(told(blobs, Engine::ObjectStore, &[("delta", "tables/t")]), [json!([1, 12])]);
    let written: Vec<_> = blobs.list_all(Some(path("tables/t/_delta_log"))).try_collect().await.unwrap();
    let written: Vec<_> = written.iter().map(|meta| meta.path.as_str()).filter(|path| path.ends_with(".json")).collect();
    let commit = |n| format!("tables/t/_delta_log/{n:020}.json");
    assert_eq!(written, [commit(0), commit(1)]);
}

pub(crate) async fn polars_reads_and_writes(house: &House) {
    polars(&house.blobs).await;
}

pub(crate) async fn delta_rs_appends(house: &House) {
    delta(&house.blobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_read_and_write_files() {
    let place = Place::in_folder(|folder| format!("file://{}/store", folder.display())).unwrap();
    let blobs = BlobStore::new(FsDriver.open(&place.config).await.unwrap().blobs.unwrap());
    polars(&blobs).await;
    delta(&blobs).await;
    if is_there_or_skip(MODULES) {
        assert_eq!(told(&blobs, Engine::DuckDb, &[("duckdb_csv", "a b/100%.csv")]), [6]);
    }
}
