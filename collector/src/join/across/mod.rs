//! What one trace can tell about another: whose an address is (S4), and which request of a gateway
//! a trace without one goes on with (L1, L2).
//!
//! A trace asks, the books answer, and the answer is stored with the trace as a fact
//! (`normalise/fact.rs`). Whoever asked is told again when an answer changes, so that the facts in
//! the end are a function of the *set* of spans received, whatever their order. Two bounds limit
//! that, and both are counted: what is kept ([`KEPT`], per book) and how many ask.
//!
//! | file | what |
//! |---|---|
//! | `addresses.rs` | who had which address from when to when |
//! | `requests.rs` | requests of gateways by their request id |

mod addresses;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use windrose_proto::Text;
use windrose_proto::hop::{Derived, Question};
use windrose_proto::id::TraceId;
use windrose_proto::normal::{Fact, NormalSpan};
use windrose_proto::time::UnixNanos;

use addresses::AddressBook;
use requests::RequestBook;

/// How long a question stays open and a request can be gone on with. Spans of one request come
/// within seconds; ten minutes is what the longest exporters' retries take.
pub(super) const KEPT: Duration = Duration::from_secs(600);

/// Questions open at a time; about 150 bytes each. Beyond it the oldest go unanswered.
const ASKED_MAX: usize = 100_000;

/// How often what is no longer needed is thrown away.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Address(IpAddr),
    Request(Text),
}

/// A trace that asked, and what it was told last.
#[derive(Debug)]
struct Asker {
    question: Question,
    told: Option<Fact>,
}

/// What the books hold and gave up, for the process' own metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcrossCounts {
    pub addresses: usize,
    pub requests: usize,
    pub questions: usize,
    /// Addresses and requests that found no place, and questions forgotten for lack of it.
    pub refused: u64,
}

/// Knowledge of all traces of one tenant.
#[derive(Debug, Default)]
pub(super) struct Across {
    addresses: AddressBook,
    requests: RequestBook,
    askers: HashMap<Topic, HashMap<TraceId, Asker>>,
    /// In the order in which they were asked.
    asked: VecDeque<(UnixNanos, Topic, TraceId)>,
    /// Topics with askers of which something new was learned.
    news: HashSet<Topic>,
    questions_refused: u64,
    next_sweep: UnixNanos,
}

impl Across {
    /// Learns from a span whose address its process has.
    pub(super) fn see(&mut self, span: &NormalSpan) {
        let Some(ip) = self.addresses.see(span) else { return };
        if !self.askers.is_empty() {
            self.note_news(Topic::Address(ip));
        }
    }

    /// Whose addresses are whose is learned anew: those who have them go by other names now.
    pub(super) fn forget_names(&mut self) {
        self.addresses.forget();
    }

    /// Learns from a derived trace: a request that entered by a gateway may go on in another trace.
    pub(super) fn offer(&mut self, derived: &Derived, now: UnixNanos) {
        if let Some(request_id) = self.requests.offer(derived, now) {
            self.note_news(Topic::Request(request_id));
        }
    }

    fn note_news(&mut self, topic: Topic) {
        if self.askers.contains_key(&topic) {
            self.news.insert(topic);
        }
    }

    /// What is known now. `None` when nothing is: then nothing should be concluded.
    pub(super) fn ask(&mut self, trace: TraceId, question: &Question, now: UnixNanos) -> Option<Fact> {
        let fact = self.answer(trace, question);
        let topic = topic_of(question);
        let askers = self.askers.entry(topic.clone()).or_default();
        if askers.insert(trace, Asker { question: question.clone(), told: fact.clone() }).is_none() {
            self.asked.push_back((now, topic, trace));
        }
        if self.asked.len() > ASKED_MAX {
            self.questions_refused += 1;
            self.forget_oldest();
        }
        fact
    }

    fn answer(&self, trace: TraceId, question: &Question) -> Option<Fact> {
        match question {
            Question::Address { ip, at } => {
                let node = self.addresses.owner(*ip, *at)?;
                Some(Fact::Address { ip: *ip, node: node.ok() })
            }
            Question::Entry { request_id, service, at } => {
                let link = self.requests.link(request_id, trace, service, *at)?;
                Some(Fact::Entry { link: link.ok() })
            }
        }
    }

    /// Whose answer is another one than it was, ordered by trace.
    pub(super) fn take_news(&mut self) -> Vec<(TraceId, Question, Fact)> {
        let mut told = Vec::new();
        for topic in std::mem::take(&mut self.news) {
            let Some(mut askers) = self.askers.remove(&topic) else { continue };
            for (trace, asker) in &mut askers {
                let fact = self.answer(*trace, &asker.question);
                if let Some(fact) = fact.filter(|fact| Some(fact) != asker.told.as_ref()) {
                    asker.told = Some(fact.clone());
                    told.push((*trace, asker.question.clone(), fact));
                }
            }
            self.askers.insert(topic, askers);
        }
        told.sort_by_key(|(trace, question, _)| (*trace, crate::normalise::fact::span_id(question)));
        told
    }

    /// Throws away what is older than needed; cheap when called often.
    pub(super) fn sweep(&mut self, now: UnixNanos) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now.plus(SWEEP_EVERY);
        let oldest = now.minus(KEPT);
        while self.asked.front().is_some_and(|(asked, ..)| *asked < oldest) {
            self.forget_oldest();
        }
        self.addresses.sweep(now);
        self.requests.sweep(oldest);
    }

    fn forget_oldest(&mut self) {
        let Some((_, topic, trace)) = self.asked.pop_front() else { return };
        let Some(askers) = self.askers.get_mut(&topic) else { return };
        askers.remove(&trace);
        if askers.is_empty() {
            self.askers.remove(&topic);
        }
    }

    pub(super) fn counts(&self) -> AcrossCounts {
        AcrossCounts {
            addresses: self.addresses.len(),
            requests: self.requests.len(),
            questions: self.asked.len(),
            refused: self.addresses.refused() + self.requests.refused() + self.questions_refused,
        }
    }
}

fn topic_of(question: &Question) -> Topic {
    match question {
        Question::Address { ip, .. } => Topic::Address(*ip),
        Question::Entry { request_id, .. } => Topic::Request(request_id.clone()),
    }
}
