//! A latency sketch as the buckets of a classic histogram.
//!
//! The bounds are those of Tempo's service graph and span metrics together, with more below 0.1 s, where a mesh
//! lives. A call counts where its sketch bucket's middle lies, as everywhere in Windrose: a bound is off by at most
//! 2.2 %.

use std::sync::LazyLock;

use windrose_promql::number::format_openmetrics;
use windrose_proto::sketch::{Bucket, Sketch};

/// Upper bounds in seconds; `+Inf` follows.
const BOUNDS: [f64; 32] = [
    0.000_25, 0.000_5, 0.001, 0.001_5, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032, 0.048, 0.064,
    0.1, 0.128, 0.2, 0.256, 0.4, 0.512, 0.8, 1.024, 1.6, 2.048, 3.2, 4.096, 6.4, 8.192, 12.8, 16.384, 32.768,
];

/// Number of buckets with `+Inf`.
pub(super) const COUNT: usize = BOUNDS.len() + 1;

/// The values of `le`, ascending.
pub(super) fn bounds() -> &'static [String; COUNT] {
    static TEXTS: LazyLock<[String; COUNT]> =
        LazyLock::new(|| std::array::from_fn(|index| format_openmetrics(bound(index))));
    &TEXTS
}

/// The upper bound of a bucket in seconds.
pub(super) fn bound(index: usize) -> f64 {
    BOUNDS.get(index).copied().unwrap_or(f64::INFINITY)
}

/// The bucket a latency falls into.
pub(super) fn index_of(seconds: f64) -> usize {
    BOUNDS.partition_point(|bound| *bound < seconds)
}

/// The sketch's observations by bucket.
pub(super) fn spread(sketch: &Sketch) -> impl Iterator<Item = (usize, i64)> {
    static PLACES: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..1024).map(|number| index_of(Bucket(number).middle_nanos() / 1e9) as u8).collect());
    sketch.buckets().iter().map(|(bucket, count)| {
        let place = PLACES.get(usize::from(bucket.0)).map_or(COUNT - 1, |place| usize::from(*place));
        (place, *count)
    })
}
