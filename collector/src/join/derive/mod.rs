//! The trace-level rules: the spans of one trace to its hops, its request and a verdict per span.
//!
//! Pure and total: the result is a function of the *set* of spans (order and exact duplicates do
//! not matter), cycles and self-parents are cut, and the work grows near-linearly with the number
//! of spans. Every value carries the id of the rule that decided it.
//!
//! | file | rules |
//! |---|---|
//! | `rows.rs` | W1, W2, J1–J3, P9b: distinct spans, their order and their parents |
//! | `entries.rs` | L0–L5: access log entries among spans, and whom they belong to |
//! | `tree.rs` | cutting cycles, order from the roots, intervals of subtrees |
//! | `process.rs` | who is the same process or node; identities taken from neighbours |
//! | `roles.rs` | R4: roles that need the rest of the trace |
//! | `visits.rs` | V11: entries of a process and what belongs to each |
//! | `outcomes.rs` | O2, O4, F6–F10: outcomes that need the rest of the trace |
//! | `halves.rs` | A1–A9: which spans are the two halves of a hop |
//! | `ends.rs` | T0, S0–S3: the nodes a hop joins |
//! | `hops.rs` | H, FH, D: status, fault and direction of a hop |
//! | `timing.rs` | K: skew, late servers, queues |
//! | `attempts.rs` | Q, A6, RC: attempts, the one that counts, the root cause |
//! | `request.rs` | the request row and the entry of every hop |

use std::sync::Arc;

use windrose_proto::hop::{Derived, SpanUse, SpanVerdict};
use windrose_proto::model::{NodeRole, Vantage};
use windrose_proto::normal::NormalSpan;

use crate::normalise::Normaliser;
use crate::normalise::overrides::Overrides;

mod attempts;
mod ends;
mod entries;
mod halves;
mod hops;
mod outcomes;
mod process;
mod request;
mod roles;
mod rows;
mod timing;
mod tree;
mod visits;

pub use rows::distinct_key;
use rows::{Row, Rows};

/// What derivation knows besides the spans.
#[derive(Clone, Debug, Default)]
pub struct DeriveOptions {
    overrides: Arc<Overrides>,
}

// === impl DeriveOptions ===

impl From<&Normaliser> for DeriveOptions {
    fn from(normaliser: &Normaliser) -> Self {
        Self { overrides: Arc::clone(normaliser.overrides()) }
    }
}

/// Everything the rules say about one trace.
///
/// # Panics
/// When `spans` holds no span: a trace is known by its spans.
#[must_use]
pub fn derive(spans: &[Arc<NormalSpan>], options: &DeriveOptions) -> Derived {
    assert!(spans.iter().any(|span| span.fact.is_none()), "a trace has at least one span");
    let mut rows = Rows::collect(spans, &options.overrides);
    process::adopt_identities(&mut rows);
    roles::decide(&mut rows);
    let visits = visits::find(&mut rows);
    outcomes::refine(&mut rows, &visits);
    let plan = halves::pair(&rows, &visits);
    let (mut hops, mut questions) = hops::build(&rows, &plan, &options.overrides.hosts);
    attempts::number(&rows, &mut hops);
    attempts::mark_final(&rows, &mut hops);
    attempts::mark_root_cause(&rows, &mut hops);
    // Cached, so that each draft moves once: they are large, and a trace may have ten thousand.
    hops.sort_by_cached_key(hops::Draft::order);
    let uses = uses(&rows, &plan, &hops);
    let request = request::build(&rows, &mut hops);
    questions.extend(request::question(&rows));
    let spans = rows.rows.iter().zip(uses).map(|(row, usage)| verdict(row, usage));
    let verdicts = spans.chain(rows.facts.iter().map(|fact| fact_verdict(fact))).collect();
    let confirmations = rows.confirmations;
    Derived { request, hops: hops.into_iter().map(|draft| draft.hop).collect(), verdicts, confirmations, questions }
}

/// What the join learned from other traces is listed with the spans it is stored among.
fn fact_verdict(span: &NormalSpan) -> SpanVerdict {
    SpanVerdict {
        span_id: span.span_id,
        proxy_kind: span.proxy_kind,
        proxy_rule: span.proxy_rule,
        vantage: Vantage::Phase,
        vantage_rule: span.vantage_rule,
        role: NodeRole::App,
        role_rule: span.role_rule,
        shared_id: false,
        usage: SpanUse::Unlinked { why: "what other traces say about this one" },
        is_fact: true,
        outcome: span.outcome.clone(),
    }
}

/// How each row was used.
fn uses(rows: &Rows<'_>, plan: &halves::Plan, hops: &[hops::Draft]) -> Vec<SpanUse> {
    let mut uses: Vec<SpanUse> = (0..rows.len())
        .map(|id| match plan.unlinked[id] {
            Some(why) => SpanUse::Unlinked { why },
            None if rows.rows[id].is_phase() => SpanUse::Phase,
            None => SpanUse::Unlinked { why: halves::COVERED },
        })
        .collect();
    for (index, draft) in hops.iter().enumerate() {
        for row in [draft.pair.client, draft.pair.server, draft.pair.via].into_iter().flatten() {
            match &mut uses[row as usize] {
                SpanUse::Hop { hops } => hops.push(index as u32),
                other => *other = SpanUse::Hop { hops: smallvec::smallvec![index as u32] },
            }
        }
    }
    uses
}

fn verdict(row: &Row<'_>, usage: SpanUse) -> SpanVerdict {
    SpanVerdict {
        span_id: row.span.span_id,
        proxy_kind: row.kind,
        proxy_rule: row.kind_rule,
        vantage: row.vantage,
        vantage_rule: row.vantage_rule,
        role: row.role,
        role_rule: row.role_rule,
        shared_id: row.shared,
        usage,
        is_fact: false,
        outcome: row.outcome.clone(),
    }
}
