//! `_storage/state`: 64 bytes that tell every process where the journal stands.
//!
//! Written under the store's lock, read by anybody at any time with one system call. `begun` moves before anything is changed and `done`
//! follows when all of it is: while they differ, a batch is half applied, either by a living process, which holds the lock, or by
//! a dead one, whose batch the next holder of the lock finishes or forgets.

use std::fs::File;
use std::path::{Path, PathBuf};

use storage_core::{Error, Result, fnv1a};

use crate::file::{at, open_control, read_at, write_at};

const MAGIC: u64 = u64::from_le_bytes(*b"storage1");

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Which run of the journal is the present one.
    pub(crate) era: u64,
    /// Where in the journal its last applied entry ends.
    pub(crate) end: u64,
    pub(crate) begun: u64,
    pub(crate) done: u64,
    /// Counts changes of tables and queues themselves, for those who remember schemas.
    pub(crate) structure: u64,
    /// Which start of the operating system this was written under.
    pub(crate) boot: u64,
    /// 1: the journal of this era holds entries that must survive a power cut.
    pub(crate) durable: u64,
}

impl State {
    pub(crate) fn is_settled(&self) -> bool {
        self.begun == self.done
    }

    fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let words = [MAGIC, self.era, self.end, self.begun, self.done, self.structure, self.boot, self.durable];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; 64]) -> Option<Self> {
        let mut words = [0; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().ok()?);
        }
        let [magic, era, end, begun, done, structure, boot, durable] = words;
        (magic == MAGIC).then_some(Self { era, end, begun, done, structure, boot, durable })
    }
}

#[derive(Debug)]
pub(crate) struct StateFile {
    file: File,
    path: PathBuf,
}

impl StateFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: open_control(path)?, path: path.to_path_buf() })
    }

    /// `None` in a new file.
    pub(crate) fn try_read(&self) -> Result<Option<State>> {
        let mut bytes = [0; 64];
        let read = read_at(&self.file, &mut bytes, 0).map_err(at(&self.path))?;
        Ok(if read == bytes.len() { State::from_bytes(&bytes) } else { None })
    }

    pub(crate) fn read(&self) -> Result<State> {
        self.try_read()?.ok_or_else(|| {
            Error::corrupt("the file is damaged; close the store everywhere, remove the file and open the store again")
                .with_subject(format_args!("`{}`", self.path.display()))
        })
    }

    pub(crate) fn write(&self, state: &State) -> Result<()> {
        write_at(&self.file, &state.to_bytes(), 0).map_err(at(&self.path))
    }
}

/// What tells this start of the operating system from others; 0 where that can't be told.
pub(crate) fn boot_id() -> u64 {
    std::fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |id| fnv1a(&[&id]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(&folder.path().join("state")).unwrap();
        assert_eq!(file.try_read().unwrap(), None);
        let state = State { era: 1, end: 2, begun: 4, done: 3, structure: 5, boot: 6, durable: 1 };
        file.write(&state).unwrap();
        assert_eq!(file.read().unwrap(), state);
        assert!(!state.is_settled());
    }
}
