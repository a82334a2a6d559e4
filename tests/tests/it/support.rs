//! Steps that several tests share.

use std::collections::BTreeMap;
use std::time::Duration;

use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::client::Http;
use windrose_tests::judge;
use windrose_tests::server::TestServer;
use windrose_tests::topology::{Topology, Window};
use windrose_tests::truth::{EdgeTruth, Pair};
use windrose_tests::wait::until;

/// An edge must show 2 s after its span; a debug build that shares two cores with other tests gets more.
pub(crate) const SHOWN_WITHIN: Duration = Duration::from_secs(30);

/// A window that holds everything that was sent in the last minutes.
pub(crate) fn window() -> Window {
    Window::around(SystemClock.now(), Duration::from_secs(600))
}

/// Asks for the topology of a window until its edges equal the truth, and returns that answer.
#[track_caller]
pub(crate) fn topology_of(
    http: &Http,
    window: Window,
    truth: &BTreeMap<Pair, EdgeTruth>,
) -> impl Future<Output = Topology> {
    until("the topology to equal the truth", SHOWN_WITHIN, async move || {
        let answer = Topology::fetch(http, &window.parameters()).await?;
        judge::verdict(&judge::edges(&answer, truth))?;
        Ok::<_, String>(answer)
    })
}

/// Every span that was stored is used for something, or named with the reason why not.
pub(crate) async fn accounted(server: &TestServer) {
    until("every stored span to be accounted for", SHOWN_WITHIN, async || {
        let uses = server.sum_of("windrose_join_span_uses").await;
        let stored = server.metric("windrose_join_stored_spans_total").await;
        if stored > 0.0 && uses == stored { Ok(()) } else { Err(format!("{stored} stored, {uses} used")) }
    })
    .await;
}
