//! Recorded traffic under every disturbance of a network: shuffled, doubled, late, with clocks that
//! differ, and with spans that never come. What the joiner shows in the end is compared with what
//! the client and the applications logged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hashbrown::HashMap;
use windrose_collector::join::joiner::{JoinCounts, JoinLimits, Joiner, NothingSealed};
use windrose_collector::normalise::Normaliser;
use windrose_proto::hop::{Hop, UNKNOWN_NODE};
use windrose_proto::id::TraceId;
use windrose_proto::model::Direction;
use windrose_proto::span::Span;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_store::store::Store;

use crate::mesh::{check_edges, edges_of, repository_capture, spans_of};

/// What happens to the spans on their way.
#[derive(Clone, Copy, Debug)]
struct Disturbance {
    shuffled: bool,
    doubled: bool,
    /// In small batches with seconds between them, so that most traces settle before they are whole.
    late: bool,
    /// What is added to the clock of one service, in milliseconds.
    skew_ms: i64,
    dropped: bool,
}

const CALM: Disturbance = Disturbance { shuffled: false, doubled: false, late: false, skew_ms: 0, dropped: false };

/// The hops the joiner settled on, and what it counted on the way.
fn joined(spans: &[Span], how: Disturbance, seed: u64) -> (Vec<Hop>, JoinCounts) {
    let mut sent: Vec<Span> = spans.to_vec();
    if how.dropped {
        sent.retain(|span| !span.span_id.as_u64().is_multiple_of(10));
    }
    if how.skew_ms != 0 {
        for span in &mut sent {
            let service = span.resource.attributes.text("service.name");
            if service.is_some_and(|name| name.starts_with("payments")) {
                let moved = |at: UnixNanos| UnixNanos(at.0.saturating_add_signed(how.skew_ms * 1_000_000));
                (span.start, span.end) = (moved(span.start), moved(span.end));
            }
        }
    }
    if how.doubled {
        sent.extend(sent.iter().filter(|span| span.span_id.as_u64().is_multiple_of(20)).cloned().collect::<Vec<_>>());
    }
    if how.shuffled {
        shuffle(&mut sent, seed);
    }
    let store = Store::default();
    let mut joiner = Joiner::new(Normaliser::default(), JoinLimits::default(), store.clone());
    let tenant = TenantId::default();
    let mut now = sent.iter().map(|span| span.end).max().unwrap_or_default();
    let batch = if how.late { sent.len() / 8 + 1 } else { sent.len() };
    for batch in sent.chunks(batch) {
        joiner.ingest(&tenant, batch.to_vec(), now, &NothingSealed, now);
        joiner.tick(&NothingSealed, now);
        now = now.plus(Duration::from_secs(11));
        joiner.tick(&NothingSealed, now);
    }
    let snapshot = store.snapshot(&tenant).unwrap();
    let rows = snapshot.generations().flat_map(|tables| &tables.hops).flat_map(|chunk| chunk.iter());
    let mut latest: HashMap<TraceId, u32> = HashMap::new();
    let requests = snapshot.generations().flat_map(|tables| &tables.requests).flat_map(|chunk| chunk.iter());
    for row in requests {
        let revision = latest.entry(row.request.trace_id).or_default();
        *revision = (*revision).max(row.revision);
    }
    let hops = rows.filter(|row| latest[&row.hop.trace_id] == row.revision).map(|row| Hop::clone(&row.hop)).collect();
    (hops, joiner.counts())
}

fn shuffle(spans: &mut [Span], mut seed: u64) {
    for place in (1..spans.len()).rev() {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        spans.swap(place, (mixed >> 16) as usize % (place + 1));
    }
}

/// All disturbances of one recording.
#[track_caller]
fn matrix(folder: &Path) {
    let spans = spans_of(folder);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let nearly_all = Disturbance { shuffled: true, doubled: true, late: true, ..CALM };
    let kept = [
        CALM,
        Disturbance { shuffled: true, ..CALM },
        Disturbance { doubled: true, ..CALM },
        Disturbance { shuffled: true, late: true, ..CALM },
        Disturbance { skew_ms: 40, ..CALM },
        Disturbance { skew_ms: -40, ..CALM },
        nearly_all,
        Disturbance { skew_ms: 40, ..nearly_all },
    ];
    for (seed, how) in (1..).zip(kept) {
        let (hops, counts) = joined(&spans, how, seed);
        check_edges(folder, &edges_of(hops.iter()));
        assert_eq!(
            counts.uses.sum(),
            i64::try_from(counts.spans_stored).unwrap(),
            "{name}: a span disappeared: {how:?}"
        );
        assert!(!how.doubled || counts.spans_duplicate > 0);
        assert!(!how.late || counts.revisions > 0, "{name}: nothing was late: {counts:?}");
        println!("{name}: {how:?}: equal to the truth; {counts:?}");
    }
    let (whole, _) = joined(&spans, CALM, 0);
    let ends = |hop: &Hop| (hop.source.service.to_string(), hop.destination.service.to_string());
    let known: BTreeSet<(String, String)> = whole.iter().map(ends).collect();
    let (hops, counts) = joined(&spans, Disturbance { dropped: true, ..nearly_all }, 9);
    let mut named = 0;
    for hop in hops.iter().filter(|hop| hop.direction != Direction::Local) {
        let (source, destination) = ends(hop);
        let is_open = source == UNKNOWN_NODE || destination == UNKNOWN_NODE;
        assert!(is_open || known.contains(&(source.clone(), destination)), "{name}: guessed: {hop:?}");
        assert_eq!(hop.source_gap.is_some(), source == UNKNOWN_NODE, "{hop:?}");
        named += usize::from(hop.source_gap.is_some());
    }
    assert_eq!(counts.uses.sum(), i64::try_from(counts.spans_stored).unwrap());
    println!("{name}: dropped: {} hops, {named} with a named gap; {counts:?}", hops.len());
}

#[test]
fn istio_defaults_disturbed() {
    matrix(&repository_capture("full"));
}

#[test]
fn a_span_per_attempt_disturbed() {
    matrix(&repository_capture("spawn-all"));
}

#[test]
fn one_span_per_proxy_disturbed() {
    matrix(&repository_capture("spawn-none"));
}

#[test]
fn without_istio_tags_disturbed() {
    matrix(&repository_capture("plain"));
}

#[test]
fn with_spans_of_applications_disturbed() {
    matrix(&repository_capture("app-spans"));
}

#[test]
fn zipkin_with_shared_ids_disturbed() {
    matrix(&repository_capture("zipkin-shared"));
}

#[test]
fn with_the_caller_announced_disturbed() {
    matrix(&repository_capture("add-user-agent"));
}

/// The whole recordings, when they are at hand.
#[test]
fn whole_recordings_disturbed() {
    let captures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/mesh/captures");
    for name in ["variants/rich", "variants/als-metrics"] {
        let folder = captures.join(name);
        if folder.join("capture/otlp.bin.zst").exists() {
            matrix(&folder);
        } else {
            println!("skipped: the whole recording `{name}` is not here");
        }
    }
}
