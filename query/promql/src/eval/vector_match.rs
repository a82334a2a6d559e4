//! Operators between two vectors. Series are matched once per query by their signature; only what may differ from
//! step to step, namely who is present, is looked at per step.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::binary::signature;
use super::row::Row;
use super::stream::Sink;
use super::{EvalError, Evaluated, Evaluator, Grid, SAME_LABELSET};
use crate::ast::{Binary, BinaryOp, Cardinality, Matching, Span};
use crate::value::{ABSENT, Sample, is_absent};
use windrose_proto::metric::labels::{Labels, METRIC_NAME};

/// The series of one signature. `many` is the left side unless `group_right` is given.
struct MatchGroup {
    signature: Labels,
    many: Vec<usize>,
    one: Vec<usize>,
}

/// Everything fixed for one operator.
struct Operation<'o> {
    node: &'o Binary,
    matching: &'o Matching,
    span: Span,
    /// Whether the sides were exchanged so that the "one" side is on the right.
    swapped: bool,
    fill_many: Option<f64>,
    fill_one: Option<f64>,
}

/// The earliest step that forbids the match, with what is wrong; later steps must not hide it.
type Conflict = Option<(usize, String)>;

fn note(conflict: &mut Conflict, step: usize, message: impl FnOnce() -> String) {
    if conflict.as_ref().is_none_or(|(earliest, _)| step < *earliest) {
        *conflict = Some((step, message()));
    }
}

impl Evaluator<'_> {
    pub(super) fn stream_matched(
        &self,
        node: &Binary,
        matching: &Matching,
        span: Span,
        grid: &Grid,
        sink: Sink<'_>,
    ) -> Evaluated<()> {
        let left = self.vector(&node.lhs, grid)?;
        let right = self.vector(&node.rhs, grid)?;
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (right, left) } else { (left, right) };
        // With `group_right` the sides are exchanged but, as in Prometheus, the fill values are not: `fill_left`
        // always stands for the "many" side.
        let (fill_many, fill_one) = (matching.fill_left, matching.fill_right);
        let operation = Operation { node, matching, span, swapped, fill_many, fill_one };
        let groups = match_groups(&many, &one, matching);
        let mut output = Output::default();
        let mut conflict: Conflict = None;
        for group in &groups {
            self.interrupted()?;
            let before = output.rows.len();
            if !self.match_simple(&operation, group, &many, &one, &mut output) {
                self.match_general(&operation, group, &many, &one, grid, &mut output, &mut conflict);
            }
            self.hold((output.rows.len() - before) * grid.count)?;
        }
        if let Some((_, message)) = conflict {
            return Err(EvalError::Execution(message));
        }
        if output.overlaps {
            return Err(EvalError::Execution(SAME_LABELSET.to_owned()));
        }
        output.rows.into_iter().filter(|row| !row.is_empty()).try_for_each(sink)
    }

    /// One float series on each side and nothing to fill: the common case, in one pass.
    fn match_simple(
        &self,
        operation: &Operation<'_>,
        group: &MatchGroup,
        many: &[Row],
        one: &[Row],
        output: &mut Output,
    ) -> bool {
        let ([many_at], [one_at]) = (group.many.as_slice(), group.one.as_slice()) else { return false };
        let (many, one) = (&many[*many_at], &one[*one_at]);
        let node = operation.node;
        let plain = many.histograms.is_none()
            && one.histograms.is_none()
            && operation.fill_many.is_none()
            && operation.fill_one.is_none()
            && !matches!(node.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        let labels = operation.result_labels(&many.labels, &one.labels);
        if !plain || output.index.contains_key(&labels) {
            return false;
        }
        let mut row = Row::new(labels, self.buffer(many.values.len()));
        row.drop_name = many.drop_name || node.return_bool;
        if row.drop_name && node.return_bool && self.drops_names_now() {
            row.settle_name();
        }
        for ((out, many), one) in row.values.iter_mut().zip(&many.values).zip(&one.values) {
            if is_absent(*many) || is_absent(*one) {
                continue;
            }
            let (lhs, rhs) = if operation.swapped { (*one, *many) } else { (*many, *one) };
            *out = if node.op.is_comparison() {
                match (super::element::compares(node.op, lhs, rhs), node.return_bool) {
                    (holds, true) => f64::from(u8::from(holds)),
                    (true, false) => lhs,
                    (false, false) => ABSENT,
                }
            } else {
                super::element::float_arithmetic(node.op, lhs, rhs)
            };
        }
        output.push(row);
        true
    }

    #[expect(clippy::too_many_arguments, reason = "both sides, the place of the results and the first fault")]
    fn match_general(
        &self,
        operation: &Operation<'_>,
        group: &MatchGroup,
        many: &[Row],
        one: &[Row],
        grid: &Grid,
        output: &mut Output,
        conflict: &mut Conflict,
    ) {
        // The result series of each pair met so far; a fill stands for `usize::MAX`.
        let mut pairs: HashMap<(usize, usize), usize> = HashMap::new();
        let mut filled: Vec<usize> = Vec::new();
        for step in 0..grid.count {
            let mut present = group.one.iter().copied().filter(|at| one[*at].has_sample(step));
            let one_at = present.next();
            if let (Some(first), Some(second)) = (one_at, present.next()) {
                note(conflict, step, || operation.duplicate_message(group, &one[first].labels, &one[second].labels));
                continue;
            }
            filled.clear();
            let mut matched = false;
            for many_at in group.many.iter().copied().filter(|at| many[*at].has_sample(step)) {
                let Some(many_sample) = many[many_at].sample(step) else { continue };
                let (one_sample, one_key) = match (one_at, operation.fill_one) {
                    (Some(at), _) => (one[at].sample(step), at),
                    (None, Some(fill)) => (Some(Sample::Float(fill)), usize::MAX),
                    (None, None) => continue,
                };
                let Some(one_sample) = one_sample else { continue };
                if matched && operation.matching.cardinality == Cardinality::OneToOne {
                    note(conflict, step, || {
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                            .to_owned()
                    });
                    break;
                }
                matched = true;
                let one_labels = one_at.map_or(&group.signature, |at| &one[at].labels);
                let target = *pairs.entry((many_at, one_key)).or_insert_with(|| {
                    let labels = operation.result_labels(&many[many_at].labels, one_labels);
                    output.row_for(labels, many[many_at].drop_name, operation, self.drops_names_now(), grid)
                });
                if filled.contains(&target) {
                    note(conflict, step, || {
                        "multiple matches for labels: grouping labels must ensure unique matches".to_owned()
                    });
                    break;
                }
                filled.push(target);
                let result = self.matched_element(operation, &many_sample, &one_sample);
                output.put(target, step, result);
            }
            if let (false, Some(at), Some(fill)) = (matched, one_at, operation.fill_many) {
                let Some(one_sample) = one[at].sample(step) else { continue };
                let target = *pairs.entry((usize::MAX, at)).or_insert_with(|| {
                    let labels = operation.result_labels(&group.signature, &one[at].labels);
                    output.row_for(labels, false, operation, self.drops_names_now(), grid)
                });
                let result = self.matched_element(operation, &Sample::Float(fill), &one_sample);
                output.put(target, step, result);
            }
        }
    }

    fn matched_element(&self, operation: &Operation<'_>, many: &Sample, one: &Sample) -> Option<Sample> {
        let (lhs, rhs) = if operation.swapped { (one, many) } else { (many, one) };
        let (value, keep) = self.element(operation.node.op, lhs, rhs, operation.span)?;
        if operation.node.return_bool {
            return Some(Sample::Float(f64::from(u8::from(keep))));
        }
        keep.then_some(value)
    }
}

impl Operation<'_> {
    /// The labels of the result of a pair.
    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = self.matching;
        let mut labels = if self.node.op.changes_meaning() { many.without_name(true) } else { many.clone() };
        if matching.cardinality == Cardinality::OneToOne {
            labels = if matching.on {
                labels.keep(&matching.labels)
            } else if matching.labels.is_empty() {
                labels
            } else {
                let name = labels.metric_name().to_owned();
                let mut builder = labels.drop_all(&matching.labels).builder();
                if !matching.labels.iter().any(|label| label == METRIC_NAME) {
                    builder.set(METRIC_NAME, &name);
                }
                builder.build()
            };
        }
        if matching.include.is_empty() {
            return labels;
        }
        let mut builder = labels.builder();
        for name in &matching.include {
            builder.set(name, one.get(name));
        }
        builder.build()
    }

    fn duplicate_message(&self, group: &MatchGroup, first: &Labels, second: &Labels) -> String {
        let side = if self.swapped { "left" } else { "right" };
        let (low, high) = if first.compare(second).is_le() { (first, second) } else { (second, first) };
        let group = &group.signature;
        format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{low}, {high}];many-to-many matching not allowed: matching labels must be unique on one side"
        )
    }
}

/// Result series by their labels.
#[derive(Default)]
struct Output {
    rows: Vec<Row>,
    index: HashMap<Labels, usize>,
    /// Whether two pairs of different groups gave the same series at the same step.
    overlaps: bool,
}

impl Output {
    fn push(&mut self, row: Row) {
        self.index.insert(row.labels.clone(), self.rows.len());
        self.rows.push(row);
    }

    fn row_for(
        &mut self,
        labels: Labels,
        drop_name: bool,
        operation: &Operation<'_>,
        drops_now: bool,
        grid: &Grid,
    ) -> usize {
        let labels = if operation.node.return_bool && drops_now { labels.without_name(true) } else { labels };
        match self.index.entry(labels) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let mut row = Row::new(entry.key().clone(), vec![ABSENT; grid.count]);
                row.drop_name = drop_name || operation.node.return_bool;
                entry.insert(self.rows.len());
                self.rows.push(row);
                self.rows.len() - 1
            }
        }
    }

    fn put(&mut self, target: usize, step: usize, sample: Option<Sample>) {
        let Some(sample) = sample else { return };
        self.overlaps |= self.rows[target].has_sample(step);
        self.rows[target].set(step, Some(sample));
    }
}

/// Groups in the order in which their signatures first appear.
fn match_groups(many: &[Row], one: &[Row], matching: &Matching) -> Vec<MatchGroup> {
    let mut index: HashMap<Labels, usize> = HashMap::with_capacity(one.len());
    let mut groups: Vec<MatchGroup> = Vec::new();
    for (rows, is_many) in [(one, false), (many, true)] {
        for (at, row) in rows.iter().enumerate() {
            let signature = signature(&row.labels, matching);
            let group = match index.entry(signature) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    groups.push(MatchGroup { signature: entry.key().clone(), many: Vec::new(), one: Vec::new() });
                    *entry.insert(groups.len() - 1)
                }
            };
            let side = if is_many { &mut groups[group].many } else { &mut groups[group].one };
            side.push(at);
        }
    }
    groups
}
