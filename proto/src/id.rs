//! Trace and span identifiers and the tolerant reading of their spellings.
//!
//! Rules (the id of each is in the documentation of the code that applies it):
//! ID1 hexadecimal of the right length; ID2 shorter hexadecimal is padded with zeros on the left
//! (64-bit ids, stripped zeros); ID3 base64 (senders that print protobuf JSON); ID4 X-Ray's
//! `1-8hex-24hex`; ID5 all zero means absent.

use std::fmt;

use base64_lite::decode as base64_decode;

mod base64_lite;
#[cfg(test)]
mod tests;

/// 128-bit trace id; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// 64-bit span id; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

macro_rules! id_impl {
    ($name:ident, $len:literal) => {
        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// From exactly the right number of bytes; `None` when all are zero (ID5).
            #[must_use]
            pub fn new(bytes: [u8; $len]) -> Option<Self> {
                (bytes != [0; $len]).then_some(Self(bytes))
            }

            /// From wire bytes; shorter ids are padded on the left (ID2), longer ones refused.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                if bytes.is_empty() || bytes.len() > $len {
                    return None;
                }
                let mut padded = [0; $len];
                padded[$len - bytes.len()..].copy_from_slice(bytes);
                Self::new(padded)
            }

            /// The bytes, most significant first.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Reads any spelling of the ID rules; `None` when it is absent or unreadable.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                if let Some(id) = parse_hex_padded::<$len>(text) {
                    return Self::new(id);
                }
                // Only whole ids: any short word is valid base64 of something.
                if let Some(bytes) = base64_decode(text).filter(|bytes| bytes.len() == $len || bytes.len() == 8) {
                    return Self::from_slice(&bytes);
                }
                parse_xray(text).and_then(|bytes| Self::from_slice(&bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let mut text = [0; 2 * $len];
                for (digits, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    digits[0] = DIGITS[usize::from(byte >> 4)];
                    digits[1] = DIGITS[usize::from(byte & 15)];
                }
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

id_impl!(TraceId, 16);
id_impl!(SpanId, 8);

impl TraceId {
    /// The low 64 bits: what a 64-bit sender would have called this trace.
    #[must_use]
    pub fn low64(self) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|i| self.0[i + 8]))
    }

    /// The high 64 bits; zero for ids of 64-bit senders.
    #[must_use]
    pub fn high64(self) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|i| self.0[i]))
    }
}

impl SpanId {
    /// As a number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

/// ID1 and ID2.
fn parse_hex_padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.is_empty() || digits.len() > 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (place, digit) in digits.iter().rev().enumerate() {
        let value = (*digit as char).to_digit(16)? as u8;
        out[N - 1 - place / 2] |= value << (4 * (place % 2));
    }
    Some(out)
}

/// ID4: `1-58406520-a006649127e371903a2de979`.
fn parse_xray(text: &str) -> Option<[u8; 16]> {
    let (version, rest) = text.split_once('-')?;
    let (epoch, unique) = rest.split_once('-')?;
    if version != "1" || epoch.len() != 8 || unique.len() != 24 {
        return None;
    }
    let mut joined = String::with_capacity(32);
    joined.push_str(epoch);
    joined.push_str(unique);
    parse_hex_padded::<16>(&joined)
}
