//! The data that sections other than the queue work on: the same in every run.

use serde_json::{Map, Value, json};

use crate::subject::{Document, Row};

/// A small generator of numbers that look random and are the same every time (SplitMix64).
pub struct Random(u64);

impl Random {
    /// Another sequence for every seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, and without, `end`, which is positive.
    pub fn below(&mut self, end: i64) -> i64 {
        (self.next() >> 1).cast_signed() % end
    }

    /// Bytes that don't compress.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

fn hash(number: i64) -> u64 {
    Random::new(number.cast_unsigned()).next()
}

/// Row `number`. Keys are 32 characters and grow with the number, as UUIDv7 do with time.
pub fn row(number: i64, bucket: i64) -> Row {
    let hash = hash(number);
    Row {
        id: format!("{number:016x}{hash:016x}"),
        name: format!("person {:x}", hash >> 24),
        status: ["new", "running", "done", "failed"][(hash % 4) as usize].to_owned(),
        bucket,
        score: f64::from((hash >> 40) as u32) / 16.0,
        created: 1_760_000_000_000_000 + number,
    }
}

/// Document `number`: about 350 bytes of JSON with text, numbers, a list and an object within.
pub fn document(number: i64) -> Document {
    let row = row(number, number % 100);
    let value = json!({
        "name": row.name,
        "status": row.status,
        "bucket": row.bucket,
        "score": row.score,
        "created": row.created,
        "description": format!("task {number} of the nightly run, queued by the importer for {}", row.id),
        "tags": ["nightly", "import", row.id[24..].to_owned()],
        "input": { "path": format!("incoming/{number:08}.csv"), "bytes": hash(number) >> 40, "retries": 3, "dry_run": false },
    });
    let fields = if let Value::Object(fields) = value { fields } else { Map::new() };
    (row.id, fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_differ_and_their_keys_grow() {
        let ids: Vec<String> = (0..1_000).map(|n| row(n, 0).id).collect();
        assert!(ids.is_sorted());
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn numbers_stay_below_the_end() {
        let mut random = Random::new(7);
        assert!((0..1_000).all(|_| (0..10).contains(&random.below(10))));
    }
}
