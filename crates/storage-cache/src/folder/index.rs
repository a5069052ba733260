//! What is in the folder, as far as this handle knows, and what has to go next.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use storage_core::ETag;

/// How many entries there are at most, whatever their sizes: what the index takes in memory, some 30 MB.
const MAX_ENTRIES: usize = 1 << 18;
/// So many entries make room for one at most: an operation's work is bounded. Where that is not enough, the blob is not kept this time.
const MAX_VICTIMS: usize = 256;

/// What an entry's file is called: a hash of what it is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(pub(super) [u8; 16]);

impl Name {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }

    /// Which of the 256 folders it lies in.
    pub(crate) const fn folder(self) -> u8 {
        self.0[0]
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Microseconds since 1970.
pub(super) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct Slot {
    bytes: u64,
    used: u64,
    /// The mark that what it is of was seen to have, and when: of blobs alone.
    checked: Option<(ETag, Instant)>,
}

/// Room for a new entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Entries whose files have to go first.
    pub(super) victims: Vec<Name>,
    /// Whether the first of them is what was there of the same name.
    pub(super) replaces: bool,
    /// False: even so there is none.
    pub(super) granted: bool,
}

/// Entries by their last use, and how much room they take with those that are being written.
#[derive(Debug)]
pub(crate) struct Index {
    max_bytes: u64,
    slots: BTreeMap<Name, Slot>,
    /// No two were used at one time.
    order: BTreeMap<u64, Name>,
    writing: HashMap<Name, u64>,
    bytes: u64,
    /// The folder to look through next.
    next: u8,
}

impl Index {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, slots: BTreeMap::new(), order: BTreeMap::new(), writing: HashMap::new(), bytes: 0, next: 0 }
    }

    fn insert(&mut self, name: Name, bytes: u64, used: u64, checked: Option<(ETag, Instant)>) {
        self.remove(name);
        let mut used = used;
        while self.order.contains_key(&used) {
            used += 1;
        }
        self.order.insert(used, name);
        self.slots.insert(name, Slot { bytes, used, checked });
        self.bytes += bytes;
    }

    /// `false`: it is not there.
    pub(super) fn remove(&mut self, name: Name) -> bool {
        let Some(slot) = self.slots.remove(&name) else { return false };
        self.order.remove(&slot.used);
        self.bytes -= slot.bytes;
        true
    }

    /// How many entries there are, and what they take, with those that are being written.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.slots.len() as u64, self.bytes)
    }

    /// An entry was used.
    pub(super) fn used(&mut self, name: Name, bytes: u64, at: SystemTime) {
        let checked = self.slots.get_mut(&name).and_then(|slot| slot.checked.take());
        self.insert(name, bytes, micros(at), checked);
    }

    /// The blob of this entry had this mark then.
    pub(crate) fn check(&mut self, name: Name, mark: &ETag, at: Instant) {
        if let Some(slot) = self.slots.get_mut(&name) {
            slot.checked = Some((mark.clone(), at));
        }
    }

    /// When the blob was last seen to have this mark.
    pub(crate) fn checked(&self, name: Name, mark: &ETag) -> Option<Instant> {
        let (seen, at) = self.slots.get(&name)?.checked.as_ref()?;
        (seen == mark).then_some(*at)
    }

    /// The entries that were not used for the longest time, as long as there are too many.
    fn too_many(&mut self, more: u64, max: usize) -> Vec<Name> {
        let mut victims = Vec::new();
        while victims.len() < max
            && (self.bytes.saturating_add(more) > self.max_bytes || self.slots.len() + self.writing.len() >= MAX_ENTRIES)
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = *oldest;
            self.remove(oldest);
            victims.push(oldest);
        }
        victims
    }

    /// What has to go so that what is there keeps to the bound.
    pub(super) fn excess(&mut self) -> Vec<Name> {
        self.too_many(0, usize::MAX)
    }

    /// Sets room aside for an entry. `None`: it is being written already.
    pub(super) fn reserve(&mut self, name: Name, bytes: u64) -> Option<Room> {
        if self.writing.contains_key(&name) {
            return None;
        }
        if bytes > self.max_bytes {
            return Some(Room { victims: Vec::new(), replaces: false, granted: false });
        }
        // What is there of this blob is not what it is now.
        let replaces = self.slots.contains_key(&name);
        let old = replaces.then_some(name);
        self.remove(name);
        let victims: Vec<Name> = old.into_iter().chain(self.too_many(bytes, MAX_VICTIMS)).collect();
        let granted = self.bytes.saturating_add(bytes) <= self.max_bytes && self.slots.len() + self.writing.len() < MAX_ENTRIES;
        if granted {
            self.writing.insert(name, bytes);
            self.bytes += bytes;
        }
        Some(Room { victims, replaces, granted })
    }

    /// Nobody writes this entry any more.
    pub(super) fn release(&mut self, name: Name) {
        if let Some(bytes) = self.writing.remove(&name) {
            self.bytes -= bytes;
        }
    }

    /// The entry that was being written is there. It keeps its room.
    pub(super) fn written(&mut self, name: Name, checked: Option<(ETag, Instant)>) {
        if let Some(bytes) = self.writing.remove(&name) {
            self.bytes -= bytes;
            self.insert(name, bytes, micros(SystemTime::now()), checked);
        }
    }

    /// The folder that is to be looked through: each in turn.
    pub(super) fn next_folder(&mut self) -> u8 {
        let next = self.next;
        self.next = next.wrapping_add(1);
        next
    }

    /// A folder was looked through, beginning at `began`: these entries are there, with their sizes and times of use; others have been removed by somebody else.
    pub(super) fn looked(&mut self, folder: u8, found: &HashMap<Name, (u64, SystemTime)>, began: SystemTime) {
        let (first, last) = (Name([0; 16]), Name([0xff; 16]));
        let within = |mut name: Name| {
            name.0[0] = folder;
            name
        };
        let gone: Vec<Name> = self
            .slots
            .range(within(first)..=within(last))
            .filter(|(name, slot)| !found.contains_key(*name) && slot.used < micros(began))
            .map(|(name, _)| *name)
            .collect();
        for name in gone {
            self.remove(name);
        }
        for (name, (bytes, used)) in found {
            let known = self.slots.get(name).map(|slot| slot.used);
            if !self.writing.contains_key(name) && known.is_none_or(|known| known < micros(*used)) {
                self.used(*name, *bytes, *used);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(n: u8) -> Name {
        Name([n; 16])
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn filled(count: u8) -> Index {
        let mut index = Index::new(100);
        (0..count).for_each(|n| index.used(name(n), 10, at(u64::from(n))));
        index
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = Name(*b"\x00\x01abcdefghijklm\xff");
        assert_eq!(Name::parse(&name.to_string()), Some(name));
        for other in ["", "0", "lock", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes() {
        let mut index = filled(10);
        index.used(name(0), 10, at(100));
        assert_eq!(index.reserve(name(50), 20), Some(Room { victims: vec![name(1), name(2)], replaces: false, granted: true }));
        assert_eq!(index.reserve(name(50), 20), None, "it is being written");
        assert_eq!(index.bytes, 100);
        index.release(name(50));
        assert_eq!(index.bytes, 80);
        assert_eq!(
            index.reserve(name(51), 101),
            Some(Room { victims: vec![], replaces: false, granted: false }),
            "nothing goes for what can't be"
        );
    }

    #[test]
    fn a_write_removes_a_bounded_number() {
        let mut index = Index::new(1000);
        (0..1000_u32).for_each(|n| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            index.used(Name(bytes), 1, at(1));
        });
        let room = index.reserve(name(50), 1000).unwrap();
        assert!(!room.granted && room.victims.len() == MAX_VICTIMS);
        assert_eq!(index.excess(), []);
    }

    #[test]
    fn others_entries_come_and_go() {
        let mut index = filled(3);
        let found = HashMap::from([(name(1), (10, at(50))), (Name(*b"\x01234567890123456"), (5, at(2)))]);
        index.looked(1, &found, at(200));
        assert_eq!((index.bytes, index.slots.len()), (35, 4));
        index.looked(1, &HashMap::new(), at(200));
        assert_eq!((index.bytes, index.slots.len()), (20, 2), "others removed them; other folders are left alone");
        index.looked(2, &HashMap::new(), at(1));
        assert_eq!(index.slots.len(), 2, "it came after the look began");
    }

    #[test]
    fn a_check_holds_for_its_mark_alone() {
        let mut index = filled(1);
        let (mark, now) = (ETag("1".into()), Instant::now());
        index.check(name(0), &mark, now);
        index.used(name(0), 10, at(7));
        assert_eq!(index.checked(name(0), &mark), Some(now));
        assert_eq!(index.checked(name(0), &ETag("2".into())), None);
    }
}
