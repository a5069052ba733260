//! What encryption and compression cost beside the bare library.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use storage_core::{BlobBody, BlobPath, GetOptions, PutOptions};

use super::Stopwatch;
use super::sink::{PIECE, Sink, Store};
use crate::context::Context;
use crate::corpus::{Random, document};
use crate::measure::{Entry, Lane, interleave};
use crate::ours;
use crate::report::{Better, Goal, Metric, Table, Target};
use crate::subject::Role;

/// Bytes in a message of the baseline: the toolkit's chunk.
const MESSAGE: usize = 64 << 10;
/// zstd's level: the toolkit's own choice.
const LEVEL: i32 = 3;

/// What encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM.
    Aes,
    /// ChaCha20-Poly1305.
    ChaCha,
}

/// Measures encryption and compression, both ways.
pub(super) async fn run(context: &Context) -> Result<Vec<Table>> {
    let mib = if context.quick { 4 } else { 64 };
    let mut tables = Vec::new();
    for (title, cipher) in [("AES-256-GCM", Cipher::Aes), ("ChaCha20-Poly1305", Cipher::ChaCha)] {
        context.progress(&format!("layers: {title}"));
        let plain = random_bytes(mib);
        let pair = Pair { ours: Layered::new(|sink| ours::layers::encrypted(sink, cipher), plain.clone(), true)? };
        let mut bare = BareCipher::new(cipher, &plain)?;
        let entries = pair.measure(context, "storage-layers, encryption", "ring, in place", || bare.round()).await?;
        tables.push(table(&format!("{title}, {mib} MiB"), entries, true));
    }
    context.progress("layers: zstd");
    let plain = text(mib);
    let pair = Pair { ours: Layered::new(|sink| ours::layers::compressed(sink, LEVEL), plain.clone(), false)? };
    let entries = pair.measure(context, "storage-layers, compression", "zstd, frame by frame", || bare_zstd(&plain)).await?;
    tables.push(table(&format!("zstd level {LEVEL}, {mib} MiB of JSON lines"), entries, false));
    Ok(tables)
}

fn table(title: &str, entries: Vec<Entry>, has_target: bool) -> Table {
    let target = |metric| Target {
        metric,
        goal: Goal::Ratio { against: Role::Baseline, at_least: 0.8 },
        group: "layers: encryption on one core, the bare cipher".to_owned(),
    };
    Table {
        title: title.to_owned(),
        metrics: ["write", "read"]
            .map(|name| Metric { name: name.to_owned(), unit: "MiB/s".to_owned(), better: Better::Higher })
            .to_vec(),
        entries,
        targets: if has_target { vec![target(0), target(1)] } else { Vec::new() },
    }
}

/// Ours, beside a bare library.
struct Pair {
    ours: Layered,
}

impl Pair {
    async fn measure(
        &self,
        context: &Context,
        ours: &str,
        bare: &str,
        mut bare_round: impl FnMut() -> Result<Vec<f64>>,
    ) -> Result<Vec<Entry>> {
        self.ours.fill().await?;
        let lane = |subject: &str, role| Lane { subject: subject.to_owned(), role, note: String::new(), unable: None };
        let lanes = vec![lane(ours, Role::Ours), lane(bare, Role::Baseline)];
        let round = async |index| if index == 0 { self.ours.round().await } else { bare_round() };
        Ok(interleave(lanes, context.rounds, round).await)
    }
}

/// A layer in front of the stand-in store.
struct Layered {
    sink: Arc<Sink>,
    store: Store,
    path: BlobPath,
    plain: Bytes,
    /// Whether the layer works in the pieces that it is given.
    in_place: bool,
}

impl Layered {
    fn new(wrap: impl FnOnce(Store) -> Result<Store>, plain: Bytes, in_place: bool) -> Result<Self> {
        let sink = Sink::new();
        let store = wrap(Arc::<Sink>::clone(&sink))?;
        Ok(Self { sink, store, path: BlobPath::new("a/blob")?, plain, in_place })
    }

    /// Stores what the rounds read.
    async fn fill(&self) -> Result<()> {
        self.sink.keep();
        self.put().await
    }

    /// Pieces that nobody else holds.
    fn body(&self) -> BlobBody {
        let pieces: Vec<Bytes> = self.plain.chunks(PIECE).map(Bytes::copy_from_slice).collect();
        BlobBody::Stream { stream: futures::stream::iter(pieces).map(Ok).boxed(), size: Some(self.plain.len() as u64) }
    }

    async fn put(&self) -> Result<()> {
        self.store.put(&self.path, self.body(), &PutOptions::default()).await?;
        Ok(())
    }

    async fn round(&self) -> Result<Vec<f64>> {
        let body = self.body();
        let started = Stopwatch::start()?;
        let meta = self.store.put(&self.path, body, &PutOptions::default()).await?;
        let write = rate(&self.plain, started)?;
        ensure!(meta.size == self.plain.len() as u64, "the blob has {} bytes", meta.size);
        self.sink.ready();
        let started = Stopwatch::start()?;
        let mut stream = self.store.get(&self.path, &GetOptions::default()).await?.into_stream();
        let (mut size, mut pieces) = (0, Vec::new());
        while let Some(piece) = stream.try_next().await? {
            size += piece.len();
            // The layer's own memory goes back to it; what the stand-in store handed out is freed when the clock has stopped.
            pieces.extend(Some(black_box(piece)).filter(|_| self.in_place));
        }
        let read = rate(&self.plain, started)?;
        ensure!(size == self.plain.len(), "{size} bytes were read");
        self.check().await?;
        Ok(vec![write, read])
    }

    /// What is read is what was written: not timed.
    async fn check(&self) -> Result<()> {
        let mut stream = self.store.get(&self.path, &GetOptions::default()).await?.into_stream();
        let mut rest = &self.plain[..];
        while let Some(piece) = stream.try_next().await? {
            rest = rest.strip_prefix(&piece[..]).ok_or_else(|| anyhow!("other bytes came back"))?;
        }
        ensure!(rest.is_empty(), "bytes are missing");
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss)] // sizes are far below 2^52
fn rate(bytes: &[u8], started: Stopwatch) -> Result<f64> {
    Ok(bytes.len() as f64 / f64::from(1 << 20) / started.seconds()?)
}

/// The cipher by itself: message by message, in place, under one nonce, since nobody keeps the result.
struct BareCipher {
    key: LessSafeKey,
    /// As large as the pieces that the toolkit gets, so that both work in memory of one kind.
    buffers: Vec<Vec<u8>>,
    /// Bytes of a message with its tag.
    stored: usize,
    plain: Bytes,
}

impl BareCipher {
    fn new(cipher: Cipher, plain: &Bytes) -> Result<Self> {
        let algorithm = match cipher {
            Cipher::Aes => &aead::AES_256_GCM,
            Cipher::ChaCha => &aead::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, &[7; 32]).map_err(|_| anyhow!("the key has another length"))?;
        let stored = MESSAGE + algorithm.tag_len();
        let with_room = |message: &[u8]| [message, &vec![0; algorithm.tag_len()]].concat();
        let buffers = plain.chunks(PIECE).map(|piece| piece.chunks(MESSAGE).flat_map(with_room).collect()).collect();
        Ok(Self { key: LessSafeKey::new(key), buffers, stored, plain: plain.clone() })
    }

    fn round(&mut self) -> Result<Vec<f64>> {
        let nonce = || Nonce::assume_unique_for_key([0; 12]);
        let failed = |_| anyhow!("the cipher failed");
        let started = Stopwatch::start()?;
        for message in self.buffers.iter_mut().flat_map(|buffer| buffer.chunks_mut(self.stored)) {
            let (plain, tag) = message.split_at_mut(MESSAGE);
            let sealed = self.key.seal_in_place_separate_tag(nonce(), Aad::empty(), plain).map_err(failed)?;
            tag.copy_from_slice(sealed.as_ref());
        }
        let write = rate(&self.plain, started)?;
        let started = Stopwatch::start()?;
        for message in self.buffers.iter_mut().flat_map(|buffer| buffer.chunks_mut(self.stored)) {
            black_box(self.key.open_in_place(nonce(), Aad::empty(), message).map_err(failed)?);
        }
        Ok(vec![write, rate(&self.plain, started)?])
    }
}

/// zstd by itself: frame by frame, from one buffer into another.
fn bare_zstd(plain: &[u8]) -> Result<Vec<f64>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    let mut frames = Vec::with_capacity(plain.len().div_ceil(PIECE));
    let started = Stopwatch::start()?;
    for piece in plain.chunks(PIECE) {
        frames.push(compressor.compress(piece)?);
    }
    let write = rate(plain, started)?;
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let mut buffer = Vec::with_capacity(PIECE);
    let mut size = 0;
    let started = Stopwatch::start()?;
    for frame in &frames {
        buffer.clear();
        size += decompressor.decompress_to_buffer(frame, &mut buffer)?;
        black_box(&buffer);
    }
    let read = rate(plain, started)?;
    ensure!(size == plain.len(), "{size} bytes were decompressed");
    Ok(vec![write, read])
}

fn random_bytes(mib: usize) -> Bytes {
    let mut bytes = vec![0; mib << 20];
    Random::new(9).fill(&mut bytes);
    bytes.into()
}

/// JSON lines, as exports and logs are.
fn text(mib: usize) -> Bytes {
    let mut bytes = Vec::with_capacity((mib << 20) + 1_024);
    for number in 0.. {
        if bytes.len() >= mib << 20 {
            break;
        }
        let (_, fields) = document(number);
        bytes.extend_from_slice(serde_json::Value::Object(fields).to_string().as_bytes());
        bytes.push(b'\n');
    }
    bytes.truncate(mib << 20);
    bytes.into()
}
