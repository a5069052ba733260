//! Blobs: bodies that are sent again, reads and listings that go on where they broke.

use std::io::{Seek as _, SeekFrom, Write as _};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{
    BlobBackend as _, BlobBody, BlobContent, BlobPath, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result,
};
use storage_layers::policy::{RateLimit, Retry};
use storage_memory::MemoryBlobs;
use tokio::time::{Instant, sleep};

use crate::faulty::Fault;
use crate::world::{SECOND, World, blobs, retrying};

const TEXT: &str = "the quick brown fox jumps over the lazy dog";

fn path(path: &str) -> BlobPath {
    path.parse().unwrap()
}

async fn with_blob() -> World<MemoryBlobs> {
    let world = blobs(retrying());
    world.guarded.put(&path("a"), TEXT.into(), &PutOptions::default()).await.unwrap();
    world
}

async fn read(world: &World<MemoryBlobs>, options: &GetOptions) -> Result<Bytes> {
    world.guarded.get(&path("a"), options).await?.bytes().await
}

#[tokio::test(start_paused = true)]
async fn bytes_are_put_again() {
    let world = blobs(retrying());
    world.faulty.script([Fault::After(ErrorKind::Unavailable), Fault::Hang]);
    world.guarded.put(&path("a"), TEXT.into(), &PutOptions::default()).await.unwrap();
    assert_eq!(world.faulty.calls(), ["put"; 3]);
    assert_eq!(read(&world, &GetOptions::default()).await.unwrap(), TEXT);
}

#[tokio::test(start_paused = true)]
async fn a_conditional_put_is_not_repeated_for_it_would_meet_itself() {
    let world = with_blob().await;
    let etag = world.guarded.head(&path("a")).await.unwrap().etag.unwrap();
    for mode in [PutMode::Create, PutMode::Update(etag)] {
        world.faulty.script([Fault::Before(ErrorKind::Timeout)]);
        let put = world.guarded.put(&path("b"), TEXT.into(), &PutOptions::default().mode(mode)).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(world.faulty.calls(), ["put"]);
    }
}

#[tokio::test]
async fn a_file_is_put_again_from_where_it_was() {
    let world = blobs(retrying());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(format!("skipped{TEXT}").as_bytes()).unwrap();
    file.seek(SeekFrom::Start(7)).unwrap();
    world.faulty.script([Fault::After(ErrorKind::Unavailable), Fault::After(ErrorKind::Unavailable)]);
    world.guarded.put(&path("a"), BlobBody::File(file), &PutOptions::default()).await.unwrap();
    assert_eq!(world.faulty.calls(), ["put"; 3]);
    assert_eq!(read(&world, &GetOptions::default()).await.unwrap(), TEXT);
}

fn stream(pieces: &'static [&'static str]) -> BlobBody {
    let pieces = pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
    BlobBody::Stream { stream: futures::stream::iter(pieces).boxed(), size: None }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_put_again_until_it_is_read() {
    let world = blobs(retrying());
    world.faulty.script([Fault::Refused, Fault::Before(ErrorKind::Unavailable)]);
    world.guarded.put(&path("a"), stream(&["one", "two"]), &PutOptions::default()).await.unwrap();
    assert_eq!(world.faulty.calls(), ["put"; 3]);
    assert_eq!(read(&world, &GetOptions::default()).await.unwrap(), "onetwo");

    world.faulty.script([Fault::After(ErrorKind::Unavailable)]);
    let put = world.guarded.put(&path("a"), stream(&["three"]), &PutOptions::default()).await;
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(world.faulty.calls(), ["put"], "its bytes are gone");
}

/// A body may take hours, so long as it gets on; what the caller's stream takes is the caller's time.
#[tokio::test(start_paused = true)]
async fn a_slow_stream_is_no_timeout_and_a_stuck_service_is() {
    let world = blobs(retrying());
    let slow = futures::stream::iter(0..100).then(|_| async {
        sleep(25 * SECOND).await;
        Ok(Bytes::from_static(b"x"))
    });
    let body = BlobBody::Stream { stream: slow.boxed(), size: None };
    let began = Instant::now();
    world.guarded.put(&path("a"), body, &PutOptions::default()).await.unwrap();
    assert!(began.elapsed() >= 2500 * SECOND);

    world.faulty.script([Fault::HangAfter]);
    let began = Instant::now();
    let put = world.guarded.put(&path("a"), stream(&["x"]), &PutOptions::default()).await;
    assert_eq!((put.unwrap_err().kind(), began.elapsed()), (ErrorKind::Timeout, 10 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_read_goes_on_where_it_broke() {
    let world = with_blob().await;
    world.faulty.script([Fault::BreakAt(3), Fault::Before(ErrorKind::Unavailable), Fault::StallAt(2), Fault::BreakAt(0)]);
    assert_eq!(read(&world, &GetOptions::default()).await.unwrap(), TEXT);
    assert_eq!(world.faulty.calls(), ["get"; 5]);
    for pieces in 0..4 {
        world.faulty.script([Fault::BreakAt(pieces)]);
        let range = GetOptions::default().range(4..15);
        assert_eq!(read(&world, &range).await.unwrap(), TEXT[4..15]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_is_never_of_two_states() {
    let world = with_blob().await;
    world.faulty.script([Fault::BreakAt(3)]);
    let reading = world.guarded.get(&path("a"), &GetOptions::default()).await.unwrap();
    let BlobContent::Stream(mut stream) = reading.content else { panic!("a stream") };
    stream.next().await.unwrap().unwrap();
    world.faulty.inner.put(&path("a"), TEXT.to_uppercase().into(), &PutOptions::default()).await.unwrap();
    let rest = stream.try_collect::<Vec<_>>().await;
    assert_eq!(rest.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_gets_nowhere_ends() {
    let world = with_blob().await;
    world.faulty.script([Fault::BreakAt(0); 100]);
    assert_eq!(read(&world, &GetOptions::default()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(world.faulty.calls().len(), Retry::default().attempts as usize);
    world.faulty.script([Fault::StallAt(2); 5]);
    let began = Instant::now();
    assert!(read(&world, &GetOptions::default()).await.is_ok(), "two pieces at a time are progress");
    assert!(began.elapsed() >= 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_listing_goes_on_where_it_broke() {
    let world = blobs(retrying());
    for name in ["a", "a!", "a/x", "a/y", "b", "c/x", "d"] {
        world.faulty.inner.put(&path(name), "".into(), &PutOptions::default()).await.unwrap();
    }
    for options in [ListOptions::default(), ListOptions::default().one_level()] {
        let real: Vec<_> = world.faulty.inner.list(&options).try_collect().await.unwrap();
        for pieces in 0..=real.len() {
            world.faulty.script([Fault::BreakAt(pieces), Fault::Before(ErrorKind::Throttled), Fault::StallAt(1)]);
            let listed: Vec<_> = world.guarded.list(&options).try_collect().await.unwrap();
            assert_eq!(listed, real, "{pieces} {options:?}");
        }
    }
}

/// A try more is one turn more, not two.
#[tokio::test(start_paused = true)]
async fn going_on_with_a_listing_counts_once_for_the_rate() {
    let rate = RateLimit { burst: Some(1), ..RateLimit::per_second(1) };
    let world = blobs(retrying().rate(rate));
    for name in ["a", "b"] {
        world.faulty.inner.put(&path(name), "".into(), &PutOptions::default()).await.unwrap();
    }
    world.faulty.script([Fault::BreakAt(1)]);
    let began = Instant::now();
    let listed: Vec<_> = world.guarded.list(&ListOptions::default()).try_collect().await.unwrap();
    assert_eq!((listed.len(), world.faulty.calls().len()), (2, 2));
    assert!(began.elapsed() >= SECOND && began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
}
