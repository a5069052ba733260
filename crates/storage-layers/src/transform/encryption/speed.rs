//! How fast encryption is beside the bare cipher, in a processor's time: the median of rounds in which all take turns.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use storage_core::{BlobPath, ByteStream, Result};

use super::chunks::{Cipher, Opening, Sealing};
use super::header::Header;
use super::layout::{self, CHUNK, HEADER, STORED_CHUNK};
use super::{Algorithm, Key};
use crate::transform::body::Incoming;

/// So many bytes are encrypted in one round: pieces of 1 MiB, as a file's.
const TOTAL: usize = 64 << 20;
const ROUNDS: usize = 20;

fn pieces() -> Vec<Bytes> {
    (0..TOTAL >> 20).map(|n| Bytes::from(vec![u8::try_from(n % 256).unwrap(); 1 << 20])).collect()
}

/// A stream that hands its pieces over, as one that reads a file or a socket does.
fn handed_over(pieces: &[Bytes]) -> ByteStream {
    let own: Vec<Bytes> = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
    futures::stream::iter(own).map(Ok).boxed()
}

/// A stream whose pieces somebody else holds too.
fn shared(pieces: &[Bytes]) -> ByteStream {
    futures::stream::iter(pieces.to_vec()).map(Ok).boxed()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// How long this thread has had a processor: what else the machine does costs no time. Where there is no telling, the time since `began`.
fn processor_time(began: Instant) -> Duration {
    // The kernel brings its account up to date when a thread steps aside.
    std::thread::yield_now();
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = account.and_then(|account| account.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| began.elapsed(), Duration::from_nanos)
}

fn timed(act: impl FnOnce()) -> Duration {
    let began = Instant::now();
    let start = processor_time(began);
    act();
    processor_time(began) - start
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

/// How long the bare cipher takes to encrypt and to decrypt the same bytes in place, in messages of 64 KiB: as fast as it goes.
fn bare(algorithm: Algorithm, bytes: &mut [u8]) -> (Duration, Duration) {
    let key = LessSafeKey::new(UnboundKey::new(algorithm.aead(), &[7; 32]).unwrap());
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    // Whole messages with room for their tags.
    let messages = || 0..TOTAL / CHUNK;
    let sealing = timed(|| {
        for n in messages() {
            let (message, tag) = bytes[n * STORED_CHUNK..(n + 1) * STORED_CHUNK].split_at_mut(CHUNK);
            let sealed = key.seal_in_place_separate_tag(nonce(), Aad::empty(), message).unwrap();
            tag.copy_from_slice(sealed.as_ref());
        }
    });
    let opening = timed(|| {
        for n in messages() {
            key.open_in_place(nonce(), Aad::empty(), &mut bytes[n * STORED_CHUNK..(n + 1) * STORED_CHUNK]).unwrap();
        }
    });
    (sealing, opening)
}

async fn drain(mut stream: ByteStream) -> Result<u64> {
    let mut bytes = 0;
    while let Some(piece) = stream.try_next().await? {
        bytes += std::hint::black_box(piece).len() as u64;
    }
    Ok(bytes)
}

/// `cargo test --release -p storage-layers --all-features soak_encryption_keeps_up -- --ignored --nocapture`
#[test]
#[ignore = "soak: measures speed, which only a release build has"]
#[allow(clippy::print_stdout, reason = "it reports what it measured")]
fn soak_encryption_keeps_up_with_the_bare_cipher() {
    let path = BlobPath::new("speed/a").unwrap();
    let key = Key::new([7; 32]);
    let plain = pieces();
    let mut in_place = vec![1; TOTAL / CHUNK * STORED_CHUNK];
    for algorithm in [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305] {
        let header = Header::new(&key, algorithm).unwrap();
        let cipher = || Cipher::new(&key, &header, &path).unwrap();
        let sealed: Vec<Bytes> = block_on(Sealing::new(shared(&plain), &header, cipher()).into_stream().try_collect()).unwrap();
        let sealed: Vec<Bytes> = sealed.concat().chunks(1 << 20).map(Bytes::copy_from_slice).collect();
        let seal = |stream: ByteStream| {
            let stored = block_on(drain(Sealing::new(stream, &header, cipher()).into_stream())).unwrap();
            assert_eq!(stored, layout::stored_size(TOTAL as u64));
        };
        let open = |stream: ByteStream| {
            let mut source = Incoming::new(stream);
            block_on(source.up_to(HEADER)).unwrap();
            let chunks = 0..layout::chunks(TOTAL as u64);
            let read = block_on(drain(Opening::new(source, cipher(), TOTAL as u64, chunks).into_stream())).unwrap();
            assert_eq!(read, TOTAL as u64);
        };
        let mut times = [const { Vec::new() }; 6];
        for _ in 0..ROUNDS {
            let own = [handed_over(&plain), handed_over(&sealed)];
            let [own_plain, own_sealed] = own;
            let (bare_sealing, bare_opening) = bare(algorithm, &mut in_place);
            times[0].push(bare_sealing);
            times[1].push(timed(|| seal(own_plain)));
            times[2].push(timed(|| seal(shared(&plain))));
            times[3].push(bare_opening);
            times[4].push(timed(|| open(own_sealed)));
            times[5].push(timed(|| open(shared(&sealed))));
        }
        let [bare_sealing, sealing, sealing_shared, bare_opening, opening, opening_shared] = times.map(median);
        for (what, bare, seconds) in [
            ("sealing", bare_sealing, sealing),
            ("sealing shared pieces", bare_sealing, sealing_shared),
            ("opening", bare_opening, opening),
            ("opening shared pieces", bare_opening, opening_shared),
        ] {
            let speed = |seconds: f64| (TOTAL >> 20) as f64 / seconds;
            println!("{algorithm:?}, {what}: {:.0} MiB/s, bare {:.0}: {:.2} ×", speed(seconds), speed(bare), bare / seconds);
        }
        let (seals, opens) = (bare_sealing / sealing, bare_opening / opening);
        assert!(seals >= 0.85 && opens >= 0.8, "{algorithm:?}: {seals:.2} and {opens:.2} of the bare cipher");
    }
}
