//! Decompressing: each frame must hold what it is said to, no more and no less, and no byte of it is handed on before its checksum was checked.

use bytes::{Buf as _, Bytes};
use futures::stream::StreamExt as _;
use storage_core::{ByteStream, Error, Result};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::format::{Frames, WINDOW_LOG};
use crate::transform::body::Incoming;

/// Decompresses frames of a blob.
pub(super) struct Unpacking {
    source: Incoming,
    input: Bytes,
    decoder: Decoder<'static>,
    frames: Frames,
    /// The frame that is being decompressed, and the one to end before.
    index: u64,
    end: u64,
}

impl Unpacking {
    /// Decompresses the frames `range` that `source` brings.
    pub(super) fn new(source: Incoming, frames: Frames, range: std::ops::Range<u64>) -> Result<Self> {
        let broken = |e: std::io::Error| Error::internal("zstd could not be set up").with_source(e);
        let mut decoder = Decoder::new().map_err(broken)?;
        // What a frame may ask for in memory.
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(broken)?;
        Ok(Self { source, input: Bytes::new(), decoder, frames, index: range.start, end: range.end })
    }

    fn damaged(&self, what: &str) -> Error {
        Error::corrupt(format!("frame {} of the compressed blob {what}: restore the blob", self.index))
    }

    /// Decompresses into the room that `out` has. `true`: the frame is done.
    async fn step(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        loop {
            if self.input.is_empty() {
                let some = self.source.some(usize::MAX).await?;
                self.input = some.ok_or_else(|| self.source.ended())?;
            }
            let mut input = InBuffer::around(&self.input);
            let filled = out.len();
            let mut output = OutBuffer::around_pos(out, filled);
            let outcome = self.decoder.run(&mut input, &mut output);
            let read = input.pos();
            let hint = outcome.map_err(|e| self.damaged("is damaged").with_source(e))?;
            self.input.advance(read);
            if hint == 0 || out.len() == out.capacity() {
                return Ok(hint == 0);
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.index == self.end {
            return Ok(None);
        }
        let len = self.frames.len(self.index);
        let mut out = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
        let mut done = self.step(&mut out).await?;
        // What is left of the frame is its end alone, with the checksum.
        let mut more = Vec::with_capacity(1);
        while !done && out.len() as u64 == len {
            done = self.step(&mut more).await?;
            if !more.is_empty() {
                return Err(self.damaged("holds more than it should"));
            }
        }
        if out.len() as u64 != len {
            return Err(self.damaged("holds less than it should"));
        }
        self.index += 1;
        Ok(Some(out.into()))
    }

    pub(super) fn into_stream(self) -> ByteStream {
        let pieces = futures::stream::try_unfold(self, |mut unpacking| async move {
            let piece = unpacking.next().await?;
            Ok(piece.map(|piece| (piece, unpacking)))
        });
        pieces.boxed()
    }
}
