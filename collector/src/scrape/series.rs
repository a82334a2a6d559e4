//! What is remembered of one target's series, and how a page becomes a batch of samples.
//!
//! What a line's labels mean, under which labels it is stored and what it counts for is worked out
//! once per line; on a steady page a line costs a hash, a number and a push.
//!
//! Invariants:
//! - a page is one batch: readers see all of it, its `up` included, or nothing;
//! - a series that was stored and is neither on the next page nor at another target gets a
//!   staleness marker, once; one whose page states times gets none, unless asked for;
//! - a page that is refused leaves no trace but `up` 0 and the markers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use windrose_proto::metric::{Exemplar, Labels, Metadata, STALE_MARKER_BITS};
use windrose_proto::time::UnixNanos;
use windrose_proto::wire::CounterBatch;
use windrose_store::metrics::{Append, SeriesRef};

use super::ScrapeReport;
use super::page::{self, FUTURE_MAX_MILLIS, NAME_LABEL, PageCounts, PageError};
use super::pending::PendingSamples;
use super::target::Target;
use crate::exposition::{self, Dialect, Entry, Line, LineId, LineTable, Numbers, PageReader, Series};
use crate::metrics_map::state::FORGOTTEN_AFTER_SCRAPES;
use crate::metrics_map::{self, Observer, Options, Renumbering, TargetState, Use};
use crate::normalise::overrides::Overrides;

#[cfg(test)]
pub(super) mod tests;

/// Most families whose metadata is remembered of one target. An Envoy has about 900.
const FAMILIES_MAX: usize = 20_000;

/// Longest help text kept: some applications put a page of documentation there.
const HELP_MAX_BYTES: usize = 1024;

/// The report series of a scrape, in the order of [`report_values`].
const REPORT_NAMES: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// Those of `extra_scrape_metrics`, in the order of [`extra_values`].
const EXTRA_NAMES: [&str; 3] = ["scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes"];

/// A page of a target.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    pub body: &'a [u8],
    pub dialect: Dialect,
    pub scraped_at: UnixNanos,
}

/// What is remembered of one target.
#[derive(Debug, Default)]
pub struct TargetSeries {
    lines: LineTable<Remembered>,
    counters: TargetState,
    families: BTreeMap<Box<str>, Metadata>,
    /// Families whose metadata the store has not heard.
    untold: Vec<Box<str>>,
    /// Whether the series of the last page have not ended.
    is_live: bool,
    /// How hosts were told apart when the lines were worked out.
    overrides: Option<Arc<Overrides>>,
}

/// What is remembered of one line.
#[derive(Clone, Copy, Debug, Default)]
struct Remembered {
    place: Place,
    counter: Option<Use>,
    /// Hosts were told apart otherwise when `counter` was worked out.
    is_outdated: bool,
    /// The page stated the time of its last sample.
    has_time: bool,
}

/// Where the samples of a line go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Unresolved,
    /// Relabelling dropped it.
    Dropped,
    /// The store refused it. Tried again once in a while.
    Refused,
    Series(SeriesRef),
}

/// What the counters of a page told.
#[derive(Debug, Default)]
pub struct Counted {
    pub counters: Option<CounterBatch>,
    /// Series whose differences are not taken because the target has too many.
    pub series_over_limit: usize,
}

impl TargetSeries {
    /// Reads a page into `append` and takes the differences of its counters.
    ///
    /// # Errors
    /// When a line cannot be read or a limit is exceeded; what `append` holds is to be thrown away.
    pub fn read(
        &mut self,
        target: &Target,
        page: Page<'_>,
        options: &Options,
        append: &mut Append,
    ) -> Result<(PageCounts, Counted), PageError> {
        self.follow(&options.overrides);
        let mut counters = std::mem::take(&mut self.counters);
        let observed = metrics_map::Page { body: page.body, dialect: page.dialect, scraped_at: page.scraped_at };
        let mut observer = Observer::new(&target.identity, &mut counters, observed, options);
        let reader = PageReader::new(page.body, page.dialect, &mut self.lines);
        let mut reading = Reading::new(target, page, append, &mut self.families, &mut self.untold);
        let result = reading.read(reader, Some(&mut observer));
        let (result, renumbering) = match result {
            Ok(counts) => {
                let (observation, renumbering) = observer.finish();
                let counted = Counted {
                    counters: metrics_map::batch::batch(&target.identity, &observation, &options.overrides),
                    series_over_limit: observation.stats.over_limit,
                };
                (Ok((counts, counted)), renumbering)
            }
            Err(error) => (Err(error), observer.abandon()),
        };
        self.counters = counters;
        let (counts, counted) = match result {
            Ok(read) => read,
            Err(error) => {
                if let Some(renumbering) = renumbering {
                    self.lines.memories_mut().for_each(|line| line.renumber(&renumbering));
                }
                return Err(error);
            }
        };
        let pending = std::mem::take(&mut reading.pending);
        let counts = self.resolve(pending, append, counts);
        if self.is_live {
            self.end_vanished(target, page::millis(page.scraped_at), append);
        }
        self.is_live = true;
        self.tell_metadata(append);
        if let Some(renumbering) = renumbering {
            self.forget(&renumbering);
        }
        Ok((counts, counted))
    }

    /// Reads a page that was just read, for another batch: some series had expired
    /// ([`Self::expire`]) while it was.
    ///
    /// # Errors
    /// None in practice: the page was read before.
    pub fn read_again(
        &mut self,
        target: &Target,
        page: Page<'_>,
        append: &mut Append,
    ) -> Result<PageCounts, PageError> {
        let reader = PageReader::again(page.body, page.dialect, &mut self.lines);
        let mut reading = Reading::new(target, page, append, &mut self.families, &mut self.untold);
        let counts = reading.read(reader, None)?;
        let pending = std::mem::take(&mut reading.pending);
        let counts = self.resolve(pending, append, counts);
        self.end_vanished(target, page::millis(page.scraped_at), append);
        self.tell_everything(append);
        Ok(counts)
    }

    /// There is no page, or a bad one: every series ends.
    pub fn fail(&mut self, target: &Target, at: UnixNanos, has_page: bool, append: &mut Append) {
        if !has_page {
            self.lines.begin_page();
        }
        if self.is_live {
            self.end_all(target, at, append);
        }
        self.is_live = false;
    }

    /// The markers of [`Self::fail`] once more, for another batch.
    pub fn end_rest(&self, target: &Target, at: UnixNanos, append: &mut Append) {
        self.end_all(target, at, append);
    }

    /// Ends the series that live, and those of the report: the target is gone.
    pub fn end(&mut self, target: &Target, at: UnixNanos, append: &mut Append) {
        if self.is_live {
            self.end_all(target, at, append);
        }
        self.is_live = false;
        let stale = f64::from_bits(STALE_MARKER_BITS);
        write_report(target, page::millis(at), [stale; REPORT_NAMES.len()], [stale; EXTRA_NAMES.len()], append);
    }

    /// Looks the series up again before they are used.
    pub fn expire(&mut self, expired: &[SeriesRef]) {
        let expired: HashSet<SeriesRef> = expired.iter().copied().collect();
        for line in self.lines.memories_mut() {
            if matches!(line.place, Place::Series(series) if expired.contains(&series)) {
                line.place = Place::Unresolved;
            }
        }
    }

    /// Whether there was a page, so that the next one is likely to hold the same lines.
    #[must_use]
    pub fn knows_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// What the target's pages say about its families.
    #[must_use]
    pub const fn families(&self) -> &BTreeMap<Box<str>, Metadata> {
        &self.families
    }

    /// Names and roles are given to what a page told; which hosts are inside decides what its lines mean.
    fn follow(&mut self, overrides: &Arc<Overrides>) {
        let before = self.overrides.replace(Arc::clone(overrides));
        if before.is_some_and(|before| !Arc::ptr_eq(&before, overrides) && before.hosts != overrides.hosts) {
            self.lines.memories_mut().for_each(|line| line.is_outdated = line.counter.is_some());
        }
    }

    fn resolve(&mut self, mut pending: PendingSamples, append: &mut Append, mut counts: PageCounts) -> PageCounts {
        for sample in pending.take() {
            // Counted by the store with its reason.
            let Ok(series) = append.series_of(&pending.labels(&sample)) else {
                self.lines.memory_mut(sample.line).place = Place::Refused;
                counts.samples_refused += 1;
                continue;
            };
            self.lines.memory_mut(sample.line).place = Place::Series(series);
            append.sample(series, sample.millis, sample.value);
            if let Some(exemplar) = sample.exemplar {
                append.exemplar(series, exemplar);
            }
        }
        counts
    }

    /// Markers for what was on the previous page and is not on this one.
    fn end_vanished(&self, target: &Target, millis: i64, append: &mut Append) {
        let mut vanished = self.lines.vanished().filter_map(|line| line.ends(target)).peekable();
        if vanished.peek().is_none() {
            return;
        }
        // One series may be written in two ways.
        let mut present: HashSet<SeriesRef> = self.lines.present().filter_map(|line| line.series()).collect();
        for series in vanished {
            if present.insert(series) {
                append.sample(series, millis, f64::from_bits(STALE_MARKER_BITS));
            }
        }
    }

    fn end_all(&self, target: &Target, at: UnixNanos, append: &mut Append) {
        let lines = self.lines.present().chain(self.lines.vanished());
        let ending: HashSet<SeriesRef> = lines.filter_map(|line| line.ends(target)).collect();
        for series in ending {
            append.sample(series, page::millis(at), f64::from_bits(STALE_MARKER_BITS));
        }
    }

    fn tell_metadata(&mut self, append: &mut Append) {
        for family in self.untold.drain(..) {
            if let Some(metadata) = self.families.get(&family) {
                append.metadata(&family, metadata);
            }
        }
    }

    /// A batch that was lost may have held metadata; the store knows what it has.
    fn tell_everything(&mut self, append: &mut Append) {
        self.untold.clear();
        for (family, metadata) in &self.families {
            append.metadata(family, metadata);
        }
    }

    /// What vanished long ago goes, what was refused gets another chance.
    fn forget(&mut self, renumbering: &Renumbering) {
        self.lines.forget(FORGOTTEN_AFTER_SCRAPES, |line| {
            line.renumber(renumbering);
            if line.place == Place::Refused {
                line.place = Place::Unresolved;
            }
        });
    }
}

impl Remembered {
    fn renumber(&mut self, renumbering: &Renumbering) {
        self.counter = self.counter.and_then(|counter| renumbering.apply(counter));
    }

    const fn series(&self) -> Option<SeriesRef> {
        match self.place {
            Place::Series(series) => Some(series),
            Place::Unresolved | Place::Dropped | Place::Refused => None,
        }
    }

    /// The series, if it is one that gets a staleness marker.
    fn ends(&self, target: &Target) -> Option<SeriesRef> {
        self.series().filter(|_| !self.has_time || target.pool.track_timestamps_staleness)
    }
}

/// A page being read.
struct Reading<'r> {
    target: &'r Target,
    page: Page<'r>,
    append: &'r mut Append,
    families: &'r mut BTreeMap<Box<str>, Metadata>,
    untold: &'r mut Vec<Box<str>>,
    pending: PendingSamples,
}

impl<'r> Reading<'r> {
    fn new(
        target: &'r Target,
        page: Page<'r>,
        append: &'r mut Append,
        families: &'r mut BTreeMap<Box<str>, Metadata>,
        untold: &'r mut Vec<Box<str>>,
    ) -> Self {
        Self { target, page, append, families, untold, pending: PendingSamples::default() }
    }

    fn read<'p>(
        &mut self,
        mut reader: PageReader<'p, '_, Remembered>,
        mut observer: Option<&mut Observer<'_>>,
    ) -> Result<PageCounts, PageError> {
        let mut counts = PageCounts::default();
        let limit = self.target.pool.limits.sample;
        let latest = page::millis(self.page.scraped_at).saturating_add(FUTURE_MAX_MILLIS);
        let parse_error = |error: exposition::ParseError<'p>| PageError::Parse(error.to_string());
        while let Some(line) = reader.next_line().map_err(parse_error)? {
            let (line, text, numbers) = match line {
                Line::Sample { line, series, numbers } => (line, series, numbers),
                Line::Metadata(entry) => {
                    self.note_metadata(&entry);
                    continue;
                }
            };
            counts.samples += 1;
            counts.series_added += usize::from(reader.is_newcomer());
            let memory = reader.memory(line);
            if let Some(observer) = observer.as_deref_mut() {
                let counter = match memory.counter {
                    Some(counter) => {
                        if std::mem::take(&mut memory.is_outdated) {
                            observer.admit_again(counter, &parse(text, self.page.dialect)?);
                        }
                        counter
                    }
                    None => *memory.counter.insert(observer.admit(&parse(text, self.page.dialect)?)),
                };
                observer.take(counter, numbers.value);
            }
            memory.has_time = self.target.pool.honor_timestamps && numbers.timestamp_millis.is_some();
            let is_kept = self.take(line, memory, text, &numbers, latest, &mut counts)?;
            counts.samples_kept += usize::from(is_kept);
            if limit != 0 && counts.samples_kept > limit {
                return Err(PageError::SampleLimit(limit));
            }
        }
        Ok(counts)
    }

    /// Takes one sample; returns whether relabelling keeps it.
    #[inline]
    fn take(
        &mut self,
        line: LineId,
        memory: &mut Remembered,
        text: &str,
        numbers: &Numbers<'_>,
        latest: i64,
        counts: &mut PageCounts,
    ) -> Result<bool, PageError> {
        let millis = page::sample_millis(self.target, numbers.timestamp_millis, self.page.scraped_at);
        if millis > latest {
            counts.samples_too_new += 1;
            return Ok(true);
        }
        match memory.place {
            Place::Series(series) => {
                self.append.sample(series, millis, numbers.value);
                if let Some(exemplar) = &numbers.exemplar {
                    self.append.exemplar(series, exemplar_of(exemplar, millis));
                }
            }
            Place::Dropped => return Ok(false),
            Place::Refused => counts.samples_refused += 1,
            Place::Unresolved => {
                let Some(labels) = page::series_labels(self.target, &parse(text, self.page.dialect)?)? else {
                    memory.place = Place::Dropped;
                    return Ok(false);
                };
                page::check_labels(self.target, &labels)?;
                let exemplar = numbers.exemplar.as_ref().map(|exemplar| exemplar_of(exemplar, millis));
                self.pending.push(line, &labels, (millis, numbers.value), exemplar);
            }
        }
        Ok(true)
    }

    fn note_metadata(&mut self, entry: &Entry<'_>) {
        let (family, change): (&str, &dyn Fn(&mut Metadata)) = match entry {
            Entry::Sample(_) => return,
            Entry::Type { family, kind } => (family, &|metadata| metadata.kind = *kind),
            Entry::Help { family, text } => (family, &|metadata| metadata.help = cut(text)),
            Entry::Unit { family, unit } => (family, &|metadata| metadata.unit = cut(unit)),
        };
        if self.families.len() >= FAMILIES_MAX && !self.families.contains_key(family) {
            return;
        }
        let metadata = self.families.entry(Box::from(family)).or_default();
        let before = metadata.clone();
        change(metadata);
        if *metadata != before && self.untold.last().is_none_or(|last| **last != *family) {
            self.untold.push(Box::from(family));
        }
    }
}

fn parse(text: &str, dialect: Dialect) -> Result<Series<'_>, PageError> {
    Series::parse(text, dialect).map_err(|error| PageError::Parse(error.as_str().to_owned()))
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(HELP_MAX_BYTES)].to_owned()
}

fn exemplar_of(exemplar: &exposition::Exemplar<'_>, sample_millis: i64) -> Exemplar {
    let labels = exemplar.labels.iter().map(|label| (label.name, label.value));
    Exemplar {
        labels: Labels::from_pairs(labels),
        value: exemplar.value,
        timestamp: exemplar.timestamp_millis.unwrap_or(sample_millis),
    }
}

/// Adds `up` and its companions to the batch of a scrape.
pub fn report(target: &Target, report: &ScrapeReport, append: &mut Append) {
    let counts = report.counts;
    let values = [
        f64::from(u8::from(report.is_up())),
        report.duration.as_secs_f64(),
        counts.samples as f64,
        counts.samples_kept as f64,
        counts.series_added as f64,
    ];
    let extra = [target.timeout.as_secs_f64(), target.pool.limits.sample as f64, report.body_bytes as f64];
    write_report(target, page::millis(report.scraped_at), values, extra, append);
}

fn write_report(
    target: &Target,
    millis: i64,
    values: [f64; REPORT_NAMES.len()],
    extra: [f64; EXTRA_NAMES.len()],
    append: &mut Append,
) {
    let extra_count = if target.pool.extra_scrape_metrics { EXTRA_NAMES.len() } else { 0 };
    let series = REPORT_NAMES.into_iter().zip(values).chain(EXTRA_NAMES.into_iter().zip(extra).take(extra_count));
    for (name, value) in series {
        let mut labels: Vec<(&str, &str)> = vec![(NAME_LABEL, name)];
        labels.extend(target.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        labels.sort_unstable();
        // Refusals are counted by the store.
        if let Ok(series) = append.series_of(&labels) {
            append.sample(series, millis, value);
        }
    }
}
