//! Senders that push at the same time, each waiting for its acknowledgements, and remember which requests were
//! acknowledged: what must then be there, once, whatever happened to the server meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use windrose_proto::time::{Clock as _, SystemClock};

use crate::client::Http;
use crate::replay::{connect, export};
use crate::server::TestServer;
use crate::synthetic::{Request, SPANS_PER_REQUEST};
use crate::topology::{Topology, Window};
use crate::wait::{pause, until};

/// Group commits carry several of them.
const SENDERS: usize = 8;
/// A span must be in answers 2 s after its acknowledgement; a debug build that shares two cores gets more.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);
/// How a server says that it has no room, in the status that the client prints.
const NO_ROOM: &str = "ResourceExhausted";
/// What a sender waits that was told to come back: less than it was told, so that a test need not.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Pushes requests with growing numbers. Clones share what they remember.
#[derive(Clone, Debug, Default)]
pub struct Senders {
    /// Where the numbers of the requests begin.
    first: u64,
    /// How many were begun.
    begun: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
    told_to_come_back: Arc<AtomicU64>,
}

impl Senders {
    /// Whose requests have numbers from `first` on, so that no others have them.
    #[must_use]
    pub fn numbered_from(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Starts senders that push until the server goes away. Those that are told to come back do, with the same request.
    #[must_use]
    pub fn start(&self, server: &TestServer) -> JoinSet<()> {
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let (own, client) = (self.clone(), connect(server.ports().otlp_grpc));
            senders.spawn(async move {
                loop {
                    let number = own.first + own.begun.fetch_add(1, Ordering::SeqCst);
                    let request = Request::new(number, SystemClock.now().minus(Duration::from_secs(1))).export();
                    while let Err(refusal) = export(client.clone(), request.clone()).await {
                        if !refusal.contains(NO_ROOM) && !refusal.contains("resource has been exhausted") {
                            return;
                        }
                        own.told_to_come_back.fetch_add(1, Ordering::SeqCst);
                        pause(RETRY_AFTER).await;
                    }
                    own.acknowledged.lock().await.insert(number);
                }
            });
        }
        senders
    }

    /// How many requests were acknowledged.
    pub async fn acknowledged(&self) -> usize {
        self.acknowledged.lock().await.len()
    }

    /// How often a sender was told to come back later.
    #[must_use]
    pub fn told_to_come_back(&self) -> u64 {
        self.told_to_come_back.load(Ordering::SeqCst)
    }

    /// Waits until so many more were acknowledged.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn acknowledged_more(&self, more: usize) {
        let before = self.acknowledged().await;
        until("acknowledgements", SHOWN_WITHIN, async || {
            let now = self.acknowledged().await;
            if now >= before + more { Ok(()) } else { Err(format!("{} acknowledged", now - before)) }
        })
        .await;
    }

    /// What was sent so far, and what of it was acknowledged.
    pub async fn sent(&self) -> Sent {
        let end = self.first + self.begun.load(Ordering::SeqCst);
        Sent { begun: (self.first..end).collect(), acknowledged: self.acknowledged.lock().await.clone() }
    }
}

/// Requests by number: what must be in a store, and what may.
#[derive(Clone, Debug)]
pub struct Sent {
    begun: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
}

impl Sent {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.begun.extend(other.begun);
        self.acknowledged.extend(other.acknowledged);
        self
    }

    /// Every acknowledged span is stored and none twice, by ids. Returns how many requests are stored: those too whose
    /// acknowledgement was lost with the server.
    ///
    /// # Panics
    /// When a span is lost or doubled.
    pub async fn all_stored_once(&self, http: &Http) -> usize {
        let acknowledged = &self.acknowledged;
        const QUERY: &str =
            "SELECT trace_id, count(*) AS spans, count(DISTINCT span_id) AS ids FROM spans GROUP BY trace_id";
        let stored = until("every acknowledged span to be stored", SHOWN_WITHIN, async || {
            let rows = http.sql(QUERY).await;
            let stored: BTreeSet<String> =
                rows.iter().filter(|row| row["ids"] == SPANS_PER_REQUEST).map(trace_id).collect();
            let lacking = acknowledged.iter().filter(|number| !stored.contains(&trace_hex(**number))).count();
            if lacking == 0 {
                Ok(rows)
            } else {
                Err(format!("{lacking} of {} acknowledged lack spans", acknowledged.len()))
            }
        })
        .await;
        let doubled = stored.iter().find(|row| row["spans"] != row["ids"]);
        assert_eq!(doubled, None, "a span is there twice");
        let sent: BTreeSet<String> = self.begun.iter().copied().map(trace_hex).collect();
        let invented = stored.iter().find(|row| !sent.contains(&trace_id(row)));
        assert_eq!(invented, None, "a trace that was never sent");
        stored.len()
    }

    /// The same by table, by trace and by edge.
    ///
    /// # Panics
    /// When an answer lacks or doubles anything.
    pub async fn all_answered_once(&self, http: &Http) {
        let stored = self.all_stored_once(http).await;
        for number in &self.acknowledged {
            let trace = http.data(&format!("/api/v1/traces/{}", trace_hex(*number))).await;
            let spans: Vec<&Value> =
                trace["spans"].as_array().into_iter().flatten().map(|span| &span["span_id"]).collect();
            let distinct: BTreeSet<String> = spans.iter().map(ToString::to_string).collect();
            assert_eq!((spans.len(), distinct.len()), (SPANS_PER_REQUEST, SPANS_PER_REQUEST), "{trace}");
        }
        self.edges_count_once(http, stored).await;
    }

    /// Each stored request is one call of each of its two edges.
    ///
    /// # Panics
    /// When that does not become true.
    pub async fn edges_count_once(&self, http: &Http, requests: usize) {
        let window = Window::around(SystemClock.now(), Duration::from_secs(3_600));
        until("the edges to count every stored request once", SHOWN_WITHIN, async || {
            let answer = Topology::fetch(http, &window.parameters()).await?;
            let calls: Vec<u64> = answer.edges().values().map(|edge| edge.calls()).collect();
            if calls == [requests as u64; 2] { Ok(()) } else { Err(format!("{calls:?} calls of {requests} requests")) }
        })
        .await;
    }
}

fn trace_hex(number: u64) -> String {
    Request::new(number, SystemClock.now()).trace_hex()
}

fn trace_id(row: &Value) -> String {
    row["trace_id"].as_str().expect("a trace id").to_owned()
}
