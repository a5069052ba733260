//! Messages as the service keeps them: one text of 64 KiB at most.
//!
//! What is a body and nothing else is that body in base64, which is what other programs expect by default or are easily told to. A message that has
//! more to it (attributes, a content type, a time to live, an id from before it was moved) is an envelope: the base64 of
//!
//! ```text
//! storage-message/1 {"attributes":{"tenant":"acme"},"content_type":"text/plain"}
//! the body, as it is
//! ```
//!
//! A text that is neither is taken for a body of text.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use storage_core::Attributes;
use storage_core::message::dead;
use uuid::Uuid;

use crate::dense;

/// The longest text.
pub(crate) const MAX_TEXT: usize = 64 << 10;
/// What fits into it in base64.
pub(crate) const MAX_BYTES: usize = MAX_TEXT / 4 * 3;
/// Its length is one that base64 has no remainder of: all envelopes begin alike.
const MAGIC: &[u8] = b"storage-message/1 ";
const MAGIC_IN_BASE64: &str = "c3RvcmFnZS1tZXNzYWdlLzEg";
/// Begins an envelope that base64 has no room for; no text in base64 begins so.
const DENSE: &str = "~storage-message/1:";

/// How bodies are written that need no envelope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// In base64.
    #[default]
    Base64,
    /// As they are, where they are text that XML leaves as it is.
    Text,
}

/// The largest body of a message without anything beside it.
pub(crate) const fn max_body_bytes(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Base64 => MAX_BYTES,
        // Bytes that are no text need an envelope.
        Encoding::Text => MAX_BYTES - MAGIC.len() - "{}\n".len(),
    }
}

/// What is known of a message beside its body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Head {
    /// The id it had before it was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// What the service called it last, where that is another than its id: receipts speak of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) was: Option<String>,
    /// When it was sent, where it was moved since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    pub(crate) attributes: Attributes,
    /// Where its body is, if not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spilled: Option<Spilled>,
}

/// A body in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spilled {
    /// The last part of the blob's path.
    pub(crate) blob: Uuid,
    /// How long it is.
    pub(crate) bytes: u64,
}

/// A message's head and body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) head: Head,
    /// Empty where it is in a blob that was not read yet.
    pub(crate) body: Bytes,
}

impl Content {
    /// Why the message is dead, or sentenced to be.
    pub(crate) fn dead_reason(&self) -> Option<&str> {
        self.head.attributes.get(dead::REASON).map(String::as_str)
    }

    /// Without what made it a dead letter.
    pub(crate) fn revived(mut self) -> Self {
        for name in [dead::REASON, dead::SOURCE, dead::DELIVERIES, dead::AT] {
            self.head.attributes.remove(name);
        }
        self.head.expires = None;
        self
    }

    fn is_plain(&self) -> bool {
        self.head == Head::default()
    }

    /// The text of the message; `None` where it does not fit.
    pub(crate) fn encode(&self, encoding: Encoding) -> Option<String> {
        match self.as_plain(encoding) {
            Some(text) => Some(text),
            None => self.envelope().filter(|bytes| bytes.len() <= MAX_BYTES).map(|bytes| BASE64_STANDARD.encode(bytes)),
        }
    }

    /// The same, by more dense writing where there is no room otherwise: for messages that are moved and get more to their heads thereby.
    pub(crate) fn squeeze(&self, encoding: Encoding) -> Option<String> {
        self.encode(encoding).or_else(|| {
            let bytes = self.envelope().filter(|bytes| DENSE.len() + dense::encoded_len(bytes.len()) <= MAX_TEXT)?;
            Some(format!("{DENSE}{}", dense::encode(&bytes)))
        })
    }

    /// The same, of a message of another program that was a text and no base64: the largest of these fit as they are and in no other way.
    pub(crate) fn verbatim(&self, encoding: Encoding) -> Option<String> {
        self.encode(encoding).or_else(|| {
            let text = std::str::from_utf8(&self.body).ok().filter(|text| text.len() <= MAX_TEXT)?;
            (Self::decode(text, encoding) == *self).then(|| text.to_owned())
        })
    }

    fn as_plain(&self, encoding: Encoding) -> Option<String> {
        if !self.is_plain() {
            return None;
        }
        match encoding {
            Encoding::Base64 if self.body.starts_with(MAGIC) || self.body.len() > MAX_BYTES => None,
            Encoding::Base64 => Some(BASE64_STANDARD.encode(&self.body)),
            Encoding::Text => std::str::from_utf8(&self.body).ok().filter(|text| stays_as_it_is(text)).map(str::to_owned),
        }
    }

    fn envelope(&self) -> Option<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        serde_json::to_writer(&mut bytes, &self.head).ok()?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        Some(bytes)
    }

    /// What a text means. Any text means something.
    pub(crate) fn decode(text: &str, encoding: Encoding) -> Self {
        let envelope = match text.strip_prefix(DENSE) {
            Some(text) => dense::decode(text),
            None if text.starts_with(MAGIC_IN_BASE64) => BASE64_STANDARD.decode(text).ok(),
            None => None,
        };
        if let Some(found) = envelope.and_then(Self::open) {
            return found;
        }
        let decoded = match encoding {
            // Other programs break lines.
            Encoding::Base64 => BASE64_STANDARD.decode(text.split_ascii_whitespace().collect::<String>()).ok(),
            Encoding::Text => None,
        };
        Self { head: Head::default(), body: decoded.unwrap_or_else(|| text.as_bytes().to_vec()).into() }
    }

    fn open(envelope: Vec<u8>) -> Option<Self> {
        let rest = envelope.strip_prefix(MAGIC)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let head = serde_json::from_slice(&rest[..end]).ok()?;
        Some(Self { head, body: Bytes::from(envelope).slice(MAGIC.len() + end + 1..) })
    }
}

/// True for text that comes back from the service as it went there, and means nothing else.
fn stays_as_it_is(text: &str) -> bool {
    let kept = |c: char| matches!(c, '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..) && c != '\u{7f}';
    text.len() <= MAX_TEXT
        && text.trim() == text
        && text.chars().all(kept)
        && !text.starts_with(MAGIC_IN_BASE64)
        && !text.starts_with(DENSE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn plain(body: &[u8]) -> Content {
        Content { head: Head::default(), body: Bytes::copy_from_slice(body) }
    }

    fn with_attribute(body: &[u8], value: &str) -> Content {
        let mut content = plain(body);
        content.head.attributes.insert("a".into(), value.into());
        content
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(body in prop::collection::vec(any::<u8>(), 0..100), text in "\\PC{0,40}", value in ".{0,40}") {
            for body in [&body[..], text.as_bytes()] {
                for content in [plain(body), with_attribute(body, &value)] {
                    for encoding in [Encoding::Base64, Encoding::Text] {
                        prop_assert_eq!(&Content::decode(&content.encode(encoding).unwrap(), encoding), &content);
                    }
                }
            }
        }

        #[test]
        fn any_text_means_something(text in ".{0,60}") {
            drop(Content::decode(&format!("{MAGIC_IN_BASE64}{text}"), Encoding::Base64));
            drop(Content::decode(&format!("{DENSE}{text}"), Encoding::Text));
        }
    }

    #[test]
    fn others_read_and_write_plain_messages() {
        assert_eq!(plain(b"hello").encode(Encoding::Base64).unwrap(), "aGVsbG8=");
        assert_eq!(plain(b"{\"a\": 1}").encode(Encoding::Text).unwrap(), "{\"a\": 1}");
        assert_eq!(BASE64_STANDARD.encode(MAGIC), MAGIC_IN_BASE64);
        for (text, body) in [("aGVs\r\nbG8=\n", "hello"), ("{\"a\": 1}", "{\"a\": 1}"), ("", "")] {
            assert_eq!(Content::decode(text, Encoding::Base64), plain(body.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_looks_like_something_else_is_wrapped() {
        for body in [
            &b"storage-message/1 {}\nx"[..],
            b"~storage-message/1:abc",
            b" a",
            b"a\r",
            b"\x00",
            b"\xff",
            MAGIC_IN_BASE64.as_bytes(),
        ] {
            for encoding in [Encoding::Base64, Encoding::Text] {
                assert_eq!(Content::decode(&plain(body).encode(encoding).unwrap(), encoding), plain(body));
            }
        }
    }

    #[test]
    fn the_largest_of_all_have_room_for_a_reason() {
        let mut full = plain(&[255; MAX_BYTES]);
        assert_eq!(full.encode(Encoding::Base64).unwrap().len(), MAX_TEXT);
        assert!(plain(&vec![255; max_body_bytes(Encoding::Text)]).encode(Encoding::Text).is_some());
        assert!(full.encode(Encoding::Text).is_none());
        full.head.attributes.insert(dead::REASON.into(), "r".repeat(3_000));
        assert_eq!(full.encode(Encoding::Base64), None);
        let text = full.squeeze(Encoding::Base64).unwrap();
        assert!(text.len() <= MAX_TEXT);
        assert_eq!(Content::decode(&text, Encoding::Base64), full);
        full.head.attributes.insert("a".into(), "r".repeat(3_000));
        assert_eq!(full.squeeze(Encoding::Base64), None);
        let text = "{}".repeat(MAX_TEXT / 2);
        let theirs = Content::decode(&text, Encoding::Base64);
        assert_eq!((theirs.squeeze(Encoding::Base64), theirs.verbatim(Encoding::Base64)), (None, Some(text)));
        assert_eq!(plain(&[b'a'; MAX_TEXT]).verbatim(Encoding::Base64), None, "it would be read as base64");
    }
}
