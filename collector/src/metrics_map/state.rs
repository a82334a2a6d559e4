//! What is remembered of a target between two pages, and how differences are taken.
//!
//! Whoever reads the pages remembers for each line what it is [`Use`]d for, so that what its labels
//! mean is worked out once.

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use windrose_proto::Text;
use windrose_proto::model::{Protocol, ProxyKind, Reporters};
use windrose_proto::time::{TimeRange, UnixNanos};

use super::bind::{self, Bound, Context, Place};
use super::sums::{Balance, Field, Has, Sums};
use super::{CounterDelta, EdgeCounts, PageStats, Peer, ProxyDelta};
use crate::exposition;
use crate::metrics_map::table::{Part, Rule};

/// A series that has not been on the page for so many scrapes is forgotten (one hour at 15 s); if
/// it comes back, it was born anew.
pub const FORGOTTEN_AFTER_SCRAPES: u32 = 240;

/// How far two readings of one process' start time may differ: some derive it from clocks that are
/// corrected.
const START_TOLERANCE_SECS: f64 = 5.0;

/// What is remembered of one target.
#[derive(Debug, Default)]
pub struct TargetState {
    series: Vec<Series>,
    edges: Vec<Edge>,
    edge_ids: HashMap<EdgeShape, u32>,
    groups: HashMap<Box<str>, u32>,
    scrape_number: u32,
    previous: Option<Previous>,
    /// As the last page with a new line told.
    pub(super) proxy_kind: Option<ProxyKind>,
}

/// What a line of a page is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// Nothing is made of it.
    #[default]
    None,
    /// How long the process has run.
    Uptime,
    /// When the process started.
    Started,
    /// A series whose differences are taken.
    Counter(u32),
    /// The same, but the target has too many.
    OverLimit,
}

/// What became of the [`Use::Counter`]s once what vanished long ago is forgotten.
#[derive(Debug)]
pub struct Renumbering(Vec<Option<u32>>);

/// Which edge a series belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EdgeShape {
    pub source: Peer,
    pub destination: Peer,
    pub reporter: Reporters,
    pub protocol: Protocol,
    pub origin: Origin,
}

/// Which family of a page told. Where two tell of the same requests, the richer one is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Istio's own series, which name both ends.
    Istio,
    /// The family that knows most about requests on its page.
    Primary,
    /// Envoy's cluster and listener statistics, which Istio's own series outrank.
    EnvoyStats,
    /// Linkerd's policy routes, which its endpoint series outrank.
    LinkerdRoute,
    /// A client library inside a gateway.
    HttpClient,
}

#[derive(Clone, Copy, Debug)]
struct Previous {
    at: UnixNanos,
    age: Option<Age>,
    /// How it followed on the one before, and when that was: a page may come in parts of one time.
    sequel: Sequel,
    since: UnixNanos,
}

/// How a page tells the age of its process.
#[derive(Clone, Copy, Debug)]
enum Age {
    /// Seconds since the start. Envoy sets it when it flushes its statistics, so it may stand still
    /// from one page to the next and only a fall means something.
    Uptime(f64),
    /// Time of the start.
    Started(f64),
}

#[derive(Debug)]
struct Series {
    fields: SmallVec<[BoundField; 1]>,
    value: f64,
    last_scrape: u32,
    is_gauge: bool,
    is_internal: bool,
    /// Series of one histogram, which are reset together; 0 for none.
    group: u32,
}

#[derive(Clone, Debug)]
struct BoundField {
    /// `None`: the proxy as a whole.
    edge: Option<u32>,
    field: Field,
    factor: f64,
}

#[derive(Debug)]
struct Edge {
    shape: EdgeShape,
    has: Has,
    balance: Balance,
}

/// What happened between two pages.
pub(super) struct Advance {
    pub(super) interval: Option<TimeRange>,
    pub(super) edges: Vec<CounterDelta>,
    pub(super) proxy: ProxyDelta,
    pub(super) renumbering: Option<Renumbering>,
}

/// The values of one page.
#[derive(Debug, Default)]
pub struct Readings {
    values: Vec<(u32, f64)>,
    age: Option<Age>,
}

/// How this page follows on the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequel {
    First,
    Continued,
    Restarted,
}

impl Origin {
    const fn is_primary(self) -> bool {
        matches!(self, Self::Istio | Self::Primary)
    }
}

impl Renumbering {
    /// The first `series` stay as they are, the others are gone.
    pub(super) fn cut(series: usize) -> Self {
        Self((0..series as u32).map(Some).collect())
    }

    /// The use under its new number; `None` when it is gone.
    #[must_use]
    pub fn apply(&self, old: Use) -> Option<Use> {
        match old {
            Use::Counter(slot) => self.0.get(slot as usize).copied().flatten().map(Use::Counter),
            other => Some(other),
        }
    }
}

impl TargetState {
    /// How many series are remembered.
    #[must_use]
    pub fn series_len(&self) -> usize {
        self.series.len()
    }

    /// Begins a page.
    pub(super) const fn begin(&mut self) {
        self.scrape_number += 1;
    }

    /// Forgets the series that were admitted since there were `series` of them. Returns whether any was.
    pub(super) fn forget_since(&mut self, series: usize) -> bool {
        let is_any = self.series.len() > series;
        self.series.truncate(series);
        is_any
    }

    /// Works out what a series that has not been seen is good for.
    pub(super) fn admit(&mut self, sample: &exposition::Series<'_>, context: &Context<'_>, max: usize) -> Use {
        match sample.name.as_ref() {
            "envoy_server_uptime" => return Use::Uptime,
            "process_start_time_seconds" => return Use::Started,
            _ => {}
        }
        let Some(shape) = bind::shape_of(&sample.name) else { return Use::None };
        let Some(slot) = u32::try_from(self.series.len()).ok().filter(|_| self.series.len() < max) else {
            return Use::OverLimit;
        };
        let bound = bind::bind(context, shape, sample.labels);
        let series = self.remember(bound, shape.rule, shape.part, sample);
        self.series.push(series);
        Use::Counter(slot)
    }

    /// See [`super::Observer::admit_again`].
    pub(super) fn admit_again(&mut self, line: Use, sample: &exposition::Series<'_>, context: &Context<'_>) {
        let (Use::Counter(slot), Some(shape)) = (line, bind::shape_of(&sample.name)) else { return };
        let bound = bind::bind(context, shape, sample.labels);
        let fresh = self.remember(bound, shape.rule, shape.part, sample);
        let series = &mut self.series[slot as usize];
        let Series { value, last_scrape, .. } = *series;
        *series = Series { value, last_scrape, ..fresh };
    }

    fn remember(&mut self, bound: Bound, rule: &Rule, part: Part, sample: &exposition::Series<'_>) -> Series {
        let is_internal = matches!(bound, Bound::Internal);
        let mut fields = SmallVec::new();
        if let Bound::Fields(list) = bound {
            for (place, field, factor) in list {
                let edge = match place {
                    Place::Proxy => None,
                    Place::Edge(shape) => {
                        let id = self.edge_id(*shape);
                        self.edges[id as usize].has.note(&field);
                        Some(id)
                    }
                };
                fields.push(BoundField { edge, field, factor });
            }
        }
        let is_histogram = matches!(part, Part::Bucket | Part::Sum | Part::Count);
        let group = if is_histogram && !fields.is_empty() { self.group_id(rule, sample) } else { 0 };
        let is_gauge = rule.forced == Some(exposition::MetricKind::Gauge);
        Series { fields, value: f64::NAN, last_scrape: 0, is_gauge, is_internal, group }
    }

    fn edge_id(&mut self, shape: EdgeShape) -> u32 {
        if let Some(id) = self.edge_ids.get(&shape) {
            return *id;
        }
        let id = self.edges.len() as u32;
        self.edges.push(Edge { shape: shape.clone(), has: Has::default(), balance: Balance::default() });
        self.edge_ids.insert(shape, id);
        id
    }

    /// One number for all series of a histogram: the family and its labels without the bound.
    fn group_id(&mut self, rule: &Rule, sample: &exposition::Series<'_>) -> u32 {
        let mut key = String::from(rule.name);
        for label in sample.labels.iter().filter(|label| label.name != "le") {
            key.extend(["\u{1f}", &label.name, "\u{1e}", &label.value]);
        }
        let next = self.groups.len() as u32 + 1;
        *self.groups.entry(key.into_boxed_str()).or_insert(next)
    }

    /// Takes note of a line's value.
    #[inline]
    pub(super) fn take(&mut self, line: Use, value: f64, readings: &mut Readings, stats: &mut PageStats) {
        stats.samples += 1;
        match line {
            Use::None => {}
            Use::Uptime => readings.age = Some(Age::Uptime(value)),
            // A merged page holds the start times of several processes; Envoy's own word counts.
            Use::Started if readings.age.is_none() => readings.age = Some(Age::Started(value)),
            Use::Started => {}
            Use::OverLimit => {
                stats.mapped += 1;
                stats.over_limit += 1;
            }
            Use::Counter(slot) => self.take_counter(slot, value, readings, stats),
        }
    }

    fn take_counter(&mut self, slot: u32, value: f64, readings: &mut Readings, stats: &mut PageStats) {
        let series = &mut self.series[slot as usize];
        stats.mapped += 1;
        stats.internal += usize::from(series.is_internal);
        if series.last_scrape == self.scrape_number {
            stats.duplicate += 1;
            return;
        }
        series.last_scrape = self.scrape_number;
        // Counters are finite and not negative; anything else says nothing.
        if !series.fields.is_empty() && value.is_finite() && value >= 0.0 {
            readings.values.push((slot, value));
        }
    }

    /// Takes the differences and makes this page the previous one.
    pub(super) fn advance(&mut self, readings: &Readings, at: UnixNanos) -> Advance {
        let sequel = self.sequel(readings, at);
        let reset_groups = self.reset_groups(readings);
        let mut sums: HashMap<u32, Sums> = HashMap::new();
        let mut proxy = ProxyDelta { restarted: sequel == Sequel::Restarted, ..ProxyDelta::default() };
        for (slot, value) in &readings.values {
            let series = &mut self.series[*slot as usize];
            let change = change_of(series, *value, sequel, &reset_groups);
            series.value = *value;
            for bound in &series.fields {
                let amount = change.unwrap_or(0.0) * bound.factor;
                match bound.edge {
                    Some(_) if change.is_none() => {}
                    Some(edge) => sums.entry(edge).or_default().add(&bound.field, amount, series.group),
                    None => add_to_proxy(&mut proxy, &bound.field, amount),
                }
            }
        }
        let interval = self.interval(at);
        let age = readings.age.or(self.previous.and_then(|previous| previous.age));
        let since = interval.map_or(at, TimeRange::start);
        self.previous = Some(Previous { at, age, sequel, since });
        let edges = interval.map(|interval| self.deltas(sums, interval)).unwrap_or_default();
        let renumbering = self.scrape_number.is_multiple_of(FORGOTTEN_AFTER_SCRAPES).then(|| self.forget());
        Advance { interval, edges, proxy, renumbering }
    }

    fn interval(&self, at: UnixNanos) -> Option<TimeRange> {
        let previous = self.previous?;
        let since = if previous.at == at { previous.since } else { previous.at };
        // A clock that was set back yields an empty interval rather than an inverted one.
        TimeRange::new(since.min(at), at)
    }

    fn sequel(&self, readings: &Readings, at: UnixNanos) -> Sequel {
        let Some(previous) = self.previous else { return Sequel::First };
        if previous.at == at {
            return previous.sequel;
        }
        let is_restarted = match (previous.age, readings.age) {
            (Some(Age::Uptime(before)), Some(Age::Uptime(now))) => now < before,
            (Some(Age::Started(before)), Some(Age::Started(now))) => now > before + START_TOLERANCE_SECS,
            _ => false,
        };
        if is_restarted { Sequel::Restarted } else { Sequel::Continued }
    }

    /// Histograms of which any part went down: all their parts start from zero.
    fn reset_groups(&self, readings: &Readings) -> HashSet<u32> {
        let went_down = |(slot, value): &&(u32, f64)| {
            let series = &self.series[*slot as usize];
            series.group != 0 && *value < series.value
        };
        readings.values.iter().filter(went_down).map(|(slot, _)| self.series[*slot as usize].group).collect()
    }

    fn deltas(&mut self, sums: HashMap<u32, Sums>, interval: TimeRange) -> Vec<CounterDelta> {
        let proxy_kind = self.proxy_kind.unwrap_or(ProxyKind::None);
        let told: HashSet<Told> = self.edges.iter().filter_map(Told::by_primary).collect();
        let mut ids: Vec<u32> = sums.keys().copied().collect();
        ids.sort_unstable();
        let mut sums = sums;
        let mut deltas = Vec::new();
        for id in ids {
            let Some(sum) = sums.remove(&id) else { continue };
            let edge = &mut self.edges[id as usize];
            let mut counts = sum.finish(edge.has, &mut edge.balance);
            if !edge.shape.origin.is_primary() && told.contains(&Told::of(&edge.shape)) {
                strip_requests(&mut counts);
            }
            if counts.is_empty() {
                continue;
            }
            deltas.push(CounterDelta {
                source: edge.shape.source.clone(),
                destination: edge.shape.destination.clone(),
                reporter: edge.shape.reporter,
                protocol: edge.shape.protocol,
                proxy_kind,
                says_unknown_caller: edge.shape.origin == Origin::Istio && edge.shape.source == Peer::Caller,
                interval,
                counts,
            });
        }
        deltas
    }

    /// Drops series that vanished long ago, and edges nobody counts any more.
    fn forget(&mut self) -> Renumbering {
        let horizon = self.scrape_number.saturating_sub(FORGOTTEN_AFTER_SCRAPES);
        let mut kept = Self {
            scrape_number: self.scrape_number,
            previous: self.previous,
            proxy_kind: self.proxy_kind,
            ..Self::default()
        };
        let mut new_edges: HashMap<u32, u32> = HashMap::new();
        let mut new_groups: HashMap<u32, u32> = HashMap::new();
        let mut edges: Vec<Option<Edge>> = std::mem::take(&mut self.edges).into_iter().map(Some).collect();
        let series = std::mem::take(&mut self.series);
        let mut numbers = Vec::with_capacity(series.len());
        for mut one in series {
            if one.last_scrape <= horizon {
                numbers.push(None);
                continue;
            }
            for bound in &mut one.fields {
                let Some(old) = bound.edge else { continue };
                let next = new_edges.len() as u32;
                let id = *new_edges.entry(old).or_insert(next);
                if id == next
                    && let Some(edge) = edges[old as usize].take()
                {
                    kept.edge_ids.insert(edge.shape.clone(), id);
                    kept.edges.push(edge);
                }
                bound.edge = Some(id);
            }
            if one.group != 0 {
                let next = new_groups.len() as u32 + 1;
                one.group = *new_groups.entry(one.group).or_insert(next);
            }
            numbers.push(Some(kept.series.len() as u32));
            kept.series.push(one);
        }
        let groups = std::mem::take(&mut self.groups);
        kept.groups = groups.into_iter().filter_map(|(key, old)| Some((key, *new_groups.get(&old)?))).collect();
        *self = kept;
        Renumbering(numbers)
    }
}

/// By how much a series grew; `None` when that cannot be known.
fn change_of(series: &Series, value: f64, sequel: Sequel, reset_groups: &HashSet<u32>) -> Option<f64> {
    let before = series.value;
    match sequel {
        Sequel::First => None,
        // A gauge may fall; what was begun before a restart is over.
        _ if series.is_gauge => Some(if before.is_nan() { value } else { value - before }),
        Sequel::Restarted => Some(value),
        // Born since the previous page.
        Sequel::Continued if before.is_nan() => Some(value),
        Sequel::Continued if value < before || reset_groups.contains(&series.group) => Some(value),
        Sequel::Continued => Some(value - before),
    }
}

fn add_to_proxy(proxy: &mut ProxyDelta, field: &Field, amount: f64) {
    let total = match field {
        Field::SpansSent => &mut proxy.spans_sent,
        Field::SpansDropped => &mut proxy.spans_dropped,
        _ => return,
    };
    *total = Some(total.unwrap_or(0) + amount.round() as i64);
}

/// Takes away what a richer family of the same page tells about the same requests.
fn strip_requests(counts: &mut EdgeCounts) {
    let told = std::mem::take(counts);
    *counts = EdgeCounts {
        attempts: told.attempts,
        retries: told.retries,
        retries_succeeded: told.retries_succeeded,
        ejections: told.ejections,
        connections_opened: told.connections_opened,
        tls_handshakes: told.tls_handshakes,
        bytes_sent: told.bytes_sent,
        bytes_received: told.bytes_received,
        ..EdgeCounts::default()
    };
}

/// Requests to one service seen from one side: what two families may both tell about.
#[derive(PartialEq, Eq, Hash)]
struct Told {
    reporter: Reporters,
    /// Not the namespace: not every family names it, and one that tells of a service at all tells
    /// of it in every namespace.
    service: Text,
}

impl Told {
    fn of(shape: &EdgeShape) -> Self {
        let service = match &shape.destination {
            Peer::Node(node) => node.service.clone(),
            Peer::Caller => Text::new(),
        };
        Self { reporter: shape.reporter, service }
    }

    fn by_primary(edge: &Edge) -> Option<Self> {
        (edge.shape.origin.is_primary() && edge.has.tells_requests()).then(|| Self::of(&edge.shape))
    }
}

#[cfg(test)]
mod tests {
    /// The bound on a target's memory is a number of series, so their size is part of it.
    #[test]
    fn a_series_stays_small() {
        assert!(size_of::<super::Series>() <= 96, "{} bytes", size_of::<super::Series>());
    }
}
