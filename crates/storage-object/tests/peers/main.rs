//! Other programs read what we wrote, and the other way round: boto3 and azure-storage-blob, object_store, Polars,
//! delta-rs, and plain `curl`.
//!
//! Every test runs on each of the servers. The peers get at the data by nothing but [`BlobStore::storage_options`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod contents;
mod curl;
mod engines;
mod house;
mod python;

/// `all`: on every server. `signed`: not on moto, which takes whatever signature comes.
macro_rules! test_peers {
    (all: $($all:ident::$on_all:ident),*; signed: $($signed:ident::$on_signed:ident),*;) => {
        test_peers!(@server s3_seaweedfs, SeaweedFs, $($all $on_all)* $($signed $on_signed)*);
        test_peers!(@server s3_moto, Moto, $($all $on_all)*);
        test_peers!(@server azure_azurite, Azurite, $($all $on_all)* $($signed $on_signed)*);
    };
    (@server $name:ident, $server:ident, $($module:ident $test:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    let Some(house) = super::house::House::open(super::common::Server::$server).await else { return };
                    super::$module::$test(&house).await;
                }
            )*
        }
    };
}

test_peers!(
    all:
    contents::peers_read_what_we_wrote,
    contents::we_read_what_peers_wrote,
    contents::names_arrive_as_they_are,
    contents::object_store_reads_what_we_wrote,
    engines::polars_reads_and_writes,
    engines::delta_rs_appends,
    access::what_a_peer_overwrote_is_not_overwritten,
    access::signed_urls_work_in_curl,
    access::a_missing_container_is_told;
    signed:
    access::signed_urls_are_good_for_one_blob_and_a_time,
    access::wrong_keys_are_told_without_them;
);
