//! What came in as pushed metrics and what became of it, as plain counters that the process exports.

use std::sync::atomic::{AtomicU64, Ordering};

use super::stats::RequestStats;

use crate::metrics_map::pushed::Unattached;

macro_rules! words {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $name:ident => $wire:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$doc])* $name,)+ }

        impl $type {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word used in metrics, logs and answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $wire,)+ }
            }
        }
    };
}

words! {
    /// How metrics are pushed.
    MetricProtocol {
        RemoteWrite => "remote_write",
        OtlpGrpc => "otlp_grpc",
        OtlpHttp => "otlp_http",
    }
}

words! {
    /// Why a sample of an accepted request is not stored.
    SampleReject {
        /// Its labels name no series.
        BadLabels => "bad_labels",
        /// The store refused its series: too many, or labels too long.
        SeriesLimit => "series_limit",
        /// Its time lies too far in the future.
        TooNew => "too_new",
        /// Its time is outside what can be stored.
        OutOfBounds => "out_of_bounds",
        /// Another value is stored for the same series and time.
        Conflict => "conflict",
        /// A native histogram, or the exponential one of OTLP, which are not stored.
        NativeHistogram => "native_histogram",
        /// A difference since the sample before, where totals are stored.
        DeltaTemporality => "delta_temporality",
        /// It states no time.
        NoTime => "no_time",
        /// It could not be read while its neighbours could, or contradicts itself.
        BadPoint => "bad_point",
        /// More samples than one request may carry.
        TooMany => "too_many_samples",
    }
}

/// Counters of one protocol. All only grow.
#[derive(Debug, Default)]
pub struct MetricProtocolStats {
    /// Its requests.
    pub requests: RequestStats,
    samples: AtomicU64,
    rejected_samples: [AtomicU64; SampleReject::ALL.len()],
}

/// What became of what one resource pushed of counters that edges are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushedCounters {
    Attached,
    Unattached(Unattached),
}

/// Counters of all protocols.
#[derive(Debug, Default)]
pub struct MetricReceiveStats {
    protocols: [MetricProtocolStats; MetricProtocol::ALL.len()],
    attached: AtomicU64,
    unattached: [AtomicU64; Unattached::ALL.len()],
}

impl PushedCounters {
    /// Every value, attached first.
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Attached).chain(Unattached::ALL.iter().map(|reason| Self::Unattached(*reason)))
    }

    /// The word used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Unattached(reason) => reason.as_str(),
        }
    }
}

impl MetricReceiveStats {
    /// The counters of one protocol.
    #[must_use]
    pub fn protocol(&self, protocol: MetricProtocol) -> &MetricProtocolStats {
        &self.protocols[protocol as usize]
    }

    /// Resources of requests that pushed counters of proxies, by what became of them.
    #[must_use]
    pub fn pushed(&self, result: PushedCounters) -> u64 {
        self.pushed_counter(result).load(Ordering::Relaxed)
    }

    pub(super) fn count_pushed(&self, result: PushedCounters) {
        self.pushed_counter(result).fetch_add(1, Ordering::Relaxed);
    }

    const fn pushed_counter(&self, result: PushedCounters) -> &AtomicU64 {
        match result {
            PushedCounters::Attached => &self.attached,
            PushedCounters::Unattached(reason) => &self.unattached[reason as usize],
        }
    }
}

impl MetricProtocolStats {
    /// Samples acknowledged: they are in the log.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Samples of accepted requests that are not stored.
    #[must_use]
    pub fn rejected_samples(&self, reason: SampleReject) -> u64 {
        self.rejected_samples[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count_samples(&self, samples: u64) {
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }

    pub(super) fn count_rejected(&self, reason: SampleReject, samples: u64) {
        self.rejected_samples[reason as usize].fetch_add(samples, Ordering::Relaxed);
    }
}
