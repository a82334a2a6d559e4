//! Settings of the metric store.

use std::time::Duration;

use crate::wal::WalConfig;

/// Settings of the metric store. Limits are per tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricConfig {
    /// Its log; samples of about two block lengths must fit.
    pub wal: WalConfig,
    /// Active series. The budget is 600 bytes of memory each, samples included; see `benches/metrics.rs`.
    pub max_series: usize,
    /// Labels of one series.
    pub max_labels_per_series: usize,
    /// Bytes of the names and values of one series together.
    pub max_label_bytes: usize,
    /// How long samples are collected before they become a block.
    pub block_length: Duration,
    /// Bytes of log, hence at most of memory, of samples that are in no block yet after which one is
    /// written early.
    pub head_max_bytes: usize,
    /// Blocks older than this are removed; `None` keeps them for ever.
    pub retention: Option<Duration>,
    /// Bytes of blocks beyond which the oldest are removed; `None` sets no bound.
    pub retention_max_bytes: Option<u64>,
    /// Memory for what was read from blocks.
    pub cache_max_bytes: usize,
}

impl Default for MetricConfig {
    fn default() -> Self {
        Self {
            wal: WalConfig {
                segment_bytes: 32 << 20,
                max_bytes: 2 << 30,
                // Nobody consumes this log while it is written; see `journal`.
                handover_max_bytes: 0,
                ..WalConfig::default()
            },
            max_series: 2_000_000,
            // A sidecar's series have about 25.
            max_labels_per_series: 64,
            max_label_bytes: 16 << 10,
            block_length: Duration::from_secs(2 * 3600),
            head_max_bytes: 512 << 20,
            retention: Some(Duration::from_secs(15 * 24 * 3600)),
            retention_max_bytes: None,
            cache_max_bytes: 128 << 20,
        }
    }
}
