//! What is remembered of a target between two pages, and how differences are taken.
//!
//! A series is known by its text in the page, so that what its labels mean is worked out once and
//! every later page costs one look-up per series.

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use windrose_proto::Text;
use windrose_proto::model::{Protocol, Reporters};
use windrose_proto::time::{TimeRange, UnixNanos};

use super::bind::{self, Bound, Context, Place};
use super::sums::{Balance, Field, Has, Sums};
use super::{CounterDelta, EdgeCounts, Page, PageStats, Peer, ProxyDelta};
use crate::exposition::{Entry, Parser, Sample};
use crate::metrics_map::table::{Part, Rule};

/// A series that has not been on the page for so many scrapes is forgotten (one hour at 15 s); if
/// it comes back, it was born anew.
const FORGOTTEN_AFTER_SCRAPES: u64 = 240;

/// How far two readings of one process' start time may differ: some derive it from clocks that are
/// corrected.
const START_TOLERANCE_SECS: f64 = 5.0;

/// What is remembered of one target.
#[derive(Debug, Default)]
pub struct TargetState {
    by_text: HashMap<Box<str>, u32>,
    series: Vec<Series>,
    edges: Vec<Edge>,
    edge_ids: HashMap<EdgeShape, u32>,
    groups: HashMap<Box<str>, u32>,
    scrape_number: u64,
    previous: Option<Previous>,
}

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
    last_scrape: u64,
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
}

/// The values of one page.
#[derive(Debug, Default)]
pub struct Readings {
    values: Vec<(u32, f64)>,
    age: Option<Age>,
}

/// How this page follows on the last one.
#[derive(Clone, Copy, PartialEq, Eq)]
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

impl TargetState {
    /// How many series are remembered.
    #[must_use]
    pub fn series_len(&self) -> usize {
        self.by_text.len()
    }

    pub(super) fn read(&mut self, page: Page<'_>, context: &Context<'_>, series_max: usize) -> (Readings, PageStats) {
        self.scrape_number += 1;
        let mut readings = Readings::default();
        let mut stats = PageStats::default();
        for entry in Parser::new(page.body, page.dialect) {
            match entry {
                Ok(Entry::Sample(sample)) => {
                    stats.samples += 1;
                    readings.note_age(&sample);
                    if let Some(slot) = self.slot(&sample, context, series_max, &mut stats) {
                        self.take(slot, sample.value, &mut readings, &mut stats);
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    stats.bad_lines += 1;
                    stats.first_error.get_or_insert_with(|| error.to_string());
                }
            }
        }
        (readings, stats)
    }

    /// The remembered series of a sample; made on first sight. `None` for unknown families.
    fn slot(&mut self, sample: &Sample<'_>, context: &Context<'_>, max: usize, stats: &mut PageStats) -> Option<u32> {
        if let Some(slot) = self.by_text.get(sample.series) {
            return Some(*slot);
        }
        let shape = bind::shape_of(&sample.name)?;
        if self.by_text.len() >= max {
            stats.mapped += 1;
            stats.over_limit += 1;
            return None;
        }
        let bound = bind::bind(context, shape, sample.labels);
        let series = self.remember(bound, shape.rule, shape.part, sample);
        let slot = u32::try_from(self.series.len()).ok()?;
        self.series.push(series);
        self.by_text.insert(Box::from(sample.series), slot);
        Some(slot)
    }

    fn remember(&mut self, bound: Bound, rule: &Rule, part: Part, sample: &Sample<'_>) -> Series {
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
        let is_gauge = rule.forced == Some(crate::exposition::MetricKind::Gauge);
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
    fn group_id(&mut self, rule: &Rule, sample: &Sample<'_>) -> u32 {
        let mut key = String::from(rule.name);
        for label in sample.labels.iter().filter(|label| label.name != "le") {
            key.extend(["\u{1f}", &label.name, "\u{1e}", &label.value]);
        }
        let next = self.groups.len() as u32 + 1;
        *self.groups.entry(key.into_boxed_str()).or_insert(next)
    }

    fn take(&mut self, slot: u32, value: f64, readings: &mut Readings, stats: &mut PageStats) {
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
    pub(super) fn advance(&mut self, readings: &Readings, at: UnixNanos, context: &Context<'_>) -> Advance {
        let sequel = self.sequel(readings);
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
        self.previous = Some(Previous { at, age });
        let edges = interval.map(|interval| self.deltas(sums, interval, context)).unwrap_or_default();
        if self.scrape_number.is_multiple_of(FORGOTTEN_AFTER_SCRAPES) {
            self.forget();
        }
        Advance { interval, edges, proxy }
    }

    fn interval(&self, at: UnixNanos) -> Option<TimeRange> {
        let previous = self.previous?;
        // A clock that was set back yields an empty interval rather than an inverted one.
        TimeRange::new(previous.at.min(at), at)
    }

    fn sequel(&self, readings: &Readings) -> Sequel {
        let Some(previous) = self.previous else { return Sequel::First };
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

    fn deltas(&mut self, sums: HashMap<u32, Sums>, interval: TimeRange, context: &Context<'_>) -> Vec<CounterDelta> {
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
                proxy_kind: context.proxy_kind,
                says_unknown_caller: edge.shape.origin == Origin::Istio && edge.shape.source == Peer::Caller,
                interval,
                counts,
            });
        }
        deltas
    }

    /// Drops series that vanished long ago, and edges nobody counts any more.
    fn forget(&mut self) {
        let horizon = self.scrape_number.saturating_sub(FORGOTTEN_AFTER_SCRAPES);
        let mut kept = Self { scrape_number: self.scrape_number, previous: self.previous, ..Self::default() };
        let mut new_edges: HashMap<u32, u32> = HashMap::new();
        let mut new_groups: HashMap<u32, u32> = HashMap::new();
        let texts = std::mem::take(&mut self.by_text);
        let mut series: Vec<Option<Series>> = std::mem::take(&mut self.series).into_iter().map(Some).collect();
        let mut edges: Vec<Option<Edge>> = std::mem::take(&mut self.edges).into_iter().map(Some).collect();
        for (text, slot) in texts {
            let Some(mut one) = series[slot as usize].take().filter(|one| one.last_scrape > horizon) else { continue };
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
            kept.by_text.insert(text, kept.series.len() as u32);
            kept.series.push(one);
        }
        let groups = std::mem::take(&mut self.groups);
        kept.groups = groups.into_iter().filter_map(|(key, old)| Some((key, *new_groups.get(&old)?))).collect();
        *self = kept;
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

impl Readings {
    fn note_age(&mut self, sample: &Sample<'_>) {
        match sample.name.as_ref() {
            "envoy_server_uptime" => self.age = Some(Age::Uptime(sample.value)),
            // A merged page holds the start times of several processes; Envoy's own word counts.
            "process_start_time_seconds" if self.age.is_none() => self.age = Some(Age::Started(sample.value)),
            _ => {}
        }
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
