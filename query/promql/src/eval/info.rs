//! `info`: adds the data labels of info metrics (`target_info` and the like) to the series they describe.

use hashbrown::{HashMap, HashSet};

use super::row::Row;
use super::selector::Reading;
use super::stream::Sink;
use super::{Evaluated, Evaluator, Grid, SAME_LABELSET, execution};
use crate::ast::{At, Call, Duration, Expr, Extension, Span, VectorSelector};
use crate::value::ABSENT;
use windrose_proto::metric::labels::{Labels, METRIC_NAME};
use windrose_proto::metric::matcher::{MatchOp, Matcher};

/// Labels that tie an info series to the series it describes.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric when the selector names none.
const DEFAULT_INFO_METRIC: &str = "target_info";

/// What an info metric is called when the selector only says what it is not.
const INFO_METRIC_PATTERN: &str = ".+_info";

impl Evaluator<'_> {
    pub(super) fn stream_info(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let base = self.vector(&call.args[0], grid)?;
        let InfoMatchers { names: name_matchers, data: data_matchers, knows_names } = InfoMatchers::of(call)?;
        let is_info =
            |row: &Row| knows_names && name_matchers.iter().all(|matcher| matcher.matches(row.labels.metric_name()));
        let infos = self.info_series(&base, &is_info, info_selector(call)?, grid)?;
        let wanted: HashSet<&str> = data_matchers.iter().map(|matcher| matcher.name.as_str()).collect();
        let needs_match = data_matchers.iter().any(|matcher| !matcher.matches(""));
        let mut output: Vec<Row> = Vec::new();
        let mut index: HashMap<Labels, usize> = HashMap::new();
        for row in base {
            if is_info(&row) {
                put_all(&mut output, &mut index, &row)?;
                continue;
            }
            self.enrich(&row, &infos, &wanted, needs_match, &mut output, &mut index)?;
        }
        output.into_iter().filter(|row| !row.is_empty()).try_for_each(sink)
    }

    fn enrich(
        &self,
        row: &Row,
        infos: &InfoSeries,
        wanted: &HashSet<&str>,
        needs_match: bool,
        output: &mut Vec<Row>,
        index: &mut HashMap<Labels, usize>,
    ) -> Evaluated<()> {
        let candidates = infos.by_identity.get(&identity(&row.labels)).map_or(&[] as &[usize], Vec::as_slice);
        for step in 0..row.values.len() {
            let Some(sample) = row.sample(step) else { continue };
            let newest = infos.newest(candidates, step)?;
            if newest.is_empty() && needs_match {
                continue;
            }
            let mut added: HashMap<&str, &str> = HashMap::new();
            for info in newest {
                for label in infos.rows[info].labels.iter().filter(|label| &*label.name != METRIC_NAME) {
                    if !wanted.is_empty() && !wanted.contains(&*label.name) {
                        continue;
                    }
                    if added.get(&*label.name).is_some_and(|value| **value != *label.value) {
                        return execution(format!("conflicting label: {}", label.name));
                    }
                    if row.labels.get(&label.name).is_empty() {
                        added.insert(&label.name, &label.value);
                    }
                }
            }
            let mut builder = row.labels.builder();
            for (name, value) in added {
                builder.set(name, value);
            }
            let target = row_for(output, index, builder.build(), row);
            if output[target].has_sample(step) {
                return execution(SAME_LABELSET);
            }
            output[target].set(step, Some(sample));
        }
        Ok(())
    }

    /// The info series that may describe a base series. The values of the rows are the times of the samples, so that
    /// of two the newer can win.
    fn info_series(
        &self,
        base: &[Row],
        is_info: &dyn Fn(&Row) -> bool,
        mut selector: VectorSelector,
        grid: &Grid,
    ) -> Evaluated<InfoSeries> {
        let mut infos = InfoSeries::default();
        let identities: HashSet<Labels> = base
            .iter()
            .filter(|row| !is_info(row))
            .map(|row| identity(&row.labels))
            .filter(|identity| !identity.is_empty())
            .collect();
        if identities.is_empty() {
            return Ok(infos);
        }
        for name in IDENTIFYING {
            let mut values: Vec<&str> = identities.iter().map(|labels| labels.get(name)).collect();
            values.sort_unstable();
            values.dedup();
            values.retain(|value| !value.is_empty());
            if values.is_empty() {
                continue;
            }
            let pattern = values.iter().map(|value| regex::escape(value)).collect::<Vec<_>>().join("|");
            selector.matchers.push(Matcher::new(MatchOp::Regex, name, pattern).or_else(execution)?);
        }
        self.stream_selector(&selector, grid, Reading::FloatTime, &mut |row| {
            if row.histograms.is_some() {
                return execution("info sample should be float");
            }
            self.hold(row.weight())?;
            infos.by_identity.entry(identity(&row.labels)).or_default().push(infos.rows.len());
            infos.rows.push(row);
            Ok(())
        })?;
        Ok(infos)
    }
}

/// The second argument, taken apart.
struct InfoMatchers {
    names: Vec<Matcher>,
    data: Vec<Matcher>,
    /// Whether the names say which series are info series. Those are not enriched themselves. A name, a pattern for
    /// it or the default do; exclusions alone do not.
    knows_names: bool,
}

impl InfoMatchers {
    fn of(call: &Call) -> Evaluated<Self> {
        let selector: &[Matcher] = match call.args.get(1).map(Expr::unwrap_parens) {
            Some(Expr::Vector(selector)) => &selector.matchers,
            _ => &[],
        };
        let (mut names, data): (Vec<Matcher>, Vec<Matcher>) =
            selector.iter().cloned().partition(|matcher| matcher.name == METRIC_NAME);
        let negative = |matcher: &Matcher| matches!(matcher.op, MatchOp::NotEqual | MatchOp::NotRegex);
        let knows_names = call.args.len() < 2 || names.iter().any(|matcher| !negative(matcher));
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, DEFAULT_INFO_METRIC));
        } else if names.iter().all(negative) {
            names.push(Matcher::new(MatchOp::Regex, METRIC_NAME, INFO_METRIC_PATTERN).or_else(execution)?);
        }
        Ok(Self { names, data, knows_names })
    }
}

/// The selector of the info series, at the instants of the series they describe. The identifying labels are added when
/// those series are known.
pub(super) fn info_selector(call: &Call) -> Evaluated<VectorSelector> {
    let InfoMatchers { names, data, .. } = InfoMatchers::of(call)?;
    let (at, offset) = first_selector(&call.args[0]).unwrap_or((None, Duration::ZERO));
    Ok(VectorSelector {
        name: String::new(),
        matchers: names.into_iter().chain(data).collect(),
        offset,
        at,
        extension: Extension::None,
        allow_empty: true,
        span: Span::default(),
    })
}

#[derive(Default)]
struct InfoSeries {
    rows: Vec<Row>,
    by_identity: HashMap<Labels, Vec<usize>>,
}

impl InfoSeries {
    /// The newest present series of each info metric at a step.
    fn newest(&self, candidates: &[usize], step: usize) -> Evaluated<Vec<usize>> {
        let mut newest: Vec<usize> = Vec::new();
        for at in candidates.iter().copied().filter(|at| self.rows[*at].has_sample(step)) {
            let (row, time) = (&self.rows[at], self.rows[at].values[step]);
            let same =
                newest.iter_mut().find(|other| self.rows[**other].labels.metric_name() == row.labels.metric_name());
            match same {
                None => newest.push(at),
                Some(other) => {
                    let existing = &self.rows[*other];
                    let existing_time = existing.values[step];
                    if existing_time == time {
                        let millis = (time * 1000.0) as i64;
                        return execution(format!(
                            "found duplicate series for info metric: existing {} @ {millis}, new {} @ {millis}",
                            existing.labels, row.labels
                        ));
                    }
                    if existing_time < time {
                        *other = at;
                    }
                }
            }
        }
        Ok(newest)
    }
}

fn identity(labels: &Labels) -> Labels {
    labels.keep(&IDENTIFYING.map(str::to_owned))
}

/// Modifiers of the first selector of an expression; info series are looked up at the same instants.
fn first_selector(expr: &Expr) -> Option<(Option<At>, Duration)> {
    match expr {
        Expr::Vector(node) => Some((node.at, node.offset.clone())),
        Expr::Matrix(node) => Some((node.vector.at, node.vector.offset.clone())),
        Expr::Subquery(node) => match node.at {
            Some(_) => Some((node.at, node.offset.clone())),
            None => first_selector(&node.expr),
        },
        Expr::Call(node) => node.args.iter().find_map(first_selector),
        Expr::Aggregate(node) => first_selector(&node.expr),
        Expr::Binary(node) => first_selector(&node.lhs).or_else(|| first_selector(&node.rhs)),
        Expr::Unary(node) => first_selector(&node.expr),
        Expr::Paren(node) => first_selector(&node.expr),
        Expr::Number(_) | Expr::String(_) => None,
    }
}

fn row_for(output: &mut Vec<Row>, index: &mut HashMap<Labels, usize>, labels: Labels, like: &Row) -> usize {
    *index.entry(labels).or_insert_with_key(|labels| {
        let mut row = Row::new(labels.clone(), vec![ABSENT; like.values.len()]);
        row.drop_name = like.drop_name;
        output.push(row);
        output.len() - 1
    })
}

fn put_all(output: &mut Vec<Row>, index: &mut HashMap<Labels, usize>, row: &Row) -> Evaluated<()> {
    let target = row_for(output, index, row.labels.clone(), row);
    for step in 0..row.values.len() {
        let Some(sample) = row.sample(step) else { continue };
        if output[target].has_sample(step) {
            return execution(SAME_LABELSET);
        }
        output[target].set(step, Some(sample));
    }
    Ok(())
}
