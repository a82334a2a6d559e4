//! Counters that proxies push, attached to edges like those of scraped pages.
//!
//! A push is put together to a page of lines ([`PushedPage`]) and read by the same [`Observer`] against
//! what was remembered of the sender ([`PushedProxies`]), so that a family means the same whichever way
//! it came. What differs from scraping:
//!
//! | | |
//! |---|---|
//! | who sends | the resource says ([`TargetIdentity::from_resource`]); a sender that cannot be told from its replicas is not attached, their counters would be taken for one that jumps |
//! | the same proxy is scraped too | the scraped page counts, the push only keeps its place, so that nothing is told twice |
//! | differences instead of totals | they are added up, so that both are read the same way |
//! | the first push | as with pages nothing is known from before, unless what is pushed began after this process did, or tells differences |
//! | order | a push that is earlier than the last one, or the same once more, is left out; one that came in parts is put together by its time |
//!
//! Memory: at most `PROXIES_MAX` senders and `SERIES_MAX` series of all of them. A sender that was
//! silent for `FORGOTTEN_AFTER` makes room.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use windrose_proto::metric::labels::METRIC_NAME;
use windrose_proto::span::Resource;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_proto::wire::CounterBatch;

use super::state::FORGOTTEN_AFTER_SCRAPES;
use super::{Observation, Observer, Options, Page, TargetIdentity, TargetState, Use, batch, bind};
use crate::decode::Stat;
use crate::exposition::{Dialect, LineTable, Series};
use crate::normalise::overrides::Overrides;

#[cfg(test)]
mod tests;

/// Most senders remembered.
const PROXIES_MAX: usize = 10_000;

/// Most series remembered of all senders. An Envoy pushes about 400, at some 250 bytes each: 125 MB.
const SERIES_MAX: usize = 500_000;

/// A sender that was silent for so long may be forgotten; flushes are seconds to minutes apart.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// A sender that started so long after this process did was never read by an earlier one. Clocks of two
/// hosts differ by less.
const NEW_AFTER: Duration = Duration::from_secs(60);

/// What one push of one resource holds of counters, as a page.
#[derive(Debug)]
pub struct PushedPage {
    resource: Arc<Resource>,
    text: String,
    lines: Vec<Line>,
    /// The latest time of its points.
    at: UnixNanos,
    /// Since when the oldest of them counts.
    start: Option<UnixNanos>,
    has_deltas: bool,
}

#[derive(Debug)]
struct Line {
    /// The series, in the text of the page.
    series: Range<usize>,
    value: f64,
    is_delta: bool,
}

/// The pages of one request.
#[derive(Debug, Default)]
pub struct PushedPages(Vec<PushedPage>);

/// What is remembered of everybody who pushes.
#[derive(Debug)]
pub struct PushedProxies {
    proxies: HashMap<(TenantId, TargetIdentity), Proxy>,
    series: usize,
    /// When this process began to listen.
    since: UnixNanos,
}

/// Why a push is not attached to edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unattached {
    /// Its resource names no service, or nothing that tells it from its replicas.
    Unnamed,
    /// The proxy is scraped, and its pages count.
    Scraped,
    /// It came after a later one, or twice.
    Late,
    /// Too many proxies push.
    TooMany,
}

/// What is remembered of one sender.
#[derive(Debug)]
struct Proxy {
    lines: LineTable<Remembered>,
    counters: TargetState,
    /// How hosts were told apart when its lines were read.
    overrides: Arc<Overrides>,
    last: UnixNanos,
    was_scraped: bool,
}

#[derive(Debug, Default)]
struct Remembered {
    counter: Option<Use>,
    /// Of its differences.
    total: f64,
    /// The time of the page that held it last.
    seen: UnixNanos,
}

/// What a reading takes of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    /// What was there at the start: differences of nothing, totals as they are or, of a new process,
    /// nothing at all.
    Start {
        is_new: bool,
    },
    Now,
}

/// The name of the page's line for a pushed metric, if edges are made of it: letters that a page's names
/// cannot have are underscores. Envoy's sink has a prefix only if it is given one.
#[must_use]
pub fn page_name(metric: &str, is_counter: bool) -> Option<String> {
    let spelled: String = metric.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let is_read = |name: &str| name == "envoy_server_uptime" || bind::shape_of(name).is_some();
    let of_envoy = || ["cluster_", "http_", "server_"].iter().any(|group| spelled.starts_with(group));
    [
        Some(spelled.clone()),
        is_counter.then(|| format!("{spelled}_total")),
        of_envoy().then(|| format!("envoy_{spelled}")),
    ]
    .into_iter()
    .flatten()
    .find(|name| is_read(name))
}

// === impl PushedPages ===

impl PushedPages {
    /// Takes a line; returns what it occupies. Lines of one resource follow each other.
    pub fn push(&mut self, resource: &Arc<Resource>, stat: &Stat<'_>) -> usize {
        let is_next = self.0.last().is_none_or(|page| !Arc::ptr_eq(&page.resource, resource));
        if is_next {
            self.0.push(PushedPage::new(Arc::clone(resource)));
        }
        self.0.last_mut().map_or(0, |page| page.push(stat))
    }

    /// Whether nothing of the request counts for edges.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for PushedPages {
    type Item = PushedPage;
    type IntoIter = std::vec::IntoIter<PushedPage>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

// === impl PushedPage ===

impl PushedPage {
    fn new(resource: Arc<Resource>) -> Self {
        let (text, lines) = (String::new(), Vec::new());
        Self { resource, text, lines, at: UnixNanos::ZERO, start: None, has_deltas: false }
    }

    fn push(&mut self, stat: &Stat<'_>) -> usize {
        let begin = self.text.len();
        let (mut name, mut separator) = ("", '{');
        for (label, value) in &stat.labels {
            if *label == METRIC_NAME {
                name = value;
            }
        }
        self.text.push_str(name);
        for (label, value) in stat.labels.iter().filter(|(label, _)| *label != METRIC_NAME) {
            self.text.push(separator);
            self.text.push_str(label);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, value);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let series = begin..self.text.len();
        self.text.push_str(&format!(" {}\n", stat.value));
        self.lines.push(Line { series, value: stat.value, is_delta: stat.is_delta });
        self.at = self.at.max(stat.time);
        self.start = [self.start, stat.start].into_iter().flatten().min();
        self.has_deltas |= stat.is_delta;
        self.text.len() - begin + size_of::<Line>()
    }
}

/// As pages write the values of labels.
fn push_escaped(text: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

// === impl PushedProxies ===

impl PushedProxies {
    /// Nobody yet; the process listens `since` then.
    #[must_use]
    pub fn new(since: UnixNanos) -> Self {
        Self { proxies: HashMap::new(), series: 0, since }
    }

    /// What a page says about edges since the last one of its sender; `None` when that is nothing, or
    /// cannot be known yet.
    ///
    /// # Errors
    /// Why it is not attached.
    pub fn take(
        &mut self,
        tenant: &TenantId,
        page: &PushedPage,
        options: &Options,
        is_scraped: impl FnOnce(&TargetIdentity) -> bool,
    ) -> Result<Option<CounterBatch>, Unattached> {
        let mut identity = TargetIdentity::from_resource(&page.resource.attributes).ok_or(Unattached::Unnamed)?;
        let key = (tenant.clone(), identity.clone());
        if let Some(role) = options.overrides.role_of(&identity.service) {
            identity.role = Some(role);
        }
        if !self.proxies.contains_key(&key) {
            self.make_room(page.at)?;
        }
        let room = SERIES_MAX.saturating_sub(self.series);
        let since = self.since;
        let proxy = match self.proxies.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(Proxy::new(&options.overrides)),
        };
        if page.at < proxy.last {
            return Err(Unattached::Late);
        }
        proxy.follow(&options.overrides);
        let before = proxy.lines.len();
        let options = Options { series_max: options.series_max.min(before + room), ..options.clone() };
        let read = proxy.read(&identity, page, &options, since);
        self.series = self.series + proxy.lines.len() - before;
        let observation = read.ok_or(Unattached::Late)?;
        let is_scraped = is_scraped(&identity);
        // The interval in which scraping ended is the page's and the push's.
        if std::mem::replace(&mut proxy.was_scraped, is_scraped) || is_scraped {
            return Err(Unattached::Scraped);
        }
        Ok(batch::batch(&identity, &observation, &options.overrides))
    }

    fn make_room(&mut self, now: UnixNanos) -> Result<(), Unattached> {
        let horizon = now.minus(FORGOTTEN_AFTER);
        self.proxies.retain(|_, proxy| proxy.last >= horizon);
        self.series = self.proxies.values().map(|proxy| proxy.lines.len()).sum();
        if self.proxies.len() < PROXIES_MAX { Ok(()) } else { Err(Unattached::TooMany) }
    }
}

// === impl Proxy ===

impl Proxy {
    fn new(overrides: &Arc<Overrides>) -> Self {
        Self {
            lines: LineTable::default(),
            counters: TargetState::default(),
            overrides: Arc::clone(overrides),
            last: UnixNanos::ZERO,
            was_scraped: false,
        }
    }

    /// Which hosts are inside decides what lines mean: when that changes, the next page is the first again.
    fn follow(&mut self, overrides: &Arc<Overrides>) {
        let before = std::mem::replace(&mut self.overrides, Arc::clone(overrides));
        if !Arc::ptr_eq(&before, overrides) && before.hosts != overrides.hosts {
            (self.lines, self.counters) = (LineTable::default(), TargetState::default());
        }
    }

    /// `None` when nothing of the page is new.
    fn read(
        &mut self,
        identity: &TargetIdentity,
        page: &PushedPage,
        options: &Options,
        since: UnixNanos,
    ) -> Option<Observation> {
        let is_first = self.lines.is_empty();
        if is_first && let Some(start) = page.start {
            let is_new = start >= since.plus(NEW_AFTER);
            if is_new || page.has_deltas {
                self.read_part(identity, page, start, options, Take::Start { is_new });
            }
        }
        self.last = page.at;
        self.read_part(identity, page, page.at, options, Take::Now)
    }

    fn read_part(
        &mut self,
        identity: &TargetIdentity,
        page: &PushedPage,
        at: UnixNanos,
        options: &Options,
        take: Take,
    ) -> Option<Observation> {
        let body = Page { body: page.text.as_bytes(), dialect: Dialect::Text, scraped_at: at };
        let mut observer = Observer::new(identity, &mut self.counters, body, options);
        // Differences go on over a restart, so their sums must not be taken for a new process' totals.
        if let Some(start) = page.start.filter(|_| !page.has_deltas) {
            observer.take(Use::Started, start.as_secs_f64());
        }
        self.lines.begin_page();
        let mut is_news = false;
        for line in &page.lines {
            let text = &page.text[line.series.clone()];
            let Some(id) = self.lines.find(text).or_else(|| {
                let is_room = self.lines.len() < options.series_max;
                is_room.then(|| self.lines.insert(text, Remembered::default())).flatten()
            }) else {
                continue;
            };
            let remembered = self.lines.memory_mut(id);
            if take == Take::Now && std::mem::replace(&mut remembered.seen, at) == at {
                continue;
            }
            is_news = true;
            let value = match take {
                Take::Start { .. } if line.is_delta => 0.0,
                Take::Start { is_new: true } => continue,
                Take::Now if line.is_delta => {
                    remembered.total += line.value;
                    remembered.total
                }
                Take::Start { is_new: false } | Take::Now => line.value,
            };
            let counter = match remembered.counter {
                Some(counter) => counter,
                None => {
                    let Ok(series) = Series::parse(text, Dialect::Text) else { continue };
                    *remembered.counter.insert(observer.admit(&series))
                }
            };
            let is_age = matches!(counter, Use::Uptime | Use::Started);
            if !(is_age && page.has_deltas) {
                observer.take(counter, value);
            }
        }
        if !is_news {
            let _unchanged = observer.abandon();
            return None;
        }
        let (observation, renumbering) = observer.finish();
        if let Some(renumbering) = renumbering {
            self.lines.forget(FORGOTTEN_AFTER_SCRAPES, |line| {
                line.counter = line.counter.and_then(|counter| renumbering.apply(counter));
            });
        }
        Some(observation)
    }
}

// === impl Unattached ===

impl Unattached {
    /// Every value, in declaration order.
    pub const ALL: &'static [Self] = &[Self::Unnamed, Self::Scraped, Self::Late, Self::TooMany];

    /// The word used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unnamed => "unnamed",
            Self::Scraped => "scraped",
            Self::Late => "late",
            Self::TooMany => "too_many",
        }
    }
}
