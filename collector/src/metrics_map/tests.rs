use std::collections::BTreeMap;
use std::path::Path;

use windrose_proto::model::Reporters;
use windrose_proto::time::{NANOS_PER_SEC, UnixNanos};

use super::{CounterDelta, EdgeCounts, Observation, Options, Page, Peer, TargetIdentity, TargetState, observe};
use crate::exposition::Dialect;

mod counters;
mod mesh;
mod vendors;

/// A target and its state, fed page by page.
struct Scraped {
    identity: TargetIdentity,
    state: TargetState,
    options: Options,
}

impl Scraped {
    fn new(labels: &[(&str, &str)]) -> Self {
        Self {
            identity: TargetIdentity::from_labels(labels.iter().copied()),
            state: TargetState::default(),
            options: Options::default(),
        }
    }

    fn page(&mut self, secs: u64, body: &str) -> Observation {
        self.page_at(UnixNanos(secs * NANOS_PER_SEC), body)
    }

    fn page_at(&mut self, scraped_at: UnixNanos, body: &str) -> Observation {
        let page = Page { body: body.as_bytes(), dialect: Dialect::Text, scraped_at };
        observe(&self.identity, &mut self.state, page, &self.options)
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

fn shared(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path)
}
