//! What the name of a service hints about its role (rules R3a–R3c, R4b). Matched by hand: these
//! are asked per span.

/// Whether the name says egress gateway.
#[must_use]
pub fn names_egress(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "egressgateway",
        "egress-gateway",
        "egress_gateway",
        "egressgw",
        "egress-gw",
        "egress_gw",
        "terminating-gateway",
        "egress",
    ];
    let bytes = name.as_bytes();
    word_starts(bytes).any(|start| {
        WORDS.iter().any(|word| {
            starts_with(&bytes[start..], word) && bytes.get(start + word.len()).is_none_or(|byte| is_boundary(*byte))
        })
    })
}

/// Whether the name says gateway between clusters of one mesh.
#[must_use]
pub fn names_eastwest(name: &str) -> bool {
    const WORDS: &[&str] = &["eastwest", "east-west", "mesh-gateway", "cross-network", "crossnetwork"];
    let bytes = name.as_bytes();
    (0..bytes.len()).any(|start| WORDS.iter().any(|word| starts_with(&bytes[start..], word)))
}

/// Whether the name says entry from outside.
#[must_use]
pub fn names_ingress(name: &str) -> bool {
    const WORDS: &[&str] = &["ingress", "edge", "api-gateway", "apigateway", "gateway"];
    let bytes = name.as_bytes();
    word_starts(bytes).any(|start| WORDS.iter().any(|word| starts_with(&bytes[start..], word)))
}

fn word_starts(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    (0..bytes.len()).filter(|start| *start == 0 || is_boundary(bytes[start - 1]))
}

const fn is_boundary(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.')
}

fn starts_with(bytes: &[u8], word: &str) -> bool {
    bytes.len() >= word.len() && bytes[..word.len()].eq_ignore_ascii_case(word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{names_eastwest, names_egress, names_ingress};

    #[test]
    fn hints() {
        for (name, egress, eastwest, ingress) in [
            ("istio-egressgateway", true, false, false),
            ("istio-ingressgateway", false, false, true),
            ("Egress", true, false, false),
            ("egress-gw", true, false, false),
            ("egresser", false, false, false),
            ("istio-eastwestgateway", false, true, false),
            ("mesh-gateway", false, true, true),
            ("edge-proxy", false, false, true),
            ("terminating-gateway", true, false, true),
            ("orders", false, false, false),
            ("", false, false, false),
        ] {
            assert_eq!(
                (names_egress(name), names_eastwest(name), names_ingress(name)),
                (egress, eastwest, ingress),
                "{name}"
            );
        }
    }
}
