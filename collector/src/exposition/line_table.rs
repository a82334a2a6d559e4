//! The lines a target has sent before, known again by a hash of their series.
//!
//! A steady page holds the same series in the same order every time, so a line is first compared
//! with the one that followed the last line on the page before; only a line out of order costs a
//! look-up. A line is remembered by 128 bits of its text, not by the text: Istio's lines are 630
//! bytes long, and a hundred thousand of them would be the largest thing in memory. What two texts
//! of one target would have to do to collide harms nobody but that target.
//!
//! Memory: [`LineTable::LINE_BYTES_OVERHEAD`] and what is remembered, per line; at most
//! [`LINES_MAX`] lines.

use hashbrown::HashTable;

/// Most lines remembered of one target. The largest page allowed holds no more of real length; a
/// page of more, tiny lines is refused as a whole.
pub const LINES_MAX: usize = 4 << 20;

/// No line.
const NONE: u32 = u32::MAX;

/// Which line. Valid until the table forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineId(u32);

/// What is remembered of each line of one target.
#[derive(Debug)]
pub struct LineTable<T> {
    index: HashTable<u32>,
    lines: Vec<Line<T>>,
    /// Number of the current page.
    page: u32,
    first: u32,
    last: u32,
    expected: u32,
    /// Whether the last line found was not on the page before.
    is_newcomer: bool,
}

#[derive(Debug)]
struct Line<T> {
    key: LineKey,
    /// The last page that held the line.
    page: u32,
    /// The line that followed on that page.
    next: u32,
    memory: T,
}

/// A hash of a line's series, wide enough to stand for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LineKey([u64; 2]);

impl<T> Default for LineTable<T> {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            lines: Vec::new(),
            page: 0,
            first: NONE,
            last: NONE,
            expected: NONE,
            is_newcomer: false,
        }
    }
}

impl<T> LineTable<T> {
    /// What a line costs beside what is remembered of it.
    pub const LINE_BYTES_OVERHEAD: usize = size_of::<LineKey>() + 2 * size_of::<u32>() + 2 * size_of::<u32>();

    /// Begins the next page.
    pub fn begin_page(&mut self) {
        self.page += 1;
        self.reopen_page();
    }

    /// Begins the current page once more.
    pub fn reopen_page(&mut self) {
        self.last = NONE;
        self.expected = self.first;
    }

    /// Whether the line found or inserted last was neither on this page yet nor on the one before.
    #[must_use]
    pub const fn is_newcomer(&self) -> bool {
        self.is_newcomer
    }

    /// How many lines are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The line whose series is `text`, which is then the last one seen on this page.
    pub fn find(&mut self, text: &str) -> Option<LineId> {
        let key = LineKey::of(text.as_bytes());
        let id = match self.lines.get(self.expected as usize) {
            Some(line) if line.key == key => self.expected,
            _ => *self.index.find(key.0[0], |id| self.lines[*id as usize].key == key)?,
        };
        self.see(id);
        Some(LineId(id))
    }

    /// Remembers a line that [`Self::find`] does not know. `None` when the table is full.
    pub fn insert(&mut self, text: &str, memory: T) -> Option<LineId> {
        if self.lines.len() >= LINES_MAX {
            return None;
        }
        let key = LineKey::of(text.as_bytes());
        let id = u32::try_from(self.lines.len()).ok()?;
        self.lines.push(Line { key, page: 0, next: NONE, memory });
        let Self { index, lines, .. } = self;
        index.insert_unique(key.0[0], id, |id| lines[*id as usize].key.0[0]);
        self.see(id);
        Some(LineId(id))
    }

    /// What is remembered of a line, to change it.
    pub fn memory_mut(&mut self, id: LineId) -> &mut T {
        &mut self.lines[id.0 as usize].memory
    }

    /// What is remembered of all lines, to change it.
    pub fn memories_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.lines.iter_mut().map(|line| &mut line.memory)
    }

    /// Lines of this page.
    pub fn present(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().filter(|line| line.page == self.page).map(|line| &line.memory)
    }

    /// Lines of the previous page that are not on this one.
    pub fn vanished(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().filter(|line| line.page != 0 && line.page + 1 == self.page).map(|line| &line.memory)
    }

    /// Drops lines that have not been on the last `pages` pages and changes what is remembered of
    /// the others. Every [`LineId`] is invalid then.
    pub fn forget(&mut self, pages: u32, mut change: impl FnMut(&mut T)) {
        let horizon = self.page.saturating_sub(pages);
        self.lines.retain_mut(|line| {
            let is_kept = line.page > horizon;
            if is_kept {
                line.next = NONE;
                change(&mut line.memory);
            }
            is_kept
        });
        self.lines.shrink_to(self.lines.len() + self.lines.len() / 4);
        self.index.clear();
        let Self { index, lines, .. } = self;
        let hash_of = |id: &u32| lines[*id as usize].key.0[0];
        index.shrink_to(lines.len(), hash_of);
        for id in 0..lines.len() as u32 {
            index.insert_unique(hash_of(&id), id, hash_of);
        }
        (self.first, self.last, self.expected) = (NONE, NONE, NONE);
    }

    fn see(&mut self, id: u32) {
        match self.lines.get_mut(self.last as usize) {
            Some(last) => last.next = id,
            None => self.first = id,
        }
        let line = &mut self.lines[id as usize];
        // Page 0 is no page.
        self.is_newcomer = line.page == 0 || line.page + 1 < self.page;
        line.page = self.page;
        self.expected = line.next;
        self.last = id;
    }
}

/// Odd constants of which none has a pattern of bits.
const LANES: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];
const WHITENERS: [u64; 2] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db];

impl LineKey {
    /// Folded multiplications over 32 bytes at a time, in four lanes because each waits for its own
    /// last one: 16 bytes per nanosecond, twice what two lanes do.
    fn of(text: &[u8]) -> Self {
        let mut lanes = LANES.map(|lane| lane ^ text.len() as u64);
        let (blocks, rest) = text.as_chunks::<32>();
        for block in blocks {
            mix(&mut lanes, block);
        }
        if !rest.is_empty() {
            let mut block = [0; 32];
            block[..rest.len()].copy_from_slice(rest);
            mix(&mut lanes, &block);
        }
        let [one, other, third, fourth] = lanes;
        let (one, other) = (fold(one ^ WHITENERS[0], third ^ LANES[2]), fold(other ^ WHITENERS[1], fourth ^ LANES[3]));
        Self([fold(one ^ WHITENERS[1], other ^ LANES[0]), fold(one ^ LANES[1], other ^ WHITENERS[0])])
    }
}

/// Every 16 bytes go into two lanes, so that 128 bits of state know them.
#[inline]
fn mix(lanes: &mut [u64; 4], block: &[u8; 32]) {
    let ([first, second], []) = block.as_chunks::<16>() else { unreachable!("32 bytes are twice 16") };
    let ([a, b], [c, d]) = (halves(first), halves(second));
    lanes[0] = fold(a ^ WHITENERS[0], b ^ lanes[0]);
    lanes[1] = fold(b ^ WHITENERS[1], a ^ lanes[1]);
    lanes[2] = fold(c ^ WHITENERS[0], d ^ lanes[2]);
    lanes[3] = fold(d ^ WHITENERS[1], c ^ lanes[3]);
}

#[inline]
fn halves(word: &[u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(*word);
    [number as u64, (number >> 64) as u64]
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::{LineKey, LineTable};

    fn page(table: &mut LineTable<String>, lines: &[&str]) -> Vec<bool> {
        table.begin_page();
        let known = lines.iter().map(|line| {
            let is_known = table.find(line).is_some();
            if !is_known {
                table.insert(line, (*line).to_owned()).unwrap();
            }
            is_known
        });
        known.collect()
    }

    fn sorted<'a>(lines: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
        let mut lines: Vec<&str> = lines.map(String::as_str).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn lines_are_known_again_in_any_order() {
        let mut table = LineTable::default();
        assert_eq!(page(&mut table, &["a", "b", "c"]), [false, false, false]);
        assert_eq!(page(&mut table, &["a", "b", "c"]), [true, true, true]);
        assert_eq!(page(&mut table, &["c", "a", "d"]), [true, true, false]);
        assert_eq!(sorted(table.vanished()), ["b"]);
        assert_eq!(sorted(table.present()), ["a", "c", "d"]);
        assert_eq!(page(&mut table, &["b", "b"]), [true, true]);
        assert_eq!(sorted(table.vanished()), ["a", "c", "d"]);
        assert_eq!(page(&mut table, &[]), [false; 0]);
        assert_eq!(sorted(table.vanished()), ["b"]);
    }

    #[test]
    fn what_was_not_seen_for_long_is_forgotten() {
        let mut table = LineTable::default();
        page(&mut table, &["a", "b"]);
        page(&mut table, &["b"]);
        page(&mut table, &["b", "c"]);
        table.forget(2, |line| line.push('!'));
        assert_eq!(table.len(), 2);
        assert_eq!(sorted(table.present()), ["b!", "c!"]);
        assert_eq!(page(&mut table, &["a", "b", "c"]), [false, true, true]);
    }

    #[test]
    fn keys_differ_where_texts_do() {
        let mut keys = HashSet::new();
        let long = "x".repeat(200);
        for length in 0..long.len() {
            assert!(keys.insert(LineKey::of(&long.as_bytes()[..length]).0), "{length}");
        }
        for place in 0..long.len() {
            let mut other = long.clone().into_bytes();
            other[place] ^= 1;
            assert!(keys.insert(LineKey::of(&other).0), "{place}");
        }
        // A zero byte is not the end.
        assert!(keys.insert(LineKey::of(b"a\0").0) && keys.insert(LineKey::of(b"a").0));
    }

    proptest! {
        /// Whatever the order of pages: known is what was seen, vanished what the last page alone had.
        #[test]
        fn agrees_with_sets(pages in prop::collection::vec(prop::collection::vec(0_u8..12, 0..16), 1..12)) {
            let mut table = LineTable::default();
            let (mut ever, mut before) = (HashSet::new(), HashSet::new());
            for lines in pages {
                let texts: Vec<String> = lines.iter().map(u8::to_string).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let known = page(&mut table, &texts);
                for (line, is_known) in lines.iter().zip(known) {
                    prop_assert_eq!(is_known, !ever.insert(*line));
                }
                let now: HashSet<u8> = lines.into_iter().collect();
                let mut gone: Vec<String> = before.difference(&now).map(u8::to_string).collect();
                gone.sort_unstable();
                prop_assert_eq!(sorted(table.vanished()), gone);
                before = now;
            }
        }
    }
}
