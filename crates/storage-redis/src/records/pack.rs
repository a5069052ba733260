//! Lists of byte strings and of lists, as scripts unpack them (MessagePack).

const ARRAY: u8 = 0xdd;
const BYTES: u8 = 0xdb;

/// A list that is being written. What it holds is counted at the end.
#[derive(Debug, Default)]
pub(super) struct Packed {
    body: Vec<u8>,
    count: u32,
}

impl Packed {
    pub(super) fn text(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.body.push(BYTES);
        // Batches are far below 4 GiB, which `MAX_CALL` sees to.
        self.body.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.body.extend(bytes);
        self.count += 1;
        self
    }

    pub(super) fn list(&mut self, list: Self) -> &mut Self {
        self.body.extend(list.finish());
        self.count += 1;
        self
    }

    /// Adds what another list holds.
    pub(super) fn append(&mut self, other: Self) -> &mut Self {
        self.body.extend(other.body);
        self.count += other.count;
        self
    }

    pub(super) fn texts<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut list = Self::default();
        for text in texts {
            list.text(text);
        }
        list
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(self.body.len() + 5);
        packed.push(ARRAY);
        packed.extend(self.count.to_be_bytes());
        packed.extend(self.body);
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted() {
        let mut list = Packed::default();
        list.text("ab").list(Packed::texts(["c"]));
        assert_eq!(list.finish(), b"\xdd\0\0\0\x02\xdb\0\0\0\x02ab\xdd\0\0\0\x01\xdb\0\0\0\x01c");
    }
}
