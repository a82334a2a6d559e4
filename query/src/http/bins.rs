//! What happened on some edges, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use windrose_proto::edge::{EdgeKey, SpanStats};
use windrose_proto::time::{TimeRange, UnixNanos};
use windrose_store::edge_sums::{Detail, EdgeSums};
use windrose_store::snapshot::TenantSnapshot;

use super::error::ApiError;
use super::state::edge_pieces;
use crate::graph::Resolver;
use crate::series::{Bin, Steps};

/// The steps of a range in which anything happened on the edges that `wanted` takes, by their first instants.
///
/// # Errors
/// When a sealed file cannot be read.
pub(super) async fn read_bins(
    snapshot: &TenantSnapshot,
    range: TimeRange,
    steps: Steps,
    detail: Detail,
    wanted: impl Fn(&EdgeKey, &Resolver) -> bool,
) -> Result<BTreeMap<UnixNanos, Bin>, ApiError> {
    let mut parts: Vec<(UnixNanos, Vec<Arc<EdgeSums>>)> = Vec::new();
    for step in steps.cut(range) {
        parts.push((step.start(), edge_pieces(snapshot, step, detail).await?));
    }
    let pieces = || parts.iter().flat_map(|(_, pieces)| pieces);
    let resolver = Resolver::of_keys(pieces().flat_map(|piece| piece.edges()).map(|edge| &*edge.key));
    // Sums share their keys, and whether one is wanted takes longer to find out than to add it up.
    let mut takes: HashMap<usize, bool> = HashMap::new();
    let mut bins: BTreeMap<UnixNanos, Bin> = BTreeMap::new();
    for (start, pieces) in &parts {
        for edge in pieces.iter().flat_map(|piece| piece.edges()) {
            let address = Arc::as_ptr(&edge.key) as usize;
            if *takes.entry(address).or_insert_with(|| wanted(&edge.key, &resolver)) {
                bins.entry(*start).or_default().add(&edge.stats);
            }
        }
    }
    Ok(bins)
}

/// All steps together.
pub(super) fn total(bins: &BTreeMap<UnixNanos, Bin>) -> SpanStats {
    let mut total = SpanStats::default();
    bins.values().for_each(|bin| total.merge(&bin.spans));
    total
}
