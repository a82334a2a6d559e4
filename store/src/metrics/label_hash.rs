//! The number of a series, the same in every process: a hash of its labels.
//!
//! It stands in the tables as `series_id`, so it must never change. Two series of one tenant that
//! meet on 64 bits are expected once in a hundred million tenants of a million series; the index of
//! the head compares labels all the same.

/// Odd numbers with evenly spread bits, from the digits of pi.
const KEYS: [u64; 3] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1];

/// Hashes labels in the order of their names, each text with its length, so that no two different
/// label sets feed the same bytes.
pub(super) fn label_hash<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut state = KEYS[0];
    for (name, value) in labels {
        state = feed(feed(state, name.as_bytes()), value.as_bytes());
    }
    mix(state, KEYS[1])
}

fn feed(mut state: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        state = mix(state ^ u64::from_le_bytes(word), KEYS[1]);
    }
    let rest = chunks.remainder();
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    mix(state ^ u64::from_le_bytes(word), KEYS[2] ^ bytes.len() as u64)
}

/// Both halves of a product depend on every bit of both factors.
const fn mix(a: u64, b: u64) -> u64 {
    let product = (a ^ KEYS[2]) as u128 * (b | 1) as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::label_hash;

    /// Tables hold these numbers: they must be the same for ever.
    #[test]
    fn numbers_never_change() {
        assert_eq!(label_hash([("__name__", "up"), ("job", "envoy")]), 0xbbae_3126_d291_7f5a);
        assert_eq!(label_hash([]), 0x48a6_861a_61c8_599d);
    }

    #[test]
    fn similar_label_sets_differ() {
        let mut seen = HashSet::new();
        for instance in 0..20_000 {
            for metric in ["a", "ab", "b"] {
                let value = format!("10.0.{}.{}", instance / 256, instance % 256);
                assert!(seen.insert(label_hash([("__name__", metric), ("instance", &value)])), "{metric} {value}");
            }
        }
        assert_ne!(label_hash([("a", "bc")]), label_hash([("ab", "c")]));
        assert_ne!(label_hash([("a", ""), ("b", "c")]), label_hash([("a", "b"), ("", "c")]));
    }
}
