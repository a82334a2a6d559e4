//! Counts of refused spans by reason, with the first refusal spelled out for the sender.

use windrose_proto::reject::RejectReason;

/// Refused spans of one body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    counts: [u64; RejectReason::ALL.len()],
    example: Option<String>,
}

impl Rejections {
    /// Counts one refusal; `message` is only built for the first.
    pub fn add(&mut self, reason: RejectReason, message: impl FnOnce() -> String) {
        self.counts[reason as usize] += 1;
        if self.example.is_none() {
            self.example = Some(message());
        }
    }

    /// All refused spans.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether nothing was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// Spans refused for `reason`.
    #[must_use]
    pub fn count(&self, reason: RejectReason) -> u64 {
        self.counts[reason as usize]
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (RejectReason, u64)> + '_ {
        RejectReason::ALL.iter().map(|reason| (*reason, self.count(*reason))).filter(|(_, count)| *count > 0)
    }

    /// The first refusal in words.
    #[must_use]
    pub fn example(&self) -> Option<&str> {
        self.example.as_deref()
    }

    /// One line for the sender: how many for which reason, and the first in words.
    #[must_use]
    pub fn summary(&self) -> String {
        let counts: Vec<String> = self.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
        let example = self.example().unwrap_or_default();
        format!("{} spans rejected ({}); first: {example}", self.total(), counts.join(", "))
    }
}
