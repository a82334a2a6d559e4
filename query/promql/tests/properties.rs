//! Properties that hold for every query: an instant query is one step of a range query, the same query gives the same
//! bytes, and nothing panics, whatever the times.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use proptest::prelude::*;
use windrose_promql::api_json::success_body;
use windrose_promql::eval::Interrupt;
use windrose_promql::histogram::FloatHistogram;
use windrose_promql::memory::MemoryStorage;
use windrose_promql::value::{ABSENT, QueryResult, Sample};
use windrose_promql::{
    Engine, EvalError, Limits, Matcher, ParseOptions, PlannedSelect, QueryKind, QueryOptions, Select, SeriesSet,
    Storage, StorageError, parse_expr,
};
use windrose_proto::metric::labels::Labels;

/// Counters with gaps, resets, NaN and staleness markers; a classic histogram; native histograms mixed with floats.
fn storage() -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    for pod in 0..4_i64 {
        let labels = Labels::from_pairs([
            ("__name__", "c_total"),
            ("pod", &format!("p{pod}")),
            ("zone", ["a", "b"][pod as usize % 2]),
        ]);
        for index in 0..60_i64 {
            let value = match (index + pod) % 17 {
                3 => continue,
                5 => ABSENT,
                7 => f64::NAN,
                _ => ((index * (pod + 1)) % 23) as f64,
            };
            storage.append(&labels, index * 10_000 + pod, Sample::Float(value));
        }
    }
    for (bound, factor) in [("0.1", 1.0), ("1", 3.0), ("+Inf", 4.0)] {
        let labels = Labels::from_pairs([("__name__", "h_bucket"), ("le", bound), ("zone", "a")]);
        for index in 0..60_i64 {
            storage.append(&labels, index * 10_000, Sample::Float(index as f64 * factor));
        }
    }
    let labels = Labels::from_pairs([("__name__", "mixed"), ("zone", "b")]);
    for index in 0..60_i64 {
        let sample = if index % 7 == 0 {
            Sample::Float(index as f64)
        } else {
            let count = index as f64;
            Sample::Histogram(Arc::new(FloatHistogram {
                count: 2.0 * count,
                sum: count,
                positive: vec![(0, count), (2, count)],
                ..FloatHistogram::default()
            }))
        };
        storage.append(&labels, index * 10_000, sample);
    }
    storage
}

/// Remembers what was selected.
struct Recorder {
    storage: MemoryStorage,
    selects: RefCell<Vec<(Vec<Matcher>, i64, i64)>>,
}

impl Storage for Recorder {
    fn select<'a>(&'a self, request: &Select<'_>) -> Result<Box<dyn SeriesSet + 'a>, StorageError> {
        self.selects.borrow_mut().push((request.matchers.to_vec(), request.min_time, request.max_time));
        self.storage.select(request)
    }
}

fn engine(delayed_name_removal: bool) -> Engine {
    Engine {
        delayed_name_removal,
        parse: ParseOptions::ALL,
        limits: Limits { max_samples: 200_000, max_steps: 20_000 },
        ..Engine::default()
    }
}

/// Queries built from the grammar; most have the right types.
fn query() -> impl Strategy<Value = String> {
    let selector = prop::sample::select(vec![
        "c_total",
        "c_total{pod=~\"p[01]\"}",
        "h_bucket",
        "mixed",
        "{zone=\"b\"}",
        "c_total offset 35s",
        "c_total @ 200",
        "mixed smoothed",
        "absent_metric",
    ]);
    let ranged = prop::sample::select(vec![
        "c_total[1m]",
        "mixed[2m]",
        "h_bucket[45s] offset 10s",
        "c_total[90s] @ end()",
        "(c_total + 1)[1m:7s]",
        "rate(c_total[1m])[2m:20s]",
        "{zone=~\"a|b\"}[30s]",
    ]);
    let over_time = prop::sample::select(vec![
        "rate",
        "increase",
        "delta",
        "irate",
        "idelta",
        "changes",
        "resets",
        "deriv",
        "sum_over_time",
        "avg_over_time",
        "min_over_time",
        "max_over_time",
        "last_over_time",
        "first_over_time",
        "count_over_time",
        "stddev_over_time",
        "mad_over_time",
        "absent_over_time",
        "present_over_time",
        "ts_of_max_over_time",
    ])
    .prop_flat_map(move |function| ranged.clone().prop_map(move |range| format!("{function}({range})")));
    let leaf = prop_oneof![
        selector.prop_map(str::to_owned),
        over_time,
        prop::sample::select(vec!["1", "NaN", "-0.5", "time()", "vector(2)"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        let function = prop::sample::select(vec![
            "abs",
            "ceil",
            "-",
            "sgn",
            "minute",
            "timestamp",
            "absent",
            "histogram_count",
            "histogram_avg",
            "scalar",
            "round",
            "exp",
        ]);
        let aggregate = prop::sample::select(vec![
            "sum",
            "avg",
            "min",
            "max",
            "count",
            "group",
            "stddev",
            "quantile(0.3,",
            "topk(2,",
            "bottomk(1,",
            "limitk(2,",
            "limit_ratio(0.5,",
            "count_values(\"v\",",
        ]);
        let grouping = prop::sample::select(vec!["", " by (zone)", " without (pod)", " by (le, __name__)"]);
        let operator = prop::sample::select(vec![
            "+",
            "-",
            "*",
            "/",
            "%",
            "^",
            "==",
            "!= bool",
            "> on (zone) group_left",
            "+ ignoring (pod, le) group_right",
            "and",
            "or",
            "unless on (zone)",
            "+ on (zone)",
            "</",
            "* fill(0)",
        ]);
        prop_oneof![
            (function, inner.clone()).prop_map(|(function, arg)| format!("{function}({arg})")),
            (aggregate, grouping, inner.clone()).prop_map(|(aggregate, grouping, arg)| {
                match aggregate.strip_suffix(',') {
                    Some(head) => format!("{head}, {arg}){grouping}"),
                    None => format!("{aggregate}({arg}){grouping}"),
                }
            }),
            (inner.clone(), operator, inner.clone()).prop_map(|(lhs, op, rhs)| format!("({lhs}) {op} ({rhs})")),
            inner.clone().prop_map(|arg| format!("histogram_quantile(0.9, {arg})")),
            inner.prop_map(|arg| format!("label_replace({arg}, \"pod\", \"x$1\", \"zone\", \"(.).*\")")),
        ]
    })
}

/// A result as text with its series in label order, so that only contents are compared.
/// Twelve digits: instant and range queries add up the members of a group in different orders.
fn shown(sample: &Sample) -> String {
    match sample {
        Sample::Float(value) => format!("{value:.11e}"),
        histogram => format!("{histogram:?}"),
    }
}

fn at_time(result: QueryResult, time: i64) -> Vec<String> {
    let mut lines: Vec<String> = match result {
        QueryResult::Vector(samples, _) => {
            samples.into_iter().map(|(labels, sample)| format!("{labels} {}", shown(&sample))).collect()
        }
        QueryResult::Matrix(series) => series
            .into_iter()
            .filter_map(|series| {
                let point = series.samples().into_iter().find(|point| point.0 == time)?;
                Some(format!("{} {}", series.labels, shown(&point.1)))
            })
            .collect(),
        QueryResult::Scalar(value, _) => vec![format!("{{}} {}", shown(&Sample::Float(value)))],
        QueryResult::String(text, _) => vec![text],
    };
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn an_instant_is_a_step_of_a_range(query in query(), step in 1_i64..40, delayed: bool) {
        let (storage, engine) = (storage(), engine(delayed));
        prop_assume!(parse_expr(&query, engine.parse).is_ok() && !query.contains("end()"));
        let (start, step) = (120_000, step * 1_000);
        let range = QueryKind::Range { start, end: start + 6 * step, step };
        let Ok(whole) = engine.query(&storage, &query, range, &QueryOptions::default()) else { return Ok(()) };
        for index in 0..=6 {
            let time = start + index * step;
            let single = engine.query(&storage, &query, QueryKind::Instant(time), &QueryOptions::default());
            let single = single.map_err(|error| TestCaseError::fail(format!("{query} at {time}: {error}")))?;
            prop_assert_eq!(at_time(single.result, time), at_time(whole.result.clone(), time), "{} at {}", query, time);
        }
    }

    #[test]
    fn the_same_query_gives_the_same_bytes(query in query(), delayed: bool) {
        let (storage, engine) = (storage(), engine(delayed));
        let range = QueryKind::Range { start: 0, end: 600_000, step: 13_000 };
        let run = || match engine.query(&storage, &query, range, &QueryOptions::default()) {
            Ok(evaluation) => success_body(&evaluation.result, &evaluation.annotations, &query),
            Err(error) => error.to_string(),
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn the_plan_covers_what_is_selected(query in query(), step in 1_i64..40) {
        let (storage, engine) = (Recorder { storage: storage(), selects: RefCell::default() }, engine(true));
        let Ok(expr) = parse_expr(&query, engine.parse) else { return Ok(()) };
        let range = QueryKind::Range { start: 100_000, end: 400_000, step: step * 1_000 };
        let options = QueryOptions::default();
        let Ok(plan) = engine.plan(&expr, range, &options) else { return Ok(()) };
        // Whether the query succeeds or not, it asks for nothing that was not planned.
        let failed = engine.evaluate(&storage, &expr, range, &options).is_err();
        for (matchers, min_time, max_time) in storage.selects.take() {
            let planned = plan.iter().any(|select| {
                select.matchers == matchers && select.min_time <= min_time && select.max_time >= max_time
            });
            prop_assert!(planned, "{} (failed: {}): {:?} {}..{}", query, failed, matchers, min_time, max_time);
        }
    }

    #[test]
    fn no_time_makes_it_panic(query in query(), start: i64, end: i64, step: i64) {
        let (storage, engine) = (storage(), engine(false));
        for kind in [QueryKind::Instant(start), QueryKind::Range { start, end, step }] {
            // The outcome does not matter; that there is one does.
            let outcome = engine.query(&storage, &query, kind, &QueryOptions::default());
            prop_assert!(outcome.is_ok() || outcome.is_err());
        }
    }
}

#[test]
fn info_plans_its_second_selection() {
    let engine = engine(true);
    let expr = parse_expr("info(rate(c_total[1m] offset 5m), {version=~\".+\"})", engine.parse).unwrap();
    let plan = engine.plan(&expr, QueryKind::Instant(600_000), &QueryOptions::default()).unwrap();
    let names: Vec<_> = plan.iter().map(|select| (select.metric_name(), select.min_time, select.max_time)).collect();
    assert_eq!(names, [(Some("c_total"), 240_001, 300_000), (Some("target_info"), 1, 300_000)]);
}

/// Storage may read each planned selection as it is asked for and let go of it: none is asked for twice.
#[test]
fn every_planned_selection_is_read_once() {
    let engine = engine(false);
    for query in [
        "c_total / c_total",
        "c_total / (c_total + c_total offset 1m)",
        "info(c_total, {zone=~\".+\", __name__=\"h_bucket\"})",
        "info(rate(c_total[1m]), {__name__=~\"h_.+\"})",
        "quantile_over_time(scalar(c_total{pod=\"p0\"}), c_total[1m])",
        "c_total[2m:20s] @ end()",
        "absent(c_total{pod=\"none\"}) or topk(scalar(count(c_total)), c_total)",
    ] {
        let mut storage = storage();
        for pod in 0..4 {
            let labels = Labels::from_pairs([("__name__", "c_total"), ("job", "mesh"), ("pod", &format!("p{pod}"))]);
            storage.append(&labels, 300_000, Sample::Float(1.0));
        }
        let storage = Recorder { storage, selects: RefCell::default() };
        let expr = parse_expr(query, engine.parse).unwrap();
        let (kind, options) = (QueryKind::Instant(300_000), QueryOptions::default());
        let mut plan = engine.plan(&expr, kind, &options).unwrap();
        engine.evaluate(&storage, &expr, kind, &options).unwrap();
        for (matchers, min_time, max_time) in storage.selects.take() {
            let is_covered = |planned: &PlannedSelect| {
                let holds_all = planned.matchers.iter().all(|matcher| matchers.contains(matcher));
                holds_all && planned.min_time <= min_time && planned.max_time >= max_time
            };
            let exactly = plan.iter().position(|planned| planned.matchers == matchers && is_covered(planned));
            let place = exactly.or_else(|| plan.iter().position(is_covered));
            plan.remove(place.unwrap_or_else(|| panic!("{query}: {matchers:?} was not planned once more")));
        }
    }
}

#[test]
fn limits_and_interrupts_end_a_query() {
    let storage = storage();
    let small = Engine { limits: Limits { max_samples: 5, ..Limits::default() }, ..engine(false) };
    let range = QueryKind::Range { start: 0, end: 600_000, step: 1_000 };
    let error = small.query(&storage, "c_total", range, &QueryOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "query processing would load too many samples into memory in query execution");
    let error = engine(false).query(&storage, "sum_over_time(c_total[1y:1ms])", range, &QueryOptions::default());
    assert!(matches!(error, Err(EvalError::Execution(_))));
    let asked = Cell::new(0);
    let interrupt = || {
        asked.set(asked.get() + 1);
        (asked.get() > 3).then_some(Interrupt::Timeout)
    };
    let options = QueryOptions { interrupt: Some(&interrupt), ..QueryOptions::default() };
    let error = engine(false).query(&storage, "sum(c_total)", range, &options).unwrap_err();
    assert_eq!(error.to_string(), "query timed out in expression evaluation");
}

#[test]
fn the_deepest_query_fits_a_small_stack() {
    let storage = storage();
    for query in ["c_total + ".repeat(290) + "1", format!("{}c_total{}", "(1 + ".repeat(70), ")".repeat(70))] {
        let outcome = engine(false).query(&storage, &query, QueryKind::Instant(60_000), &QueryOptions::default());
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}
