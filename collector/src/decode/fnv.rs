//! FNV-1a, for ids that are made rather than sent: equal input gives an equal id in every version,
//! which no library's hasher promises. The numbers are those of its definition.

const OFFSET_64: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME_64: u64 = 0x0100_0000_01b3;
const OFFSET_128: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME_128: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// A hash of 64 bits in the making.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fnv64(u64);

impl Fnv64 {
    pub(super) const fn new() -> Self {
        Self(OFFSET_64)
    }

    /// With more bytes behind those it has seen.
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME_64)))
    }

    pub(super) const fn finish(self) -> u64 {
        self.0
    }
}

pub(super) fn fnv1a_128(bytes: &[u8]) -> u128 {
    bytes.iter().fold(OFFSET_128, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME_128))
}

#[cfg(test)]
mod tests {
    use super::{Fnv64, fnv1a_128};

    #[test]
    fn hashes_are_those_of_the_definition() {
        assert_eq!(Fnv64::new().with(b"foo").with(b"bar").finish(), 0x8594_4171_f739_67e8);
        assert_eq!(fnv1a_128(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
