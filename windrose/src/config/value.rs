//! Settings as they are written: durations, sizes, words. Each type says what it accepts, so that
//! an error can tell the reader what to write instead.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// A value that is read from one scalar.
pub(crate) trait Setting: Sized {
    /// Completes "accepted is …".
    const ACCEPTED: &'static str;

    /// Reads the text; `None` when it is not one.
    fn read(text: &str) -> Option<Self>;

    /// Writes it so that reading it again gives the same value.
    fn write(&self) -> String;
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// From MiB.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// As an amount of memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Largest first, so that writing picks the largest unit that divides the value.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Largest first. Prometheus' units, so that one spelling serves the whole file.
const DURATION_UNITS_MS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The leading digits of `text` as a number, and what follows them.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

impl Setting for ByteSize {
    const ACCEPTED: &'static str = "a whole number with a unit: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB (64MiB)";

    fn read(text: &str) -> Option<Self> {
        let (number, unit) = split_number(text.trim())?;
        let factor = match unit.trim_start() {
            "" => 1,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        number.checked_mul(factor).map(Self)
    }

    fn write(&self) -> String {
        let unit = SIZE_UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        unit.map_or_else(|| "0B".to_owned(), |(name, factor)| format!("{}{name}", self.0 / factor))
    }
}

impl Setting for Duration {
    const ACCEPTED: &'static str = "a duration with units, largest first: ms, s, m, h, d, w, y (500ms, 10s, 1h30m)";

    fn read(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        if rest == "0" {
            return Some(Self::ZERO);
        }
        let mut millis = 0_u64;
        let mut smallest = u64::MAX;
        while !rest.is_empty() {
            let (number, tail) = split_number(rest)?;
            let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at_checked(end)?;
            let factor = DURATION_UNITS_MS.iter().find(|(name, _)| *name == unit)?.1;
            if factor >= smallest {
                return None;
            }
            smallest = factor;
            millis = millis.checked_add(number.checked_mul(factor)?)?;
            rest = next;
        }
        (smallest != u64::MAX).then(|| Self::from_millis(millis))
    }

    fn write(&self) -> String {
        let mut millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return "0".to_owned();
        }
        let mut text = String::new();
        for (name, factor) in DURATION_UNITS_MS.iter().skip(2) {
            if millis >= *factor {
                text.push_str(&format!("{}{name}", millis / factor));
                millis %= factor;
            }
        }
        text
    }
}

impl Setting for bool {
    const ACCEPTED: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for usize {
    const ACCEPTED: &'static str = "a whole number";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for SocketAddr {
    const ACCEPTED: &'static str =
        "an address and port (127.0.0.1:4317, 0.0.0.0:4317, [::]:4317; port 0 picks a free one)";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for PathBuf {
    const ACCEPTED: &'static str = "a path";

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }

    fn write(&self) -> String {
        self.display().to_string()
    }
}

impl Setting for String {
    const ACCEPTED: &'static str = "some text";

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident: $accepted:literal { $($(#[$doc:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl Setting for $name {
            const ACCEPTED: &'static str = $accepted;

            fn read(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)+ _ => None }
            }

            fn write(&self) -> String {
                match self { $(Self::$variant => $word,)+ }.to_owned()
            }
        }
    };
}

words! {
    /// When the write-ahead log reaches the disk, relative to the acknowledgement.
    WalSync: "always, interval or never" {
        /// fdatasync before every acknowledgement (grouped): nothing acknowledged is ever lost.
        Always => "always",
        /// fdatasync every `wal.sync_interval`: a power cut loses at most that much.
        Interval => "interval",
        /// The operating system decides: a power cut loses what it had not written back.
        Never => "never",
    }
}

words! {
    /// A part of PromQL that Prometheus has behind a flag of the same name.
    PromqlFeature: "promql-experimental-functions, promql-extended-range-selectors, promql-binop-fill-modifiers, promql-delayed-name-removal or use-start-timestamps" {
        /// Functions and aggregations marked experimental.
        ExperimentalFunctions => "promql-experimental-functions",
        /// `anchored` and `smoothed`.
        ExtendedRangeSelectors => "promql-extended-range-selectors",
        /// `fill`, `fill_left`, `fill_right`.
        FillModifiers => "promql-binop-fill-modifiers",
        /// Metric names go at the end of a query and not at each operation.
        DelayedNameRemoval => "promql-delayed-name-removal",
        /// Counters begin anew where a sample says so.
        StartTimestamps => "use-start-timestamps",
    }
}

words! {
    /// The shape of our own log lines.
    LogFormat: "text or json" {
        Text => "text",
        Json => "json",
    }
}
