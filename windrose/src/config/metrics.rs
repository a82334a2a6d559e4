//! The metric store: how many series, how long in memory, how long on disk.

use std::time::Duration;

use windrose_store::metrics::MetricConfig;

use super::reader::Section;
use super::value::{ByteSize, Setting};

/// The smallest memory for samples that does not make a block every few scrapes.
const HEAD_MIN: ByteSize = ByteSize::mib(16);

/// Blocks shorter than this cost more files than they save memory.
const BLOCK_LENGTH_MIN: Duration = Duration::from_secs(60);

/// The log must hold what is in memory until it is in a block, and space comes back one segment at a time.
const WAL_MIN: ByteSize = ByteSize::mib(128);

/// Reads `metrics`; what is not set is as the store has it.
pub(super) fn read(section: &mut Section<'_>) -> MetricConfig {
    let default = MetricConfig::default();
    // 0 stands for "no limit" where that makes sense.
    let limited = |bytes: ByteSize| (bytes.0 > 0).then_some(bytes.0);
    let mut config = MetricConfig {
        max_series: section.value("max_series", default.max_series),
        max_labels_per_series: section.value("max_labels_per_series", default.max_labels_per_series),
        max_label_bytes: section.value("max_label_bytes", ByteSize(default.max_label_bytes as u64)).as_usize(),
        block_length: section.value("block_length", default.block_length),
        head_max_bytes: section.value("head_max_bytes", ByteSize(default.head_max_bytes as u64)).as_usize(),
        retention: Some(section.value("retention", default.retention.unwrap_or_default())),
        retention_max_bytes: limited(section.value("retention_max_bytes", ByteSize(0))),
        cache_max_bytes: section.value("cache_max_bytes", ByteSize(default.cache_max_bytes as u64)).as_usize(),
        wal: default.wal,
    };
    config.retention = config.retention.filter(|age| !age.is_zero());
    config.wal.max_bytes = section.value("wal_max_bytes", ByteSize(config.wal.max_bytes)).0;
    section.require(config.max_series > 0, "max_series", || "must be at least 1".to_owned());
    section.require(config.max_labels_per_series > 0, "max_labels_per_series", || "must be at least 1".to_owned());
    section.require(config.block_length >= BLOCK_LENGTH_MIN, "block_length", || {
        format!("`{}` is too short; write at least {}", config.block_length.write(), BLOCK_LENGTH_MIN.write())
    });
    for (key, bytes, min) in [
        ("head_max_bytes", ByteSize(config.head_max_bytes as u64), HEAD_MIN),
        ("wal_max_bytes", ByteSize(config.wal.max_bytes), WAL_MIN),
    ] {
        section
            .require(bytes >= min, key, || format!("`{}` is too small; write at least {}", bytes.write(), min.write()));
    }
    config
}
