//! The promqltest language: `load`, `clear`, `eval` with its expectations.

use std::collections::BTreeMap;
use std::sync::Arc;

use windrose_promql::duration;
use windrose_promql::histogram::{CUSTOM_SCHEMA, FloatHistogram, ResetHint};
use windrose_promql::value::{ABSENT, Sample};
use windrose_proto::metric::labels::Labels;

/// One expected or loaded value.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) sample: Sample,
    /// Whether the counter reset hint was written and must therefore hold.
    pub(crate) hint_set: bool,
}

/// A loaded series: its values, and the starts of their counts relative to each value's time.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) labels: Labels,
    pub(crate) values: Values,
    pub(crate) starts: Vec<Option<i64>>,
}

pub(crate) type Values = Vec<Option<Value>>;

#[derive(Debug)]
pub(crate) enum Command {
    Clear,
    Load { gap: i64, with_nhcb: bool, series: Vec<Loaded> },
    Eval(Box<Eval>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Instant(i64),
    Range { start: i64, end: i64, step: i64 },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expectation {
    Ordered,
    Fail(Text),
    Warn(Text),
    Info(Text),
    NoWarn,
    NoInfo,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Text {
    Any,
    Exact(String),
    Regex(String),
}

#[derive(Debug)]
pub(crate) struct Eval {
    pub(crate) line: usize,
    pub(crate) expr: String,
    pub(crate) when: When,
    pub(crate) expectations: Vec<Expectation>,
    pub(crate) series: Vec<(Labels, Values)>,
    pub(crate) scalar: Option<f64>,
    pub(crate) string: Option<String>,
    pub(crate) range_vector: Option<(i64, i64)>,
}

pub(crate) fn parse(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> =
        text.lines().map(|line| if line.trim().starts_with('#') { "" } else { line.trim() }).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let number = at + 1;
        at += 1;
        let block = |at: usize| lines[at..].iter().take_while(|line| !line.is_empty()).count();
        if line.is_empty() {
            continue;
        }
        let word = line.split_whitespace().next().unwrap_or("").to_lowercase();
        if word == "clear" {
            commands.push(Command::Clear);
        } else if word.starts_with("load") {
            let gap = line.split_whitespace().nth(1).ok_or("load without interval")?;
            let count = block(at);
            let mut series = Vec::new();
            let mut starts = Vec::new();
            for line in &lines[at..at + count] {
                if let Some((head, rest)) = line.split_once(char::is_whitespace)
                    && head.ends_with("@st")
                {
                    starts = parse_starts(rest)?;
                    continue;
                }
                let (labels, values) = parse_series(line)?;
                series.push(Loaded { labels, values, starts: std::mem::take(&mut starts) });
            }
            at += count;
            commands.push(Command::Load { gap: millis(gap)?, with_nhcb: word.ends_with("nhcb"), series });
        } else if word.starts_with("eval") {
            let mut eval = parse_eval(line, number)?;
            let count = block(at);
            let mut used = 0;
            for line in &lines[at..at + count] {
                used += 1;
                if expectation(&mut eval, line, number + used)? {
                    break;
                }
            }
            at += used;
            commands.push(Command::Eval(Box::new(eval)));
        } else {
            return Err(format!("line {number}: unknown command {line}"));
        }
    }
    Ok(commands)
}

fn millis(text: &str) -> Result<i64, String> {
    duration::parse(text.trim())
}

fn parse_eval(line: &str, number: usize) -> Result<Eval, String> {
    let (head, rest) = line.split_once(char::is_whitespace).ok_or("eval without kind")?;
    let modifier = match head.strip_prefix("eval_") {
        Some("fail") => vec![Expectation::Fail(Text::Any)],
        Some("warn") => vec![Expectation::Warn(Text::Any)],
        Some("info") => vec![Expectation::Info(Text::Any)],
        Some("ordered") => vec![Expectation::Ordered],
        _ => Vec::new(),
    };
    let words: Vec<&str> = rest.split_whitespace().collect();
    let after = |count: usize| {
        let mut text = rest.trim_start();
        for _ in 0..count {
            text = text.split_once(char::is_whitespace).map_or("", |(_, tail)| tail.trim_start());
        }
        text.to_owned()
    };
    let (when, expr) = match words.as_slice() {
        ["instant", "at", time, ..] => (When::Instant(millis(time)?), after(3)),
        ["range", "from", start, "to", end, "step", step, ..] => {
            (When::Range { start: millis(start)?, end: millis(end)?, step: millis(step)? }, after(7))
        }
        _ => return Err(format!("line {number}: bad eval {line}")),
    };
    Ok(Eval {
        line: number,
        expr,
        when,
        expectations: modifier,
        series: Vec::new(),
        scalar: None,
        string: None,
        range_vector: None,
    })
}

/// Takes one line below an eval; true when it ends the block (a scalar does).
fn expectation(eval: &mut Eval, line: &str, number: usize) -> Result<bool, String> {
    if let Some(rest) = line.strip_prefix("expect range vector") {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let ["from", start, "to", _, "step", step] = words.as_slice() else {
            return Err(format!("line {number}: bad range vector"));
        };
        eval.range_vector = Some((millis(start)?, millis(step)?));
        return Ok(false);
    }
    if let Some(rest) = line.strip_prefix("expect string") {
        let text = rest.trim();
        eval.string = Some(text[1..text.len() - 1].to_owned());
        return Ok(false);
    }
    if let Some(rest) = line.strip_prefix("expected_fail_message") {
        eval.expectations.retain(|known| *known != Expectation::Fail(Text::Any));
        eval.expectations.push(Expectation::Fail(Text::Exact(rest.trim().to_owned())));
        return Ok(false);
    }
    if let Some(rest) = line.strip_prefix("expect ") {
        let (kind, text) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
        let text = match text.trim() {
            "" => Text::Any,
            text => match text.split_once(':') {
                Some(("msg", text)) => Text::Exact(text.trim().to_owned()),
                Some(("regex", text)) => Text::Regex(text.trim().to_owned()),
                _ => return Err(format!("line {number}: bad expectation {line}")),
            },
        };
        eval.expectations.push(match kind {
            "ordered" => Expectation::Ordered,
            "fail" => Expectation::Fail(text),
            "warn" => Expectation::Warn(text),
            "info" => Expectation::Info(text),
            "no_warn" => Expectation::NoWarn,
            "no_info" => Expectation::NoInfo,
            _ => return Err(format!("line {number}: bad expectation {line}")),
        });
        return Ok(false);
    }
    if let Some(value) = line.parse::<f64>().ok().or_else(|| windrose_promql::number::parse_literal(line)) {
        eval.scalar = Some(value);
        return Ok(true);
    }
    eval.series.push(parse_series(line).map_err(|error| format!("line {number}: {error}"))?);
    Ok(false)
}

pub(crate) fn parse_series(line: &str) -> Result<(Labels, Values), String> {
    let split = match line.find('{') {
        Some(open) if line[..open].chars().all(|c| c.is_alphanumeric() || "_:".contains(c)) => {
            closing_brace(line, open)?
        }
        _ => line.find(char::is_whitespace).unwrap_or(line.len()),
    };
    Ok((parse_labels(&line[..split])?, parse_values(&line[split..])?))
}

/// `_ _x2 -30s-1mx3 0`: offsets from the time of each value.
fn parse_starts(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        let bad = || format!("bad start {item}");
        let (body, times) = match item.rsplit_once('x') {
            Some((body, times)) => (body, times.parse::<usize>().map_err(|_| bad())?),
            None => (item, 0),
        };
        if body == "_" {
            out.extend(std::iter::repeat_n(None, times.max(1)));
            continue;
        }
        let signed = |text: &str| -> Result<i64, String> {
            match text.strip_prefix('-') {
                Some(rest) => millis(rest).map(|offset| -offset),
                None => millis(text.strip_prefix('+').unwrap_or(text)),
            }
        };
        let split = body[1..].find(['+', '-']).map_or(body.len(), |at| at + 1);
        let (mut offset, step) = (signed(&body[..split])?, &body[split..]);
        let step = if step.is_empty() { 0 } else { signed(step)? };
        for _ in 0..=times {
            out.push(Some(offset));
            offset += step;
        }
    }
    Ok(out)
}

fn closing_brace(line: &str, open: usize) -> Result<usize, String> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in line[open..].char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"' | '\'') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if "\"'`".contains(c) => quote = Some(c),
            None if c == '}' => return Ok(open + at + 1),
            None => {}
        }
    }
    Err(format!("no closing brace in {line}"))
}

/// The selector grammar reads metrics too: every matcher must be an equality.
fn parse_labels(text: &str) -> Result<Labels, String> {
    if text.trim() == "{}" {
        return Ok(Labels::default());
    }
    let matchers = windrose_promql::parse_selector(text).map_err(|error| format!("{text}: {error}"))?;
    Ok(Labels::from_pairs(matchers.into_iter().map(|matcher| (matcher.name, matcher.value))))
}

fn parse_values(text: &str) -> Result<Values, String> {
    let mut out = Values::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if rest.starts_with("{{") {
            rest = parse_histograms(rest, &mut out)?;
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            parse_item(&rest[..end], &mut out)?;
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(out)
}

fn float(value: f64) -> Option<Value> {
    Some(Value { sample: Sample::Float(value), hint_set: false })
}

/// `1`, `1x5`, `0+10x5`, `_x3`, `stale`.
fn parse_item(item: &str, out: &mut Values) -> Result<(), String> {
    let bad = || format!("bad value {item}");
    if let Some(rest) = item.strip_prefix('_') {
        let count =
            if rest.is_empty() { 1 } else { rest.strip_prefix('x').and_then(|n| n.parse().ok()).ok_or_else(bad)? };
        out.extend(std::iter::repeat_n(None, count));
        return Ok(());
    }
    let (body, times) = match item.rsplit_once('x') {
        Some((body, times)) => (body, times.parse::<usize>().map_err(|_| bad())?),
        None => (item, 0),
    };
    if body == "stale" {
        out.extend(std::iter::repeat_n(float(ABSENT), times + 1));
        return Ok(());
    }
    let (first, step) = split_increment(body).ok_or_else(bad)?;
    let mut value = first;
    for _ in 0..=times {
        out.push(float(value));
        value += step;
    }
    Ok(())
}

/// `a+b` or `a-b`, where both may have exponents and signs.
fn split_increment(body: &str) -> Option<(f64, f64)> {
    if let Ok(value) = body.parse() {
        return Some((value, 0.0));
    }
    body.char_indices().skip(1).filter(|(_, c)| "+-".contains(*c)).find_map(|(at, _)| {
        let first = body[..at].parse().ok()?;
        let step = body[at..].parse().ok()?;
        Some((first, step))
    })
}

fn parse_histograms<'t>(text: &'t str, out: &mut Values) -> Result<&'t str, String> {
    let (first, hint_set, rest) = parse_histogram(text)?;
    let operator = rest.chars().next().filter(|c| "+-".contains(*c) && rest[1..].starts_with("{{"));
    let Some(operator) = operator else {
        let (times, rest) = repeat_count(rest)?;
        let value = Value { sample: Sample::Histogram(Arc::new(first)), hint_set };
        out.extend(std::iter::repeat_n(Some(value), times + 1));
        return Ok(rest);
    };
    let (step, hint_set, rest) = parse_histogram(&rest[1..])?;
    let (times, rest) = repeat_count(rest)?;
    let mut current = first;
    for index in 0..=times {
        if index > 0 {
            let outcome = if operator == '+' { current.add(&step) } else { current.subtract(&step) };
            outcome.map_err(|_| "incompatible histograms".to_owned())?;
            if operator == '-' {
                current.hint = ResetHint::Gauge;
            }
        }
        out.push(Some(Value { sample: Sample::Histogram(Arc::new(current.clone())), hint_set }));
    }
    Ok(rest)
}

fn repeat_count(text: &str) -> Result<(usize, &str), String> {
    let Some(rest) = text.strip_prefix('x') else { return Ok((0, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Ok((rest[..end].parse().map_err(|_| format!("bad count in {text}"))?, &rest[end..]))
}

fn parse_histogram(text: &str) -> Result<(FloatHistogram, bool, &str), String> {
    let end = text.find("}}").ok_or("histogram without end")?;
    let mut histogram = FloatHistogram::default();
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    let mut rest = text[2..end].trim();
    while !rest.is_empty() {
        let (key, tail) = rest.split_once(':').ok_or("histogram field without value")?;
        let length = if tail.starts_with('[') {
            tail.find(']').ok_or("list without end")? + 1
        } else {
            tail.find(char::is_whitespace).unwrap_or(tail.len())
        };
        fields.insert(key, &tail[..length]);
        rest = tail[length..].trim_start();
    }
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("bad number {text}"));
    let list =
        |text: &str| text.trim_matches(['[', ']']).split_whitespace().map(number).collect::<Result<Vec<f64>, String>>();
    let field = |key: &str| fields.get(key).map_or(Ok(0.0), |text| number(text));
    histogram.schema = field("schema")? as i32;
    (histogram.sum, histogram.count) = (field("sum")?, field("count")?);
    (histogram.zero_count, histogram.zero_threshold) = (field("z_bucket")?, field("z_bucket_w")?);
    if let Some(bounds) = fields.get("custom_values") {
        histogram.custom_values = list(bounds)?.into();
    }
    debug_assert!(histogram.schema != CUSTOM_SCHEMA || histogram.negative.is_empty());
    let buckets = |key: &str, offset: &str| -> Result<Vec<(i32, f64)>, String> {
        let offset = field(offset)? as i32;
        let counts = fields.get(key).map_or(Ok(Vec::new()), |text| list(text))?;
        Ok(counts.into_iter().enumerate().map(|(index, count)| (offset + index as i32, count)).collect())
    };
    histogram.positive = buckets("buckets", "offset")?;
    histogram.negative = buckets("n_buckets", "n_offset")?;
    let hint = fields.get("counter_reset_hint");
    histogram.hint = match hint {
        Some(&"reset") => ResetHint::Reset,
        Some(&"not_reset") => ResetHint::NotReset,
        Some(&"gauge") => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    };
    histogram.compact();
    Ok((histogram, hint.is_some(), &text[end + 2..]))
}
