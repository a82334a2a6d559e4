//! Compares results with expectations, with the tolerances of the suite.

use std::collections::BTreeMap;

use regex::Regex;
use windrose_promql::Evaluation;
use windrose_promql::eval::EvalError;
use windrose_promql::histogram::FloatHistogram;
use windrose_promql::value::{QueryResult, Sample, is_absent};
use windrose_proto::metric::labels::Labels;

use crate::script::{Eval, Expectation, Text, Value, When};

/// What is wrong: with values, or only with annotations and texts.
#[derive(Debug)]
pub(crate) enum Miss {
    Values(String),
    Texts(String),
}

pub(crate) fn judge(eval: &Eval, outcome: &Result<Evaluation, EvalError>) -> Result<(), Miss> {
    let fail = eval.expectations.iter().find_map(|expectation| match expectation {
        Expectation::Fail(text) => Some(text),
        _ => None,
    });
    match (outcome, fail) {
        (Err(error), None) => Err(Miss::Values(format!("failed: {error}"))),
        (Ok(_), Some(_)) => Err(Miss::Values("should have failed".to_owned())),
        (Err(error), Some(text)) => {
            let message = error.to_string();
            let message = message.strip_prefix("invalid parameter \"query\": ").unwrap_or(&message);
            if matches(text, message) { Ok(()) } else { Err(Miss::Texts(format!("want {text:?}, got {message:?}"))) }
        }
        (Ok(evaluation), None) => {
            let ordered = eval.expectations.contains(&Expectation::Ordered);
            check_values(eval, &evaluation.result, eval.when, ordered).map_err(Miss::Values)?;
            check_annotations(eval, evaluation).map_err(Miss::Texts)
        }
    }
}

fn matches(text: &Text, actual: &str) -> bool {
    match text {
        Text::Any => true,
        Text::Exact(wanted) => wanted == actual,
        Text::Regex(pattern) => Regex::new(pattern).unwrap().is_match(actual),
    }
}

fn check_annotations(eval: &Eval, evaluation: &Evaluation) -> Result<(), String> {
    let (warnings, infos) = evaluation.annotations.to_strings(&eval.expr, 0);
    for (name, actual, is_warning) in [("warning", warnings, true), ("info", infos, false)] {
        let forbidden = if is_warning { Expectation::NoWarn } else { Expectation::NoInfo };
        if eval.expectations.contains(&forbidden) && !actual.is_empty() {
            return Err(format!("unexpected {name}: {actual:?}"));
        }
        let wanted: Vec<&Text> = eval
            .expectations
            .iter()
            .filter_map(|expectation| match expectation {
                Expectation::Warn(text) if is_warning => Some(text),
                Expectation::Info(text) if !is_warning => Some(text),
                _ => None,
            })
            .collect();
        if wanted.is_empty() {
            continue;
        }
        if let Some(missing) = wanted.iter().find(|text| !actual.iter().any(|actual| matches(text, actual))) {
            return Err(format!("{name} {missing:?} is not in {actual:?}"));
        }
        if let Some(extra) = actual.iter().find(|actual| !wanted.iter().any(|text| matches(text, actual))) {
            return Err(format!("unexpected {name} {extra:?}"));
        }
    }
    Ok(())
}

/// Compares a result; `when` gives the times of the expected values.
pub(crate) fn check_values(eval: &Eval, result: &QueryResult, when: When, ordered: bool) -> Result<(), String> {
    match result {
        QueryResult::String(text, _) if eval.string.as_ref() == Some(text) => Ok(()),
        QueryResult::String(text, _) => Err(format!("unexpected string {text:?}")),
        QueryResult::Scalar(value, _) => match eval.scalar {
            Some(wanted) if almost(wanted, *value) => Ok(()),
            wanted => Err(format!("want scalar {wanted:?}, got {value}")),
        },
        QueryResult::Vector(samples, time) => {
            let got: Vec<(Labels, Vec<(i64, Sample)>)> =
                samples.iter().map(|(labels, sample)| (labels.clone(), vec![(*time, sample.clone())])).collect();
            if eval.scalar.is_some() {
                return Err("want a scalar, got a vector".to_owned());
            }
            check_series(eval, &got, *time, 1, ordered)
        }
        QueryResult::Matrix(series) => {
            let got: Vec<(Labels, Vec<(i64, Sample)>)> =
                series.iter().map(|series| (series.labels.clone(), series.samples())).collect();
            let (start, step) = match (eval.range_vector, when) {
                (Some(times), _) => times,
                (None, When::Range { start, step, .. }) => (start, step),
                (None, When::Instant(time)) => (time, 1),
            };
            check_series(eval, &got, start, step, false)
        }
    }
}

fn check_series(
    eval: &Eval,
    got: &[(Labels, Vec<(i64, Sample)>)],
    start: i64,
    step: i64,
    ordered: bool,
) -> Result<(), String> {
    // The position and the points of each series.
    type Wanted<'e> = (usize, Vec<(i64, &'e Value)>);
    let wanted: BTreeMap<&Labels, Wanted<'_>> = eval
        .series
        .iter()
        .enumerate()
        .map(|(position, (labels, values))| {
            let points = values.iter().enumerate();
            let points = points.filter_map(|(index, value)| Some((start + step * index as i64, value.as_ref()?)));
            (labels, (position, points.collect()))
        })
        .collect();
    for (position, (labels, points)) in got.iter().enumerate() {
        let Some((wanted_position, wanted_points)) = wanted.get(labels) else {
            return Err(format!("unexpected series {labels} {points:?}"));
        };
        if ordered && position != *wanted_position {
            return Err(format!("{labels} is at {position}, not {wanted_position}"));
        }
        let times = |times: &mut dyn Iterator<Item = i64>| times.collect::<Vec<_>>();
        let (got_times, wanted_times) =
            (times(&mut points.iter().map(|p| p.0)), times(&mut wanted_points.iter().map(|p| p.0)));
        if got_times != wanted_times {
            return Err(format!("{labels}: times {got_times:?}, want {wanted_times:?}"));
        }
        for ((time, sample), (_, value)) in points.iter().zip(wanted_points) {
            compare(value, sample).map_err(|error| format!("{labels} at {time}: {error}"))?;
        }
    }
    match wanted.keys().find(|labels| !got.iter().any(|(got, _)| got == **labels)) {
        Some(missing) => Err(format!("missing series {missing}")),
        None => Ok(()),
    }
}

fn compare(wanted: &Value, got: &Sample) -> Result<(), String> {
    match (&wanted.sample, got) {
        (Sample::Float(wanted), Sample::Float(got)) if almost(*wanted, *got) => Ok(()),
        (Sample::Histogram(a), Sample::Histogram(b)) if same_histogram(a, b, wanted.hint_set) => Ok(()),
        (wanted, got) => Err(format!("want {wanted:?}, got {got:?}")),
    }
}

fn same_histogram(wanted: &FloatHistogram, got: &FloatHistogram, with_hint: bool) -> bool {
    let buckets = |a: &[(i32, f64)], b: &[(i32, f64)]| {
        let full = |list: &[(i32, f64)]| -> Vec<(i32, f64)> {
            list.iter().copied().filter(|(_, count)| *count != 0.0).collect()
        };
        let (a, b) = (full(a), full(b));
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && almost(a.1, b.1))
    };
    wanted.schema == got.schema
        && almost(wanted.count, got.count)
        && almost(wanted.sum, got.sum)
        && almost(wanted.zero_count, got.zero_count)
        && wanted.zero_threshold == got.zero_threshold
        && wanted.custom_values == got.custom_values
        && buckets(&wanted.positive, &got.positive)
        && buckets(&wanted.negative, &got.negative)
        && (!with_hint || wanted.hint == got.hint)
}

/// Relative difference below one millionth; NaN equals NaN but not a staleness marker.
fn almost(a: f64, b: f64) -> bool {
    const EPSILON: f64 = 1e-6;
    if is_absent(a) || is_absent(b) {
        return is_absent(a) && is_absent(b);
    }
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    if a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}
