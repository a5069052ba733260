//! Keys, and the ring that holds them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use storage_core::{Error, ErrorKind, Result, Secret};

/// How many bytes a key has.
pub(super) const KEY: usize = 32;
/// How long an id may be: it has this much room in the header.
pub(super) const MAX_ID: usize = 32;
/// How many keys a ring holds at most.
const MAX_KEYS: usize = 64;

/// A key of 256 bits with an id, which stands in the header of each blob that was encrypted with it. `Debug` shows the id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: String,
    bytes: [u8; KEY],
}

impl Key {
    /// The key with these bytes. They must come from a generator of random numbers, not from a password. Its id is their fingerprint.
    #[must_use]
    pub fn new(bytes: [u8; KEY]) -> Self {
        Self { id: fingerprint(&bytes), bytes }
    }

    /// Reads a key from text: 32 bytes in base64 (44 characters) or in hexadecimal (64). White space around it does not count.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) where it is neither. The message does not show the text.
    pub fn parse(text: &Secret) -> Result<Self> {
        let text = text.expose().trim();
        let bytes = if text.len() == 2 * KEY { hex(text) } else { base64(text) };
        let bytes = bytes.and_then(|bytes| <[u8; KEY]>::try_from(bytes).ok());
        bytes.map(Self::new).ok_or_else(|| {
            Error::config("an encryption key is 32 random bytes in base64 or hexadecimal: `openssl rand -base64 32` makes one")
        })
    }

    /// A new random key.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) where the system has no random numbers.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0; KEY];
        random(&mut bytes)?;
        Ok(Self::new(bytes))
    }

    /// Gives the key another id than its fingerprint.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) unless it is 1 to 32 printable ASCII characters without spaces.
    pub fn with_id(mut self, id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        if !is_id(id.as_bytes()) {
            return Err(Error::config(format!(
                "{id:?} can't be the id of an encryption key: 1 to {MAX_ID} printable ASCII characters without spaces"
            )));
        }
        self.id = id;
        Ok(self)
    }

    /// Its id: 16 hexadecimal digits of its fingerprint, unless it was given another.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key in base64, as [`parse`](Self::parse) reads it.
    #[must_use]
    pub fn encode(&self) -> Secret {
        Secret::new(STANDARD.encode(self.bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; KEY] {
        &self.bytes
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn is_id(id: &[u8]) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

pub(super) fn random(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| Error::unavailable("the system gave no random numbers"))
}

/// Tells keys apart, and tells nothing of the key.
fn fingerprint(bytes: &[u8; KEY]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(b"storage-layers key fingerprint\0");
    hash.update(bytes);
    hash.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    Some(digits?.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn base64(text: &str) -> Option<Vec<u8>> {
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|engine| engine.decode(text).ok())
}

/// The key that new blobs are encrypted with, and those that old blobs were.
#[derive(Clone, Debug)]
pub struct Keyring {
    current: Key,
    previous: Vec<Key>,
}

impl Keyring {
    /// A ring of one key.
    #[must_use]
    pub const fn new(current: Key) -> Self {
        Self { current, previous: Vec::new() }
    }

    /// Adds a key that reads old blobs and writes none.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): another key of the ring has its id, or there are too many.
    pub fn with_previous(mut self, key: Key) -> Result<Self> {
        match self.find(&key.id) {
            Some(same) if *same == key => return Ok(self),
            Some(_) => return Err(Error::config(format!("two encryption keys have the id `{}`: give each its own", key.id))),
            None if self.previous.len() + 1 >= MAX_KEYS => {
                return Err(Error::config(format!("{MAX_KEYS} encryption keys at most: rotate, then take old ones away")));
            }
            None => self.previous.push(key),
        }
        Ok(self)
    }

    /// The key that new blobs are encrypted with.
    #[must_use]
    pub const fn current(&self) -> &Key {
        &self.current
    }

    /// The ids of all keys, the current one's first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.current).chain(&self.previous).map(Key::id)
    }

    fn find(&self, id: &str) -> Option<&Key> {
        std::iter::once(&self.current).chain(&self.previous).find(|key| key.id == id)
    }

    /// The key of this id.
    ///
    /// # Errors
    /// [`Unauthorized`](ErrorKind::Unauthorized) naming the id where the ring lacks it.
    pub fn key(&self, id: &str) -> Result<&Key> {
        self.find(id).ok_or_else(|| {
            let known: Vec<_> = self.ids().collect();
            Error::new(
                ErrorKind::Unauthorized,
                format!(
                    "the blob is encrypted with the key `{id}`, which is not configured (there are: {}): add it to `previous`",
                    known.join(", ")
                ),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_base64_and_hexadecimal() {
        let key = Key::new([0xfb; KEY]);
        let base64 = key.encode().expose().to_owned();
        let urls = base64.replace('+', "-").replace('/', "_");
        for text in
            [base64.clone(), format!(" {base64}\n"), base64.trim_end_matches('=').into(), urls, "fb".repeat(32), "FB".repeat(32)]
        {
            assert_eq!(Key::parse(&Secret::new(text.clone())).unwrap(), key, "{text}");
        }
        for text in ["", "hunter2", &"fb".repeat(31), &"fg".repeat(32), &base64[..40]] {
            let error = Key::parse(&Secret::new(text)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(text.is_empty() || !error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let key = Key::new([7; KEY]);
        let shown = format!("{key:?} {:?}", Keyring::new(key.clone()));
        assert!(shown.contains(key.id()) && !shown.contains('7'.to_string().repeat(3).as_str()), "{shown}");
        assert!(!shown.contains(key.encode().expose()));
        assert_eq!(key.id().len(), 16);
        assert_ne!(key.id(), Key::new([8; KEY]).id());
    }

    #[test]
    fn a_ring_has_each_id_once() {
        let (one, two) = (Key::new([1; KEY]), Key::new([2; KEY]));
        let ring = Keyring::new(one.clone()).with_previous(two.clone()).unwrap().with_previous(one.clone()).unwrap();
        assert_eq!(ring.ids().collect::<Vec<_>>(), [one.id(), two.id()]);
        let same = two.clone().with_id(one.id()).unwrap();
        assert_eq!(ring.clone().with_previous(same).unwrap_err().kind(), ErrorKind::Config);
        let missing = ring.key("2024-q1").unwrap_err();
        assert!(missing.kind() == ErrorKind::Unauthorized && missing.to_string().contains("`2024-q1`"), "{missing}");
        for bad in ["", "with space", "ü", &"x".repeat(33)] {
            assert!(two.clone().with_id(bad).is_err(), "{bad}");
        }
    }
}
