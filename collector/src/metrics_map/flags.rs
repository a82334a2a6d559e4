//! Envoy response flags in metric labels: why requests did not go the plain way (rule M7).

use smallvec::SmallVec;
use windrose_proto::model::Reason;

use crate::normalise::outcome::reason_of_flag;

/// The reasons of a comma-separated list of flags, without repetition. `-` is none.
pub(super) fn reasons(flags: &str) -> SmallVec<[Reason; 1]> {
    let mut found = SmallVec::new();
    for flag in flags.split(',').map(str::trim).filter(|flag| !matches!(*flag, "" | "-" | "unknown")) {
        let reason = reason_of_flag(flag);
        if !found.contains(&reason) {
            found.push(reason);
        }
    }
    found
}

/// Whether a flag says that the proxy wrote the answer itself (rule F2).
pub(super) fn is_proxy_made(flags: &str) -> bool {
    flags.split(',').any(|flag| {
        !matches!(flag.trim(), "" | "-" | "unknown" | "DC" | "DPE" | "IH" | "DR" | "DI") // The caller's doing, or a mere delay.
    })
}
