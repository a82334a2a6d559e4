//! What one page adds to one edge: fields, and how they become [`EdgeCounts`].

use std::collections::BTreeMap;

use windrose_proto::Text;
use windrose_proto::model::Reason;

use super::{EdgeCounts, HistogramDelta};

/// How a request ended, as far as a series tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Code {
    NoAnswer,
    Http(u16),
    Grpc(u8),
    /// First digit of an HTTP status.
    Class(u8),
}

/// What a series counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    Code(Code),
    /// Same requests as [`Field::Code`], by class only.
    Class(u8),
    /// Same requests as [`Field::Code`], in one number.
    Completed,
    Attempts,
    /// Requests at the entry of a proxy.
    Received,
    /// A gauge: begun and not ended.
    Inflight,
    /// Refused before a stream was made: answered without an attempt.
    NoStream,
    Retries,
    RetriesSucceeded,
    RetriesExhausted,
    Timeouts,
    CircuitRejected,
    ConnectFailures,
    NoHealthyUpstream,
    Resets,
    Ejections,
    Denied,
    ConnectionsOpened,
    ConnectionsFailed,
    TlsHandshakes,
    BytesSent,
    BytesReceived,
    TlsKnown,
    TlsMutual,
    ProxyFault,
    Reason(Reason),
    /// Cumulative count up to the bound, given as the bits of a non-negative float.
    DurationBucket(u64),
    DurationSum,
    DurationCount,
    SpansSent,
    SpansDropped,
}

/// Which fields an edge has series for, seen at any time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Has {
    code: bool,
    class: bool,
    attempts: bool,
    inflight: bool,
}

/// Requests begun but not answered, carried from page to page.
///
/// A proxy counts on while it writes a page, so a page may show a request as begun but not yet as
/// answered: on a busy proxy every tenth page does. What four pages in a row agree on is a request
/// that was given up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Balance {
    now: f64,
    /// Of the pages before, oldest first.
    before: [f64; 3],
}

/// The sums of one page for one edge.
#[derive(Debug, Default)]
pub(super) struct Sums {
    codes: BTreeMap<Code, f64>,
    classes: BTreeMap<u8, f64>,
    reasons: BTreeMap<Reason, f64>,
    histograms: BTreeMap<u32, Histogram>,
    begun: f64,
    inflight: f64,
    no_stream: f64,
    completed: f64,
    counts: EdgeCounts,
    proxy_faults: f64,
}

#[derive(Debug, Default)]
struct Histogram {
    /// Bound and cumulative count.
    buckets: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

// === impl Code ===

impl Code {
    /// From a label: `200`, `2xx`, `2`; `0`, empty and anything else is no answer (rule M6).
    pub(super) fn of_label(label: &str) -> Self {
        let bytes = label.as_bytes();
        match bytes {
            [first @ b'1'..=b'5'] => Self::Class(first - b'0'),
            [first @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => Self::Class(first - b'0'),
            [b'1'..=b'9', _, _] => label.parse().map_or(Self::NoAnswer, Self::Http),
            _ => Self::NoAnswer,
        }
    }

    pub(super) fn text(self) -> Text {
        match self {
            Self::NoAnswer => Text::from_static("0"),
            Self::Http(status) => Text::from(status.to_string()),
            Self::Grpc(status) => Text::from(format!("grpc:{status}")),
            Self::Class(class) => Text::from(format!("{class}xx")),
        }
    }

    /// Rule O: status 5xx and gRPC's server codes.
    pub(super) const fn is_error(self) -> bool {
        match self {
            Self::NoAnswer => false,
            Self::Http(status) => status >= 500,
            Self::Grpc(status) => matches!(status, 2 | 4 | 8 | 12..=15),
            Self::Class(class) => class == 5,
        }
    }
}

// === impl Has ===

impl Has {
    pub(super) fn note(&mut self, field: &Field) {
        match field {
            Field::Code(_) => self.code = true,
            Field::Class(_) => self.class = true,
            Field::Attempts | Field::Received => self.attempts = true,
            Field::Inflight => self.inflight = true,
            _ => {}
        }
    }

    pub(super) const fn tells_requests(self) -> bool {
        self.code || self.class
    }
}

// === impl Sums ===

impl Sums {
    pub(super) fn add(&mut self, field: &Field, amount: f64, group: u32) {
        let whole = amount.round() as i64;
        let counts = &mut self.counts;
        match field {
            Field::Code(code) => *self.codes.entry(*code).or_default() += amount,
            Field::Class(class) => *self.classes.entry(*class).or_default() += amount,
            Field::Completed => self.completed += amount,
            Field::Attempts => {
                self.begun += amount;
                counts.attempts += whole;
            }
            Field::Received => self.begun += amount,
            Field::Inflight => self.inflight += amount,
            Field::NoStream => self.no_stream += amount,
            Field::Retries => counts.retries += whole,
            Field::RetriesSucceeded => counts.retries_succeeded += whole,
            Field::RetriesExhausted => counts.retries_exhausted += whole,
            Field::Timeouts => counts.timeouts += whole,
            Field::CircuitRejected => counts.circuit_rejected += whole,
            Field::ConnectFailures => counts.connect_failures += whole,
            Field::NoHealthyUpstream => counts.no_healthy_upstream += whole,
            Field::Resets => counts.resets += whole,
            Field::Ejections => counts.ejections += whole,
            Field::Denied => counts.denied += whole,
            Field::ConnectionsOpened => counts.connections_opened += whole,
            Field::ConnectionsFailed => counts.connections_failed += whole,
            Field::TlsHandshakes => counts.tls_handshakes += whole,
            Field::BytesSent => counts.bytes_sent += whole,
            Field::BytesReceived => counts.bytes_received += whole,
            Field::TlsKnown => counts.tls_known += whole,
            Field::TlsMutual => counts.tls_mutual += whole,
            Field::ProxyFault => self.proxy_faults += amount,
            Field::Reason(reason) => *self.reasons.entry(reason.clone()).or_default() += amount,
            Field::DurationBucket(bits) => {
                self.histograms.entry(group).or_default().buckets.push((f64::from_bits(*bits), amount));
            }
            Field::DurationSum => self.histograms.entry(group).or_default().sum += amount,
            Field::DurationCount => self.histograms.entry(group).or_default().count += amount,
            Field::SpansSent | Field::SpansDropped => {}
        }
    }

    /// Chooses one of the series that count the same requests (rule MX7) and balances what began
    /// against what was answered.
    pub(super) fn finish(self, has: Has, balance: &mut Balance) -> EdgeCounts {
        let mut counts = self.counts;
        if has.code {
            for (code, amount) in &self.codes {
                add_code(&mut counts, *code, *amount);
            }
        } else if has.class {
            for (class, amount) in &self.classes {
                add_code(&mut counts, Code::Class(*class), *amount);
            }
        } else {
            counts.answered = self.completed.round() as i64;
        }
        if has.attempts && has.inflight && has.tells_requests() {
            // Begun requests end answered, refused answers never began, retries began twice.
            let unanswered = self.begun - counts.retries as f64 + self.no_stream - counts.answered as f64;
            counts.aborted = balance.settle(unanswered - self.inflight, self.begun > 0.0);
            if counts.aborted > 0 {
                *counts.by_code.entry(Code::NoAnswer.text()).or_default() += counts.aborted;
            }
        }
        counts.proxy_faults = self.proxy_faults.round().max(0.0) as i64;
        counts.reasons = self
            .reasons
            .into_iter()
            .map(|(reason, amount)| (reason, amount.round() as i64))
            .filter(|(_, amount)| *amount != 0)
            .collect();
        counts.duration = merge_histograms(self.histograms.into_values());
        counts
    }
}

fn add_code(counts: &mut EdgeCounts, code: Code, amount: f64) {
    let whole = amount.round() as i64;
    if whole == 0 {
        return;
    }
    counts.answered += whole;
    counts.errors += if code.is_error() { whole } else { 0 };
    *counts.by_code.entry(code.text()).or_default() += whole;
}

impl Balance {
    fn settle(&mut self, change: f64, is_busy: bool) -> i64 {
        let [_, oldest, older] = self.before;
        let last = self.now;
        self.now += change;
        let pages = [oldest, older, last];
        let pages = if is_busy { &pages[..] } else { &pages[2..] };
        let agreed = pages.iter().copied().fold(self.now, f64::min);
        let aborted = agreed.max(0.0).floor();
        self.before = [oldest, older, last].map(|balance| balance - aborted);
        self.now -= aborted;
        aborted as i64
    }
}

/// Histograms of one page have one set of bounds, though sparse ones leave out leading buckets
/// (rule M11), so bucket counts are taken per histogram before they are added.
fn merge_histograms(histograms: impl Iterator<Item = Histogram>) -> Option<HistogramDelta> {
    let mut by_bound: BTreeMap<u64, u64> = BTreeMap::new();
    let mut merged = HistogramDelta::default();
    let mut has_buckets = false;
    for mut histogram in histograms {
        histogram.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = histogram.buckets.last().map_or(histogram.count, |(_, count)| histogram.count.max(*count));
        has_buckets |= !histogram.buckets.is_empty();
        let mut below = 0.0_f64;
        for (bound, cumulative) in histogram.buckets.into_iter().filter(|(bound, _)| bound.is_finite()) {
            *by_bound.entry(bound.to_bits()).or_default() += (cumulative - below).max(0.0).round() as u64;
            below = below.max(cumulative);
        }
        merged.count += count.max(0.0).round() as u64;
        merged.sum += histogram.sum;
    }
    if merged.count == 0 {
        return None;
    }
    if has_buckets {
        let inside: u64 = by_bound.values().sum();
        // The bits of non-negative floats sort like the floats.
        merged.bounds = by_bound.keys().map(|bits| f64::from_bits(*bits)).collect();
        merged.counts = by_bound.into_values().collect();
        merged.counts.push(merged.count.saturating_sub(inside));
    }
    Some(merged)
}
