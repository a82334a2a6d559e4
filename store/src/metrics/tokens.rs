//! Bytes of the chunk encoding: variable-length integers, and runs of "as before".
//!
//! ```text
//! token  := 0 run              the previous value again, `run` times (1 to 255)
//!         | 1                  the staleness marker
//!         | 2 raw              eight bytes, a value that is no decimal number, little endian
//!         | varint(z + 2)      z = zigzag of the difference to the previous number, not 0
//! varint := seven bits a byte, low ones first, the high bit says that more follow
//! ```
//! Most counters of a mesh are idle most of the time, and most of the others grow by less than 62
//! between two scrapes: two bytes per 255 samples, or one byte a sample.
//!
//! Pure; reading never panics and never reads past its input, whatever the bytes are.

/// Starts a run.
pub(super) const RUN: u64 = 0;
/// The staleness marker.
pub(super) const STALE: u64 = 1;
/// A raw value follows.
pub(super) const RAW: u64 = 2;
/// What is added to the zigzag of a difference.
const SHIFT: u64 = 2;

/// Appends an unsigned integer.
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Appends a signed integer, small ones of either sign short.
pub(super) fn put_signed(bytes: &mut Vec<u8>, value: i64) {
    put_varint(bytes, zigzag(value));
}

/// Appends a difference that is not zero; at most 62 bits.
pub(super) fn put_difference(bytes: &mut Vec<u8>, difference: i64) {
    debug_assert!(difference != 0 && difference.unsigned_abs() < 1 << 62, "runs say 0, and 62 bits fit");
    put_varint(bytes, zigzag(difference).wrapping_add(SHIFT));
}

/// The difference behind a token above [`RAW`].
pub(super) const fn difference(token: u64) -> i64 {
    unzigzag(token.wrapping_sub(SHIFT))
}

/// Small numbers of either sign become small numbers without one.
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The reverse of [`zigzag`].
pub(super) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads what the functions above wrote. `None` is the end of the input, or a damaged place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Option<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        self.varint().map(unzigzag)
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }

    pub(super) fn raw(&mut self) -> Option<u64> {
        let (taken, rest) = self.bytes.split_first_chunk::<8>()?;
        self.bytes = rest;
        Some(u64::from_le_bytes(*taken))
    }

    /// A length-prefixed text.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.varint()?).ok()?;
        std::str::from_utf8(self.take(len)?).ok()
    }
}

/// Appends a length-prefixed text.
pub(super) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_survive() {
        for value in [0, 1, -1, 63, 64, -64, -65, 1 << 40, -(1 << 40), i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.signed(), Some(value));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn damaged_input_ends_reading() {
        assert_eq!(Reader::new(&[0xff; 20]).varint(), None);
        assert_eq!(Reader::new(&[0x80]).varint(), None);
        assert_eq!(Reader::new(&[1, 2]).raw(), None);
        assert_eq!(Reader::new(&[200, 1, b'a']).text(), None);
    }
}
