//! Bytes as text, more densely than base64: five characters for four bytes.
//!
//! A message holds 64 KiB of text, which is 48 KiB in base64. A full one that becomes a dead letter needs room for the reason, so it is written this
//! way. The characters are those of ASCII that XML leaves as they are, so that what counts as a byte here counts as one everywhere.

/// The smallest and the largest of the characters.
const RANGE: std::ops::RangeInclusive<u8> = b'#'..=b'~';
/// Those within that stand for nothing: XML writes them in another way, or somebody might.
const LEFT_OUT: [u8; 5] = [b'&', b'\'', b'<', b'>', b'`'];
const BASE: u32 = 85;

fn alphabet() -> impl Iterator<Item = u8> {
    RANGE.filter(|c| !LEFT_OUT.contains(c)).take(BASE as usize)
}

/// How many characters so many bytes take.
pub(crate) const fn encoded_len(bytes: usize) -> usize {
    bytes / 4 * 5 + if bytes.is_multiple_of(4) { 0 } else { bytes % 4 + 1 }
}

/// The text of some bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let alphabet: Vec<u8> = alphabet().collect();
    let mut text = String::with_capacity(encoded_len(bytes.len()));
    for chunk in bytes.chunks(4) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        // The most significant first; a short chunk needs but its first digits.
        for digit in (0..5).rev().take(chunk.len() + 1) {
            let value = word / BASE.pow(digit) % BASE;
            text.extend(alphabet.get(value as usize).map(|c| char::from(*c)));
        }
    }
    text
}

/// The bytes of a text; `None` where it is no such text.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut values = [None; 256];
    for (value, c) in (0..).zip(alphabet()) {
        values[usize::from(c)] = Some(value);
    }
    let mut bytes = Vec::with_capacity(text.len() / 5 * 4 + 4);
    for chunk in text.as_bytes().chunks(5) {
        if chunk.len() == 1 {
            return None;
        }
        // What is missing counts as the highest digit, which undoes the rounding down.
        let digits = chunk.iter().map(|c| values[usize::from(*c)]).chain(std::iter::repeat(Some(BASE - 1))).take(5);
        let word = digits.into_iter().try_fold(0u64, |word, digit| Some(word * u64::from(BASE) + u64::from(digit?)))?;
        bytes.extend(&u32::try_from(word).ok()?.to_be_bytes()[..chunk.len() - 1]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = encode(&bytes);
            prop_assert_eq!(text.len(), encoded_len(bytes.len()));
            prop_assert!(text.bytes().all(|c| c.is_ascii_graphic() && !b"&<>\"'".contains(&c)));
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            drop(decode(&text));
        }
    }

    #[test]
    fn the_largest_word_fits() {
        assert_eq!(decode(&encode(&[255; 9])).unwrap(), [255; 9]);
        assert_eq!((decode("~~~~~"), decode("#"), decode("ab&de")), (None, None, None));
    }
}
