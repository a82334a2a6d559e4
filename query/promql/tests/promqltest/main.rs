//! Runs Prometheus' own test language over this engine, when the suite is at hand.
//!
//! The suite is third-party and not part of this repository; it is read from a folder beside it, and the test says
//! so when there is none. The table of floors is part of the test: a file that falls below what it once reached
//! fails.
#![expect(clippy::unwrap_used, reason = "an integration test is a test")]

mod load;
mod pinned;
mod script;
mod verdict;

use std::path::{Path, PathBuf};

use windrose_promql::eval::{Engine, Limits, QueryKind, QueryOptions};
use windrose_promql::memory::MemoryStorage;
use windrose_promql::value::{QueryResult, Sample};
use windrose_promql::{ParseOptions, parse_expr};

use script::{Command, Eval, Expectation, When};
use verdict::Miss;

/// Per file: values that must be right, and how many must be right including annotations and error texts.
/// That is all of each file.
const FLOORS: &[(&str, usize, usize)] = &[
    ("aggregators.test", 107, 107),
    ("at_modifier.test", 52, 52),
    ("collision.test", 1, 1),
    ("duration_expression.test", 40, 40),
    ("extended_vectors.test", 112, 112),
    ("fill-modifier.test", 31, 31),
    ("functions.test", 287, 287),
    ("histograms.test", 124, 124),
    ("info.test", 35, 35),
    ("limit.test", 25, 25),
    ("literals.test", 16, 16),
    ("name_label_dropping.test", 20, 20),
    ("native_histograms.test", 348, 348),
    ("operators.test", 143, 143),
    ("range_queries.test", 12, 12),
    ("selectors.test", 21, 21),
    ("staleness.test", 11, 11),
    ("start_timestamps.test", 17, 17),
    ("subquery.test", 23, 23),
    ("trig_functions.test", 13, 13),
    ("type_and_unit.test", 38, 38),
];

/// The settings of the suite.
fn engine() -> Engine {
    Engine {
        delayed_name_removal: true,
        use_start_timestamps: true,
        parse: ParseOptions::ALL,
        limits: Limits { max_samples: 10_000, ..Limits::default() },
        ..Engine::default()
    }
}

#[derive(Default)]
struct Score {
    total: usize,
    values: usize,
    strict: usize,
    derived: usize,
    misses: Vec<String>,
}

fn suite() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.ancestors().map(|folder| folder.join("shared/prometheus/promqltest")).find(|folder| folder.is_dir())
}

#[test]
fn suite_reaches_its_floors() {
    let Some(folder) = suite() else {
        println!("skipped: no folder shared/prometheus/promqltest beside the repository");
        return;
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    files.sort();
    let mut all = Score::default();
    let mut below = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let score = run_file(&std::fs::read_to_string(&file).unwrap());
        println!(
            "{name:<28} evals {:>4}  values {:>4}  strict {:>4}  derived {:>4}",
            score.total, score.values, score.strict, score.derived
        );
        for miss in &score.misses {
            println!("    {name}:{miss}");
        }
        if let Some((_, values, strict)) = FLOORS.iter().find(|(file, ..)| *file == name)
            && (score.values < *values || score.strict < *strict || score.derived < *strict)
        {
            let Score { values: got, strict: got_strict, derived, .. } = score;
            below.push(format!(
                "{name}: values {got} of {values}, strict {got_strict} and derived {derived} of {strict}"
            ));
        }
        all.total += score.total;
        all.values += score.values;
        all.strict += score.strict;
        all.derived += score.derived;
    }
    println!("TOTAL evals {} values {} strict {} derived {}", all.total, all.values, all.strict, all.derived);
    assert!(below.is_empty(), "below the floor: {below:?}");
}

fn run_file(text: &str) -> Score {
    let mut score = Score::default();
    let mut storage = MemoryStorage::new();
    for command in script::parse(text).unwrap() {
        match command {
            Command::Clear => storage = MemoryStorage::new(),
            Command::Load { gap, with_nhcb, series } => load::load(&mut storage, gap, with_nhcb, &series),
            Command::Eval(eval) => run_eval(&storage, &eval, &mut score),
        }
    }
    score
}

fn run_eval(storage: &MemoryStorage, eval: &Eval, score: &mut Score) {
    score.total += 1;
    let kind = match eval.when {
        When::Instant(time) => QueryKind::Instant(time),
        When::Range { start, end, step } => QueryKind::Range { start, end, step },
    };
    let outcome = engine().query(storage, &eval.expr, kind, &QueryOptions::default());
    let miss = match verdict::judge(eval, &outcome) {
        Ok(()) => {
            score.values += 1;
            score.strict += 1;
            match derived(storage, eval) {
                Ok(()) => {
                    score.derived += 1;
                    return;
                }
                Err(message) => format!("derived: {message}"),
            }
        }
        Err(Miss::Texts(message)) => {
            score.values += 1;
            format!("text: {message}")
        }
        Err(Miss::Values(message)) => {
            format!("VALUES: {message}")
        }
    };
    score.misses.push(format!("{} {}\n        {}", eval.line, eval.expr, miss.chars().take(600).collect::<String>()));
}

/// What must hold besides: an instant query equals the step of a range query at its time, and pinning every selector
/// to that time makes the time of the evaluation irrelevant.
fn derived(storage: &MemoryStorage, eval: &Eval) -> Result<(), String> {
    let When::Instant(time) = eval.when else { return Ok(()) };
    let fails = eval.expectations.iter().any(|expectation| matches!(expectation, Expectation::Fail(_)));
    if fails || eval.string.is_some() || eval.range_vector.is_some() {
        return Ok(());
    }
    let ordered = eval.expectations.contains(&Expectation::Ordered);
    let depends_on_range = ["start()", "end()", "range()", "step()"].iter().any(|call| eval.expr.contains(call));
    if !ordered && !depends_on_range {
        check_as_range(storage, eval, time).map_err(|error| format!("as range: {error}"))?;
    }
    let expr = parse_expr(&eval.expr, engine().parse).map_err(|error| error.to_string())?;
    let Some(pinned) = pinned::pin(&expr, time) else { return Ok(()) };
    let times = if time == 0 { vec![-1_000, 0, 1_000] } else { vec![-10 * time, 0, time / 5, time, 10 * time] };
    for at in times {
        let outcome = engine().evaluate(storage, &pinned, QueryKind::Instant(at), &QueryOptions::default());
        let evaluation = outcome.map_err(|error| format!("pinned, at {at}: {error}"))?;
        verdict::check_values(eval, &evaluation.result, eval.when, ordered)
            .map_err(|error| format!("pinned, at {at}: {error}"))?;
    }
    Ok(())
}

fn check_as_range(storage: &MemoryStorage, eval: &Eval, time: i64) -> Result<(), String> {
    let kind = QueryKind::Range { start: time - 60_000, end: time + 60_000, step: 60_000 };
    let evaluation =
        engine().query(storage, &eval.expr, kind, &QueryOptions::default()).map_err(|error| error.to_string())?;
    let QueryResult::Matrix(series) = evaluation.result else { return Err("not a matrix".to_owned()) };
    let middle: Vec<_> = series
        .into_iter()
        .filter_map(|series| {
            let point = series.samples().into_iter().find(|(at, _)| *at == time)?;
            Some((series.labels, point.1))
        })
        .collect();
    let result = match (eval.scalar, middle.as_slice()) {
        (Some(_), [(_, Sample::Float(value))]) => QueryResult::Scalar(*value, time),
        _ => QueryResult::Vector(middle, time),
    };
    verdict::check_values(eval, &result, eval.when, false)
}
