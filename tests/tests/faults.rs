//! S3 over a network that breaks: uploads end whole or not at all, downloads go on pinned to one state, nothing is repeated that is unsafe to repeat.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{BlobBody, BlobPath, BlobStore, Driver as _, DriverConfig, ErrorKind, GetOptions, PutMode, PutOptions};
use storage_layers::guarded::guard;
use storage_layers::policy::{Breaker, BreakerState, Policy, Retry, Timeouts};
use storage_object::S3Driver;
use storage_tests::proxy::{Fault, FaultProxy, Rule, Seen};
use storage_tests::servers::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MIB: usize = 1 << 20;
/// How the range of a file's second part begins: they come side by side, in any order.
const SECOND_PART: &str = "bytes=8388608-";
/// Far more than any of the waits here, far less than a hang.
const SOON: Duration = Duration::from_secs(10);

/// A server, the proxy before it, and a place of the test's own in the bucket.
struct World {
    server: Server,
    address: String,
    place: String,
    proxy: FaultProxy,
    /// Goes past the proxy.
    direct: BlobStore,
}

impl World {
    async fn new(server: Server) -> Option<Self> {
        let address = server.or_skip()?;
        let upstream = address.trim_start_matches("http://").to_owned();
        let (proxy, place) = (FaultProxy::start(&upstream).await, format!("faults/{}", uuid::Uuid::new_v4()));
        let direct = open(server, &address, &place, &Policy::default(), None).await;
        Some(Self { server, address, place, proxy, direct })
    }

    /// Through the proxy, with nothing between that repeats or gives up.
    async fn bare(&self) -> BlobStore {
        self.guarded(&Policy::default()).await
    }

    async fn guarded(&self, policy: &Policy) -> BlobStore {
        let store = open(self.server, &self.proxy.url(), &self.place, policy, None).await;
        drop(self.proxy.seen());
        store
    }

    /// The requests of a method since the last look.
    fn seen(&self, method: &str) -> Vec<Seen> {
        self.proxy.seen().into_iter().filter(|seen| seen.method == method).collect()
    }

    /// Uploads in parts that the server still holds, as it lists them.
    async fn unfinished(&self) -> usize {
        let host = self.address.trim_start_matches("http://");
        let mut server = tokio::net::TcpStream::connect(host).await.unwrap();
        let request = format!("GET /faults?uploads HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        server.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        server.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("ListMultipartUploadsResult"), "{answer}");
        let own = self.place.strip_prefix("faults/").unwrap();
        answer.matches(&format!("<Key>{own}")).count()
    }
}

async fn open(server: Server, endpoint: &str, place: &str, policy: &Policy, silence: Option<Duration>) -> BlobStore {
    let url = format!("s3://{place}?{}&part_mib=5", server.options(endpoint));
    let config = DriverConfig { auto_create: true, timeout: silence, ..DriverConfig::from_url(&url) };
    BlobStore::new(guard(S3Driver.open(&config).await.unwrap(), policy, None).blobs.unwrap())
}

fn retries() -> Policy {
    Policy::builder().retry(Retry { first: Duration::from_millis(20), ..Retry::default() }).build().unwrap()
}

fn path(text: &str) -> BlobPath {
    BlobPath::new(text).unwrap()
}

/// Bytes in which every position can be told from its neighbours, and each seed's from the other's everywhere.
fn content(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| u8::try_from((i * 31 + i / 251 + usize::from(seed)) % 256).unwrap()).collect()
}

fn stream(bytes: &Bytes) -> BlobBody {
    let pieces: Vec<_> = bytes.chunks(MIB).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    BlobBody::Stream { stream: futures::stream::iter(pieces).boxed(), size: None }
}

/// First and last offset of a request's `Range`.
fn range(seen: &Seen) -> (usize, usize) {
    let range = seen.range.as_deref().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    (first.parse().unwrap(), last.parse().unwrap())
}

async fn a_cut_upload_leaves_what_was_there(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (blob, old, new) = (path("b"), content(1000, 1), content(4 * MIB, 2));
    world.direct.put(&blob, old.clone()).await.unwrap();
    let bare = world.bare().await;
    world.proxy.harm(Rule::new(Fault::CutRequest(MIB)).method("PUT"));
    let error = bare.put(&blob, new.clone()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.is_retryable(), "{error}");
    assert_eq!(world.seen("PUT").len(), 1, "a backend repeats nothing by itself");
    assert!(world.direct.get(&blob).await.unwrap() == old, "the old content, whole");

    let guarded = world.guarded(&retries()).await;
    world.proxy.harm(Rule::new(Fault::CutRequest(MIB)).method("PUT").times(2));
    guarded.put(&blob, new.clone()).await.unwrap();
    assert_eq!(world.seen("PUT").iter().map(|seen| seen.harmed).collect::<Vec<_>>(), [true, true, false]);
    assert!(world.direct.get(&blob).await.unwrap() == new, "the new content, whole");
}

async fn a_cut_part_is_sent_again(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (blob, new) = (path("b"), content(16 * MIB, 2));
    let bare = world.bare().await;
    world.proxy.harm(Rule::new(Fault::CutRequest(MIB)).method("PUT").target("partNumber=2&"));
    bare.put(&blob, stream(&new)).await.unwrap();
    let parts = world.seen("PUT");
    let of = |number: &str| parts.iter().filter(|seen| seen.target.contains(number)).count();
    assert_eq!(["partNumber=1&", "partNumber=2&", "partNumber=3&", "partNumber=4&"].map(of), [1, 2, 1, 1]);
    assert!(world.direct.get(&blob).await.unwrap() == new);
}

async fn an_upload_whose_part_never_comes_through_leaves_nothing(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (blob, old) = (path("b"), content(1000, 1));
    world.direct.put(&blob, old.clone()).await.unwrap();
    let bare = world.bare().await;
    world.proxy.harm(Rule::new(Fault::CutRequest(MIB)).method("PUT").target("partNumber=2&").times(100));
    let error = bare.put(&blob, stream(&content(16 * MIB, 2))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    world.proxy.until_seen(|seen| seen.method == "DELETE" && seen.target.contains("uploadId=")).await;
    world.proxy.until_idle().await;
    let seen = world.proxy.seen();
    let tries = seen.iter().filter(|seen| seen.harmed).count();
    assert!((2..=10).contains(&tries), "a part is tried again, not for ever: {tries}");
    assert!(seen.iter().all(|seen| seen.method != "POST" || seen.target.contains("uploads")), "never completed: {seen:?}");
    assert!(world.direct.get(&blob).await.unwrap() == old, "the old content, whole");
    // SeaweedFS wants a signature for that.
    if world.server == Server::Moto {
        assert_eq!(world.unfinished().await, 0);
    }
}

async fn a_completion_whose_answer_is_lost_is_not_repeated(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (blob, new) = (path("b"), content(11 * MIB, 2));
    world.direct.put(&blob, "old").await.unwrap();
    let guarded = world.guarded(&retries()).await;
    world.proxy.harm(Rule::new(Fault::LoseAnswer).method("POST").target("uploadId="));
    let error = guarded.put(&blob, stream(&new)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let completions = world.seen("POST").iter().filter(|seen| seen.target.contains("uploadId=")).count();
    assert_eq!(completions, 1, "the stream's bytes are gone, and whether it was done is not known");
    assert!(world.direct.get(&blob).await.unwrap() == new, "the server had done it, wholly");
}

async fn a_cut_download_goes_on_where_it_broke(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (blob, bytes) = (path("b"), content(4 * MIB, 1));
    world.direct.put(&blob, bytes.clone()).await.unwrap();
    let bare = world.bare().await;
    world.proxy.harm(Rule::new(Fault::CutResponse(MIB)).method("GET"));
    let error = bare.get(&blob).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.is_retryable(), "{error}");

    let guarded = world.guarded(&retries()).await;
    world.proxy.harm(Rule::new(Fault::CutResponse(MIB)).method("GET").times(2));
    assert!(guarded.get(&blob).await.unwrap() == bytes);
    let gets = world.seen("GET");
    assert_eq!((gets.len(), &gets[0].range), (3, &None));
    let (second, third) = (range(&gets[1]), range(&gets[2]));
    assert!((1..=MIB).contains(&second.0) && (second.0 + 1..=2 * MIB).contains(&third.0), "goes on: {second:?} {third:?}");
    assert_eq!((second.1, third.1), (bytes.len() - 1, bytes.len() - 1));
}

async fn a_blob_that_changed_is_an_error_not_a_mixture(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (blob, old) = (path("b"), content(4 * MIB, 1));
    world.direct.put(&blob, old.clone()).await.unwrap();
    let guarded = world.guarded(&retries()).await;
    world.proxy.harm(Rule::new(Fault::CutResponse(MIB)).method("GET"));
    let mut read = guarded.get_with(&blob, &GetOptions::default()).await.unwrap().into_stream();
    world.direct.put(&blob, content(4 * MIB, 2)).await.unwrap();
    let mut got = Vec::new();
    let error = loop {
        match read.try_next().await {
            Ok(piece) => got.extend_from_slice(&piece.unwrap_or_else(|| panic!("ended after {} bytes", got.len()))),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(!got.is_empty() && got.len() <= MIB && got == old[..got.len()], "nothing of the new state");
    assert_eq!(world.seen("GET").len(), 2);
}

async fn a_broken_download_of_a_file_goes_on(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (blob, folder) = (path("b"), tempfile::tempdir().unwrap());
    let (local, old, new) = (folder.path().join("local"), content(20 * MIB, 1), content(20 * MIB, 2));
    world.direct.put(&blob, old.clone()).await.unwrap();
    let bare = world.bare().await;
    let cut_the_second = || world.proxy.harm(Rule::new(Fault::CutResponse(MIB)).range(SECOND_PART));
    cut_the_second();
    let error = bare.download_file(&blob, &local).await.unwrap_err();
    assert!(error.is_retryable() && !local.exists(), "{error}");
    world.proxy.until_idle().await;
    drop(world.proxy.seen());
    world.proxy.heal();
    bare.download_file(&blob, &local).await.unwrap();
    assert!(std::fs::read(&local).unwrap() == old);
    let asked = world.seen("GET").iter().map(range).map(|(first, last)| last - first + 1).sum::<usize>();
    assert_eq!(asked, 8 * MIB, "the parts beside the one that was cut were there");

    // Broken off again; what is there is of a state that is gone when it goes on.
    std::fs::remove_file(&local).unwrap();
    cut_the_second();
    bare.download_file(&blob, &local).await.unwrap_err();
    world.direct.put(&blob, new.clone()).await.unwrap();
    world.proxy.until_idle().await;
    drop(world.proxy.seen());
    world.proxy.heal();
    bare.download_file(&blob, &local).await.unwrap();
    assert!(std::fs::read(&local).unwrap() == new, "nothing of the old state");
    let asked = world.seen("GET").iter().map(range).map(|(first, last)| last - first + 1).sum::<usize>();
    assert_eq!(asked, 20 * MIB);
}

async fn a_file_is_not_put_together_of_two_states(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (blob, folder) = (path("b"), tempfile::tempdir().unwrap());
    let local = folder.path().join("local");
    world.direct.put(&blob, content(20 * MIB, 1)).await.unwrap();
    let patient = Policy::builder().retry(Retry::attempts(100)).build().unwrap();
    let guarded = world.guarded(&patient).await;
    // The second part has to wait until it is another's.
    let wait = Fault::Answer { status: 503, retry_after: Some(1) };
    world.proxy.harm(Rule::new(wait).range(SECOND_PART).times(100));
    let change = async {
        world.proxy.until_seen(|seen| seen.harmed).await;
        world.direct.put(&blob, content(20 * MIB, 2)).await.unwrap();
        world.proxy.heal();
    };
    let (downloaded, ()) = tokio::join!(guarded.download_file(&blob, &local), change);
    let error = downloaded.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of either state");
}

async fn what_stalls_times_out(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (blob, bytes) = (path("b"), content(4 * MIB, 1));
    world.direct.put(&blob, bytes.clone()).await.unwrap();
    let timeouts = Timeouts::calls(Duration::from_millis(1500));
    let impatient = Policy::builder().timeouts(timeouts).build().unwrap();
    let repeating = Policy::builder().timeouts(timeouts).retry(Retry::default()).build().unwrap();
    let by_itself = open(server, &world.proxy.url(), &world.place, &Policy::default(), Some(Duration::from_millis(1500))).await;
    let (impatient, repeating) = (world.guarded(&impatient).await, world.guarded(&repeating).await);
    for store in [&by_itself, &impatient] {
        for fault in [Fault::StallResponse(MIB), Fault::StallRequest] {
            world.proxy.harm(Rule::new(fault.clone()).method("GET"));
            let error = tokio::time::timeout(SOON, store.get(&blob)).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{fault:?}: {error}");
        }
        world.proxy.harm(Rule::new(Fault::StallRequest).method("PUT"));
        let error = tokio::time::timeout(SOON, store.put(&blob, "new")).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    drop(world.proxy.seen());
    world.proxy.harm(Rule::new(Fault::StallResponse(MIB)).method("GET"));
    assert!(tokio::time::timeout(SOON, repeating.get(&blob)).await.unwrap().unwrap() == bytes);
    let gets = world.seen("GET");
    assert!(gets.len() == 2 && (1..=MIB).contains(&range(&gets[1]).0), "{gets:?}");
}

async fn a_service_that_asks_for_a_wait_gets_it(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let blob = path("b");
    world.direct.put(&blob, "old").await.unwrap();
    let (bare, guarded) = (world.bare().await, world.guarded(&retries()).await);
    for (status, kind) in [(503, ErrorKind::Unavailable), (429, ErrorKind::Throttled)] {
        let rule = |method| Rule::new(Fault::Answer { status, retry_after: Some(1) }).method(method);
        world.proxy.harm(rule("GET"));
        let error = bare.get(&blob).await.unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (kind, Some(Duration::from_secs(1))), "{error}");
        drop(world.proxy.seen());

        world.proxy.harm(rule("GET"));
        world.proxy.harm(rule("PUT"));
        let began = Instant::now();
        guarded.get(&blob).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        let (began, new) = (Instant::now(), content(1000, u8::try_from(status % 256).unwrap()));
        guarded.put(&blob, new.clone()).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        let harmed: Vec<_> = world.proxy.seen().into_iter().map(|seen| (seen.method, seen.harmed)).collect();
        let expected = [("GET", true), ("GET", false), ("PUT", true), ("PUT", false)];
        assert_eq!(harmed, expected.map(|(method, harmed)| (method.to_owned(), harmed)));
        assert!(world.direct.get(&blob).await.unwrap() == new);
    }
}

async fn what_is_unsafe_to_repeat_is_not_repeated(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let (created, removed) = (path("created"), path("removed"));
    world.direct.put(&removed, "x").await.unwrap();
    let guarded = world.guarded(&retries()).await;
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    world.proxy.harm(Rule::new(Fault::LoseAnswer).method("PUT"));
    let error = guarded.put_with(&created, "new", &create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "not that somebody else had made it: {error}");
    assert_eq!(world.seen("PUT").len(), 1);
    assert_eq!(world.direct.get(&created).await.unwrap(), "new", "it was done");

    world.proxy.harm(Rule::new(Fault::LoseAnswer).method("DELETE"));
    let error = guarded.delete(&removed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "not that there was none: {error}");
    assert_eq!(world.seen("DELETE").len(), 1);
    assert!(!world.direct.exists(&removed).await.unwrap(), "it was done");

    world.proxy.harm(Rule::new(Fault::LoseAnswer).method("GET"));
    assert_eq!(guarded.get(&created).await.unwrap(), "new");
    assert_eq!(world.seen("GET").len(), 2, "a read is");
    // Refused before anything was done, it is safe after all.
    world.proxy.harm(Rule::new(Fault::Answer { status: 429, retry_after: None }).method("PUT"));
    guarded.put_with(&removed, "again", &create).await.unwrap();
    assert_eq!(world.seen("PUT").len(), 2);
}

async fn the_breaker_opens_and_closes(server: Server) {
    let Some(world) = World::new(server).await else { return };
    let blob = path("b");
    world.direct.put(&blob, "x").await.unwrap();
    let breaker = Breaker { min_calls: 4, open: Duration::from_secs(3), probes: 1, ..Breaker::default() };
    let policy = Policy::builder().breaker(breaker).build().unwrap();
    let guarded = world.guarded(&policy).await;
    world.proxy.set_down(true);
    for _ in 0..4 {
        assert_eq!(policy.breaker_state(), Some(BreakerState::Closed));
        assert_eq!(guarded.get(&blob).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(policy.breaker_state(), Some(BreakerState::Open));
    // The service is back, which nobody knows yet: nothing is sent.
    world.proxy.set_down(false);
    let error = guarded.get(&blob).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("breaker"), "{error}");
    assert_eq!(world.proxy.seen(), []);

    // A probe that fails opens it again.
    world.proxy.set_down(true);
    tokio::time::sleep(error.retry_after().unwrap()).await;
    let probe = guarded.get(&blob).await.unwrap_err();
    assert!(!probe.message().contains("breaker"), "{probe}");
    assert_eq!(policy.breaker_state(), Some(BreakerState::Open));

    world.proxy.set_down(false);
    let error = guarded.get(&blob).await.unwrap_err();
    tokio::time::sleep(error.retry_after().unwrap()).await;
    assert_eq!(guarded.get(&blob).await.unwrap(), "x");
    assert_eq!(policy.breaker_state(), Some(BreakerState::Closed));
    assert_eq!(world.seen("GET").len(), 1);
}

macro_rules! against {
    ($module:ident, $server:expr, $($case:ident)*) => {
        mod $module {
            use super::Server;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($server).await;
            })*
        }
    };
}

macro_rules! against_all {
    ($($case:ident)*) => {
        against!(moto, Server::Moto, $($case)*);
        against!(seaweedfs, Server::SeaweedFs, $($case)*);
    };
}

against_all! {
    a_cut_upload_leaves_what_was_there
    a_cut_part_is_sent_again
    an_upload_whose_part_never_comes_through_leaves_nothing
    a_completion_whose_answer_is_lost_is_not_repeated
    a_cut_download_goes_on_where_it_broke
    a_blob_that_changed_is_an_error_not_a_mixture
    a_broken_download_of_a_file_goes_on
    a_file_is_not_put_together_of_two_states
    what_stalls_times_out
    a_service_that_asks_for_a_wait_gets_it
    what_is_unsafe_to_repeat_is_not_repeated
    the_breaker_opens_and_closes
}
