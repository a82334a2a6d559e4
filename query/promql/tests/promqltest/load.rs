//! Fills a store as Prometheus' TSDB would: histograms get the reset hints that its chunks carry, and
//! `load_with_nhcb` adds the classic histograms as native ones with custom buckets.

use std::collections::BTreeMap;
use std::sync::Arc;

use windrose_promql::histogram::{CUSTOM_SCHEMA, FloatHistogram, ResetHint};
use windrose_promql::memory::MemoryStorage;
use windrose_promql::value::{Sample, is_absent};
use windrose_proto::metric::labels::Labels;

use crate::script::Loaded;

pub(crate) fn load(storage: &mut MemoryStorage, gap: i64, with_nhcb: bool, series: &[Loaded]) {
    for Loaded { labels, values, starts } in series {
        let samples: Vec<Option<Sample>> =
            values.iter().map(|value| value.as_ref().map(|value| value.sample.clone())).collect();
        append(storage, labels, gap, &samples, starts);
    }
    if with_nhcb {
        for (labels, samples) in native_twins(series) {
            append(storage, &labels, gap, &samples, &[]);
        }
    }
}

fn append(storage: &mut MemoryStorage, labels: &Labels, gap: i64, samples: &[Option<Sample>], starts: &[Option<i64>]) {
    let mut previous: Option<Arc<FloatHistogram>> = None;
    for (index, sample) in samples.iter().enumerate() {
        let Some(sample) = sample else { continue };
        let sample = match sample {
            Sample::Float(value) => {
                previous = None;
                Sample::Float(*value)
            }
            Sample::Histogram(histogram) => {
                let mut stored = FloatHistogram::clone(histogram);
                if stored.hint != ResetHint::Gauge {
                    // The first sample of a chunk reads back as unknown; a reset starts a chunk.
                    let continues = previous.as_ref().is_some_and(|before| {
                        before.hint != ResetHint::Gauge
                            && stored.hint != ResetHint::Reset
                            && !unhinted(&stored).detect_reset(before)
                    });
                    stored.hint = if continues { ResetHint::NotReset } else { ResetHint::Unknown };
                }
                let stored = Arc::new(stored);
                previous = Some(Arc::clone(&stored));
                Sample::Histogram(stored)
            }
        };
        let time = gap * index as i64;
        let start = starts.get(index).copied().flatten().map_or(0, |offset| time + offset);
        storage.append_started(labels, time, start, sample);
    }
}

fn unhinted(histogram: &FloatHistogram) -> FloatHistogram {
    FloatHistogram { hint: ResetHint::Unknown, ..histogram.clone() }
}

#[derive(Default)]
struct Parts {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

fn native_twins(series: &[Loaded]) -> Vec<(Labels, Vec<Option<Sample>>)> {
    let mut histograms: BTreeMap<Labels, BTreeMap<usize, Parts>> = BTreeMap::new();
    for Loaded { labels, values, .. } in series {
        let name = labels.metric_name();
        let Some((base, part)) = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix).map(|base| (base, *suffix)))
        else {
            continue;
        };
        let bound = labels.get("le").parse::<f64>();
        if part == "_bucket" && bound.is_err() {
            continue;
        }
        let mut builder = labels.builder();
        builder.set("le", "");
        builder.set("__name__", base);
        let points = histograms.entry(builder.build()).or_default();
        for (index, value) in values.iter().enumerate() {
            let Some(Sample::Float(value)) = value.as_ref().map(|value| &value.sample) else { continue };
            if is_absent(*value) {
                continue;
            }
            let parts = points.entry(index).or_default();
            match part {
                "_bucket" => parts.buckets.push((*bound.as_ref().unwrap(), *value)),
                "_count" => parts.count = Some(*value),
                _ => parts.sum = *value,
            }
        }
    }
    histograms
        .into_iter()
        .map(|(labels, points)| {
            let length = points.keys().next_back().map_or(0, |last| last + 1);
            let mut samples = vec![None; length];
            for (index, parts) in points {
                samples[index] = Some(Sample::Histogram(Arc::new(assemble(parts))));
            }
            (labels, samples)
        })
        .collect()
}

fn assemble(mut parts: Parts) -> FloatHistogram {
    parts.buckets.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap());
    parts.buckets.dedup_by(|next, kept| next.0 == kept.0);
    let bounds: Vec<f64> = parts.buckets.iter().map(|bucket| bucket.0).filter(|bound| bound.is_finite()).collect();
    let highest = parts.buckets.last().map_or(0.0, |bucket| bucket.1);
    let count = parts.count.unwrap_or(highest);
    let mut below = 0.0;
    let mut positive: Vec<(i32, f64)> = Vec::new();
    for (index, (_, cumulative)) in parts.buckets.iter().enumerate() {
        positive.push((index as i32, cumulative - below));
        below = *cumulative;
    }
    if parts.buckets.last().is_none_or(|last| last.0.is_finite()) {
        positive.push((bounds.len() as i32, count - below));
    }
    let mut histogram = FloatHistogram {
        schema: CUSTOM_SCHEMA,
        custom_values: bounds.into(),
        count,
        sum: parts.sum,
        positive,
        ..FloatHistogram::default()
    };
    histogram.compact();
    histogram
}
