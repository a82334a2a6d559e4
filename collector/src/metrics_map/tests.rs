use std::collections::BTreeMap;

use windrose_proto::model::Reporters;
use windrose_proto::time::{NANOS_PER_SEC, UnixNanos};

use super::state::FORGOTTEN_AFTER_SCRAPES;
use super::{CounterDelta, EdgeCounts, Observation, Observer, Options, Page, Peer, TargetIdentity, TargetState, Use};
use crate::exposition::{Dialect, Line, LineTable, PageReader, Series};

mod counters;
mod families;
mod mesh;
mod pages;
mod vendors;

/// A target and its state, fed page by page.
struct Scraped {
    identity: TargetIdentity,
    lines: LineTable<Option<Use>>,
    state: TargetState,
    options: Options,
}

impl Scraped {
    fn new(labels: &[(&str, &str)]) -> Self {
        Self {
            identity: TargetIdentity::from_labels(labels.iter().copied()),
            lines: LineTable::default(),
            state: TargetState::default(),
            options: Options::default(),
        }
    }

    fn page(&mut self, secs: u64, body: &str) -> Observation {
        self.page_at(UnixNanos(secs * NANOS_PER_SEC), body)
    }

    fn page_at(&mut self, scraped_at: UnixNanos, body: &str) -> Observation {
        self.try_page(scraped_at, body).unwrap()
    }

    /// As the scraper does it: a page with a bad line has never been there.
    fn try_page(&mut self, scraped_at: UnixNanos, body: &str) -> Result<Observation, String> {
        let page = Page { body: body.as_bytes(), dialect: Dialect::Text, scraped_at };
        let mut reader = PageReader::new(page.body, page.dialect, &mut self.lines);
        let mut observer = Observer::new(&self.identity, &mut self.state, page, &self.options);
        let mut read = || -> Result<(), String> {
            while let Some(line) = reader.next_line().map_err(|error| error.to_string())? {
                let Line::Sample { line, series, numbers } = line else { continue };
                let memory = reader.memory(line);
                let series = || Series::parse(series, page.dialect).unwrap();
                let line = *memory.get_or_insert_with(|| observer.admit(&series()));
                observer.take(line, numbers.value);
            }
            Ok(())
        };
        if let Err(error) = read() {
            if let Some(renumbering) = observer.abandon() {
                self.lines.memories_mut().for_each(|line| *line = line.and_then(|line| renumbering.apply(line)));
            }
            return Err(error);
        }
        let (observation, renumbering) = observer.finish();
        if let Some(renumbering) = renumbering {
            self.lines.forget(FORGOTTEN_AFTER_SCRAPES, |line| *line = line.and_then(|line| renumbering.apply(line)));
        }
        Ok(observation)
    }
}

fn name_of(peer: &Peer) -> String {
    match peer {
        Peer::Caller => "(caller)".to_owned(),
        Peer::Node(node) => match &node.namespace {
            Some(namespace) => format!("{}.{namespace}", node.service),
            None => node.service.to_string(),
        },
    }
}

/// `client orders.shop->users.shop`
fn title(delta: &CounterDelta) -> String {
    format!("{} {}->{}", delta.reporter, name_of(&delta.source), name_of(&delta.destination))
}

fn codes(counts: &EdgeCounts) -> String {
    let parts: Vec<String> = counts.by_code.iter().map(|(code, count)| format!("{code}:{count}")).collect();
    parts.join(" ")
}

/// Sums over pages and subsets, by title.
fn total(deltas: &[CounterDelta]) -> BTreeMap<String, EdgeCounts> {
    let mut sums: BTreeMap<String, EdgeCounts> = BTreeMap::new();
    for delta in deltas {
        let sum = sums.entry(title(delta)).or_default();
        let add = &delta.counts;
        sum.answered += add.answered;
        sum.aborted += add.aborted;
        sum.errors += add.errors;
        sum.proxy_faults += add.proxy_faults;
        sum.attempts += add.attempts;
        sum.retries += add.retries;
        sum.retries_succeeded += add.retries_succeeded;
        sum.retries_exhausted += add.retries_exhausted;
        sum.timeouts += add.timeouts;
        sum.circuit_rejected += add.circuit_rejected;
        sum.connect_failures += add.connect_failures;
        sum.tls_known += add.tls_known;
        sum.tls_mutual += add.tls_mutual;
        for (code, count) in &add.by_code {
            *sum.by_code.entry(code.clone()).or_default() += count;
        }
        for (reason, count) in &add.reasons {
            *sum.reasons.entry(reason.clone()).or_default() += count;
        }
        if let Some(duration) = &add.duration {
            let into = sum.duration.get_or_insert_default();
            into.sum += duration.sum;
            into.count += duration.count;
        }
    }
    sums
}
