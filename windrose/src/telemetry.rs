//! What the process tells about itself at `/metrics`.
//!
//! Every metric stands in [`Metric`]: its name, its kind and the question it answers. Values are read
//! where they are counted, at the time of the scrape; nothing is counted twice. Labels come from
//! closed vocabularies, never from data. Each metric is stable unless its help says "experimental".

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;
use windrose_collector::pipeline::JoinStats;
use windrose_collector::receive::{
    MetricProtocol, MetricProtocolStats, MetricReceiveStats, ProtocolStats, PushedCounters, ReceiveStats, SampleReject,
};
use windrose_proto::model::IngestProtocol;
use windrose_proto::reject::RejectReason;
use windrose_proto::time::UnixNanos;
use windrose_query::scrape_status::TargetSource;
use windrose_store::metrics::{MetricStats, MetricStore};
use windrose_store::wal::WalStats;

use crate::maintenance::MaintenanceStats;
use crate::readiness::Readiness;

mod process;
#[cfg(test)]
mod tests;

macro_rules! metrics {
    ($($variant:ident: $kind:ident $name:literal, $help:literal;)+) => {
        /// Every metric of the process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Metric { $($variant,)+ }

        impl Metric {
            /// All of them, in the order they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Without the `_total` that is added to counters.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            const fn kind(self) -> MetricType {
                match self { $(Self::$variant => MetricType::$kind,)+ }
            }

            const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }
        }
    };
}

metrics! {
    BuildInfo: Gauge "windrose_build_info", "1, labelled with the version";
    Ready: Gauge "windrose_ready", "1 when ready for traffic";
    ReceiveRequests: Counter "windrose_receive_requests", "requests with spans, whatever became of them";
    ReceiveBodyBytes: Counter "windrose_receive_body_bytes", "bytes of their bodies as they came over the wire";
    ReceiveSpans: Counter "windrose_receive_spans", "spans acknowledged: they are in the write-ahead log";
    ReceiveRefusedRequests: Counter "windrose_receive_refused_requests", "requests refused as a whole";
    ReceiveRejectedSpans: Counter "windrose_receive_rejected_spans", "spans that were not taken";
    ReceiveInFlight: Gauge "windrose_receive_in_flight_requests", "requests being read, decoded or waiting for the disk";
    MetricReceiveRequests: Counter "windrose_metric_receive_requests", "requests with metrics, whatever became of them";
    MetricReceiveBodyBytes: Counter "windrose_metric_receive_body_bytes", "bytes of their bodies as they came over the wire";
    MetricReceiveSamples: Counter "windrose_metric_receive_samples", "pushed samples acknowledged: they are in the metric log";
    MetricReceiveRefusedRequests: Counter "windrose_metric_receive_refused_requests", "requests with metrics refused as a whole";
    MetricReceiveRejectedSamples: Counter "windrose_metric_receive_rejected_samples", "pushed samples that were not stored";
    MetricReceivePushedCounters: Counter "windrose_metric_receive_pushed_counters", "resources of requests that pushed counters of proxies, by whether they are attached to edges";
    WalAppendedRecords: Counter "windrose_wal_appended_records", "records written to the write-ahead log";
    WalAppendedBytes: Counter "windrose_wal_appended_bytes", "their bytes, headers included";
    WalSyncs: Counter "windrose_wal_syncs", "successful fdatasync calls";
    WalSyncSeconds: Counter "windrose_wal_sync_seconds", "time spent in them";
    WalSyncSecondsMax: Gauge "windrose_wal_sync_max_seconds", "the longest of them since the start";
    WalFailures: Counter "windrose_wal_failures", "writes and syncs that the disk failed";
    WalRefusedRecords: Counter "windrose_wal_refused_records", "records that were not taken";
    WalDiskBytes: Gauge "windrose_wal_disk_bytes", "bytes of all files of the log, as counted against wal.max_bytes";
    WalSegments: Gauge "windrose_wal_segments", "files of the log";
    WalLagBytes: Gauge "windrose_wal_lag_bytes", "bytes committed but not joined yet";
    WalDamagedBytes: Counter "windrose_wal_damaged_bytes", "acknowledged bytes that could not be read back: data is lost";
    WalTornBytes: Counter "windrose_wal_torn_bytes", "bytes of writes that a crash cut short, never acknowledged";
    SealFailures: Counter "windrose_seal_failures", "seals that failed; each is repeated, and the log is kept meanwhile";
    TablesQuarantinedFiles: Gauge "windrose_tables_quarantined_files", "sealed files that are damaged and left out of answers";
    JoinStoredSpans: Counter "windrose_join_stored_spans", "distinct spans joined and stored";
    JoinDuplicateSpans: Counter "windrose_join_duplicate_spans", "spans that were stored already";
    JoinLateSpans: Counter "windrose_join_late_spans", "spans that came after their trace had been settled";
    JoinOversizeSpans: Counter "windrose_join_oversize_spans", "spans beyond the size of trace that the join looks at";
    JoinUnreadableRecords: Counter "windrose_join_unreadable_records", "logged records that did not decode: data is lost";
    JoinTraces: Counter "windrose_join_traces", "what happened to traces; evicted ones were settled early for lack of memory";
    JoinRevisions: Counter "windrose_join_revisions", "settled traces that late spans changed";
    JoinDerivations: Counter "windrose_join_derivations", "how often a trace was derived (experimental)";
    JoinArchiveErrors: Counter "windrose_join_archive_errors", "sealed spans of a re-opened trace that could not be read";
    JoinSpanUses: Gauge "windrose_join_span_uses", "distinct spans since the start by what became of them; their sum is the stored spans without the oversize ones";
    JoinFacts: Counter "windrose_join_facts", "what traces learned from other traces";
    JoinConflicts: Counter "windrose_join_conflicts", "facts of other traces that several answers fitted, so that none was taken";
    JoinKnown: Gauge "windrose_join_known", "addresses, requests and open questions remembered across traces";
    JoinKnownRefused: Counter "windrose_join_known_refused", "addresses, requests and questions that found no place: traces that need them stay unresolved";
    JoinOpenTraces: Gauge "windrose_join_open_traces", "traces that may still grow";
    JoinOpenBytes: Gauge "windrose_join_open_bytes", "memory they take";
    JoinUnsealedBytes: Gauge "windrose_join_unsealed_bytes", "memory of the rows that are not in sealed files yet";
    JoinUnsealedRows: Gauge "windrose_join_unsealed_rows", "rows in memory that are not in sealed files yet";
    CompactionFiles: Counter "windrose_compaction_files", "sealed files that were merged into larger ones";
    CompactionReadBytes: Counter "windrose_compaction_read_bytes", "their bytes";
    CompactionWrittenBytes: Counter "windrose_compaction_written_bytes", "bytes of the files they became";
    CompactionSeconds: Counter "windrose_compaction_seconds", "time spent looking for files to merge and merging them";
    RetentionFiles: Counter "windrose_retention_files", "sealed files that had been kept long enough";
    RetentionBytes: Counter "windrose_retention_bytes", "their bytes";
    VacuumFiles: Counter "windrose_vacuum_files", "files deleted because no table lists them any more";
    MaintenanceFailures: Counter "windrose_maintenance_failures", "rounds over the sealed tables that the storage failed";
    MetricsActiveSeries: Gauge "windrose_metrics_active_series", "series in memory";
    MetricsSeries: Counter "windrose_metrics_series", "series that appeared in and left memory";
    MetricsSamples: Counter "windrose_metrics_samples", "samples stored";
    MetricsExemplars: Counter "windrose_metrics_exemplars", "exemplars stored";
    MetricsDropped: Counter "windrose_metrics_dropped", "samples and series that were not stored";
    MetricsHeadBytes: Gauge "windrose_metrics_head_bytes", "memory of series and of their samples in memory, roughly";
    MetricsChunks: Gauge "windrose_metrics_chunks", "chunks of samples in memory";
    MetricsWalBytes: Gauge "windrose_metrics_wal_bytes", "bytes of the metric log, as counted against metrics.wal_max_bytes";
    MetricsReplaySeconds: Gauge "windrose_metrics_replay_seconds", "how long replaying the metric log took at the start";
    MetricsBlocks: Gauge "windrose_metrics_blocks", "blocks in the tables";
    MetricsBlockBytes: Gauge "windrose_metrics_block_bytes", "bytes of their files";
    MetricsBlockChanges: Counter "windrose_metrics_block_changes", "blocks written, removed by retention, and attempts at either that failed";
    ScrapeTargets: Gauge "windrose_scrape_targets", "targets by the outcome of their last scrape";
    PortConnections: Counter "windrose_port_connections", "connections accepted";
    PortOpenConnections: Gauge "windrose_port_open_connections", "connections open now";
    PortResponses: Counter "windrose_port_responses", "answers by class of status";
    ProcessCpuSeconds: Counter "process_cpu_seconds", "user and system time";
    ProcessResidentBytes: Gauge "process_resident_memory_bytes", "resident memory";
    ProcessOpenFds: Gauge "process_open_fds", "open file descriptors";
    ProcessStart: Gauge "process_start_time_seconds", "start of the process, unix time";
}

/// What one port counts.
#[derive(Debug, Default)]
pub struct PortStats {
    accepted: AtomicU64,
    ended: AtomicU64,
    /// By the first digit of the status.
    responses: [AtomicU64; 6],
}

/// One open connection; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection<'a>(&'a PortStats);

impl PortStats {
    pub(crate) fn connection(&self) -> OpenConnection<'_> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self)
    }

    pub(crate) fn answered(&self, status: http::StatusCode) {
        if let Some(count) = self.responses.get(usize::from(status.as_u16() / 100)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where the values come from.
#[derive(Clone, Debug)]
pub struct Sources {
    pub readiness: Readiness,
    pub started: UnixNanos,
    pub receive: Arc<ReceiveStats>,
    pub metric_receive: Arc<MetricReceiveStats>,
    pub wal: Arc<WalStats>,
    pub join: Arc<JoinStats>,
    pub maintenance: Arc<MaintenanceStats>,
    pub metrics: MetricStore,
    pub targets: Arc<dyn TargetSource>,
    /// By the name of the port.
    pub ports: Vec<(&'static str, Arc<PortStats>)>,
}

/// Everything that can be scraped.
#[derive(Debug)]
pub struct Telemetry(Registry);

impl Telemetry {
    /// The metrics of `sources`.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    /// The page, in OpenMetrics.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.0)?;
        Ok(page)
    }
}

/// A value with its labels.
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: f64,
}

/// Counters are exact up to 2^53, which at a million spans per second lasts 285 years.
fn sample(labels: &[(&'static str, &str)], value: u64) -> Sample {
    let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Sample { labels, value: value as f64 }
}

fn one(value: u64) -> Vec<Sample> {
    vec![sample(&[], value)]
}

fn loaded(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Looking at every series once is enough.
        let metrics = self.metrics.stats();
        for metric in Metric::ALL {
            let mut family = encoder.encode_descriptor(metric.name(), metric.help(), None, metric.kind())?;
            for Sample { labels, value } in self.samples(*metric, &metrics) {
                if labels.is_empty() {
                    encode_value(&mut family, *metric, value)?;
                } else {
                    encode_value(&mut family.encode_family(&labels)?, *metric, value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_value(encoder: &mut MetricEncoder<'_>, metric: Metric, value: f64) -> Result<(), fmt::Error> {
    match metric.kind() {
        MetricType::Counter => encoder.encode_counter(&value, NO_EXEMPLAR),
        _ => encoder.encode_gauge(&value),
    }
}

const NO_EXEMPLAR: Option<&Exemplar<Vec<(String, String)>, f64>> = None;

impl Sources {
    fn samples(&self, metric: Metric, metrics: &MetricStats) -> Vec<Sample> {
        let Self { wal, join, maintenance, .. } = self;
        let (counts, gauges) = join.read();
        match metric {
            Metric::BuildInfo => vec![sample(&[("version", env!("CARGO_PKG_VERSION"))], 1)],
            Metric::Ready => one(u64::from(self.readiness.check().is_ok())),
            Metric::ReceiveRequests => self.per_protocol(|stats| stats.requests.count()),
            Metric::ReceiveBodyBytes => self.per_protocol(|stats| stats.requests.body_bytes()),
            Metric::ReceiveSpans => self.per_protocol(ProtocolStats::spans),
            Metric::ReceiveRefusedRequests => self.per_reason(|stats, reason| stats.requests.refused(reason)),
            Metric::ReceiveRejectedSpans => self.per_reason(ProtocolStats::rejected_spans),
            Metric::ReceiveInFlight => one(self.receive.in_flight_requests()),
            Metric::MetricReceiveRequests => self.per_metric_protocol(|stats| stats.requests.count()),
            Metric::MetricReceiveBodyBytes => self.per_metric_protocol(|stats| stats.requests.body_bytes()),
            Metric::MetricReceiveSamples => self.per_metric_protocol(MetricProtocolStats::samples),
            Metric::MetricReceiveRefusedRequests => {
                self.per_metric_reason(RejectReason::ALL, RejectReason::as_str, |stats, reason| {
                    stats.requests.refused(reason)
                })
            }
            Metric::MetricReceiveRejectedSamples => {
                self.per_metric_reason(SampleReject::ALL, SampleReject::as_str, MetricProtocolStats::rejected_samples)
            }
            Metric::MetricReceivePushedCounters => PushedCounters::all()
                .map(|result| sample(&[("result", result.as_str())], self.metric_receive.pushed(result)))
                .collect(),
            Metric::WalAppendedRecords => one(loaded(&wal.appended_records)),
            Metric::WalAppendedBytes => one(loaded(&wal.appended_bytes)),
            Metric::WalSyncs => one(loaded(&wal.fsyncs)),
            Metric::WalSyncSeconds => seconds(loaded(&wal.fsync_nanos_sum)),
            Metric::WalSyncSecondsMax => seconds(loaded(&wal.fsync_nanos_max)),
            Metric::WalFailures => vec![
                sample(&[("operation", "sync")], loaded(&wal.fsync_failures)),
                sample(&[("operation", "write")], loaded(&wal.write_failures)),
            ],
            Metric::WalRefusedRecords => vec![
                sample(&[("reason", "out_of_space")], loaded(&wal.refused_out_of_space)),
                sample(&[("reason", "overloaded")], loaded(&wal.refused_overloaded)),
                sample(&[("reason", "too_large")], loaded(&wal.refused_too_large)),
                sample(&[("reason", "io")], loaded(&wal.refused_io)),
            ],
            Metric::WalDiskBytes => one(loaded(&wal.disk_bytes)),
            Metric::WalSegments => one(loaded(&wal.segments)),
            Metric::WalLagBytes => one(loaded(&wal.lag_bytes)),
            Metric::WalDamagedBytes => one(loaded(&wal.damaged_bytes)),
            Metric::WalTornBytes => one(loaded(&wal.torn_bytes)),
            Metric::SealFailures => one(join.seal_failures()),
            Metric::TablesQuarantinedFiles => one(join.quarantined_files()),
            Metric::JoinStoredSpans => one(counts.spans_stored),
            Metric::JoinDuplicateSpans => one(counts.spans_duplicate),
            Metric::JoinLateSpans => one(counts.spans_late),
            Metric::JoinOversizeSpans => one(counts.spans_beyond_trace_limit),
            Metric::JoinUnreadableRecords => one(join.unreadable_records()),
            Metric::JoinTraces => vec![
                sample(&[("event", "opened")], counts.traces_opened),
                sample(&[("event", "reopened")], counts.traces_reopened),
                sample(&[("event", "settled")], counts.traces_settled),
                sample(&[("event", "evicted")], counts.traces_evicted),
            ],
            Metric::JoinRevisions => one(counts.revisions),
            Metric::JoinDerivations => one(counts.derivations),
            Metric::JoinArchiveErrors => one(counts.archive_errors),
            Metric::JoinSpanUses => {
                let uses = counts.uses;
                let of = [
                    ("hop", uses.hop),
                    ("local", uses.local),
                    ("phase", uses.phase),
                    ("unlinked", uses.unlinked),
                    ("confirmed", uses.confirmed),
                ];
                of.map(|(word, spans)| sample(&[("use", word)], spans.max(0) as u64)).into()
            }
            Metric::JoinFacts => vec![
                sample(&[("about", "address")], counts.facts_address),
                sample(&[("about", "entry")], counts.facts_entry),
            ],
            Metric::JoinConflicts => one(counts.facts_conflict),
            Metric::JoinKnown => vec![
                sample(&[("what", "addresses")], gauges.across.addresses as u64),
                sample(&[("what", "requests")], gauges.across.requests as u64),
                sample(&[("what", "questions")], gauges.across.questions as u64),
            ],
            Metric::JoinKnownRefused => one(gauges.across.refused),
            Metric::JoinOpenTraces => one(gauges.open_traces as u64),
            Metric::JoinOpenBytes => one(gauges.open_bytes as u64),
            Metric::JoinUnsealedBytes => one(gauges.unsealed_bytes as u64),
            Metric::JoinUnsealedRows => one(gauges.unsealed_rows as u64),
            Metric::CompactionFiles => one(loaded(&maintenance.compacted_files)),
            Metric::CompactionReadBytes => one(loaded(&maintenance.compacted_bytes)),
            Metric::CompactionWrittenBytes => one(loaded(&maintenance.written_bytes)),
            Metric::CompactionSeconds => seconds(loaded(&maintenance.compaction_nanos)),
            Metric::RetentionFiles => one(loaded(&maintenance.expired_files)),
            Metric::RetentionBytes => one(loaded(&maintenance.expired_bytes)),
            Metric::VacuumFiles => one(loaded(&maintenance.deleted_files)),
            Metric::MaintenanceFailures => vec![
                sample(&[("step", "compaction")], loaded(&maintenance.compaction_failures)),
                sample(&[("step", "retention")], loaded(&maintenance.retention_failures)),
                sample(&[("step", "vacuum")], loaded(&maintenance.vacuum_failures)),
                sample(&[("step", "refresh")], loaded(&maintenance.refresh_failures)),
            ],
            Metric::MetricsActiveSeries => one(metrics.active_series),
            Metric::MetricsSeries => vec![
                sample(&[("event", "created")], metrics.series_created),
                sample(&[("event", "expired")], metrics.series_expired),
            ],
            Metric::MetricsSamples => one(metrics.samples),
            Metric::MetricsExemplars => one(metrics.exemplars),
            Metric::MetricsDropped => {
                metrics.dropped.iter().map(|(reason, count)| sample(&[("reason", reason.as_str())], *count)).collect()
            }
            Metric::MetricsHeadBytes => vec![
                sample(&[("part", "index")], metrics.index_bytes),
                sample(&[("part", "samples")], metrics.sample_bytes),
            ],
            Metric::MetricsChunks => one(metrics.chunks),
            Metric::MetricsWalBytes => one(metrics.log_bytes),
            Metric::MetricsReplaySeconds => seconds(metrics.replay_nanos),
            Metric::MetricsBlocks => one(metrics.blocks),
            Metric::MetricsBlockBytes => one(metrics.block_bytes),
            Metric::MetricsBlockChanges => vec![
                sample(&[("event", "written")], metrics.blocks_written),
                sample(&[("event", "removed")], metrics.blocks_removed),
                sample(&[("event", "failed")], metrics.block_failures),
            ],
            Metric::ScrapeTargets => self.per_target_state(),
            Metric::PortConnections => self.per_port(|port| loaded(&port.accepted)),
            Metric::PortOpenConnections => {
                self.per_port(|port| loaded(&port.accepted).saturating_sub(loaded(&port.ended)))
            }
            Metric::PortResponses => self.responses(),
            Metric::ProcessCpuSeconds => process::cpu_seconds().into_iter().map(bare).collect(),
            Metric::ProcessResidentBytes => process::resident_bytes().into_iter().map(bare).collect(),
            Metric::ProcessOpenFds => process::open_fds().into_iter().map(bare).collect(),
            Metric::ProcessStart => vec![bare(self.started.as_secs_f64())],
        }
    }

    fn per_protocol(&self, read: impl Fn(&ProtocolStats) -> u64) -> Vec<Sample> {
        let stats = |protocol: &IngestProtocol| {
            sample(&[("protocol", protocol.as_str())], read(self.receive.protocol(*protocol)))
        };
        IngestProtocol::ALL.iter().map(stats).collect()
    }

    fn per_metric_protocol(&self, read: impl Fn(&MetricProtocolStats) -> u64) -> Vec<Sample> {
        let stats = |protocol: &MetricProtocol| {
            sample(&[("protocol", protocol.as_str())], read(self.metric_receive.protocol(*protocol)))
        };
        MetricProtocol::ALL.iter().map(stats).collect()
    }

    fn per_metric_reason<R: Copy>(
        &self,
        reasons: &[R],
        word: impl Fn(R) -> &'static str,
        read: impl Fn(&MetricProtocolStats, R) -> u64,
    ) -> Vec<Sample> {
        let pairs = MetricProtocol::ALL.iter().flat_map(|protocol| reasons.iter().map(|reason| (*protocol, *reason)));
        pairs
            .map(|(protocol, reason)| {
                let labels = [("protocol", protocol.as_str()), ("reason", word(reason))];
                sample(&labels, read(self.metric_receive.protocol(protocol), reason))
            })
            .collect()
    }

    /// Reasons that never occurred are left out, but for all protocols together each is shown once,
    /// so that an alert on a rate has a zero to start from.
    fn per_reason(&self, read: impl Fn(&ProtocolStats, RejectReason) -> u64) -> Vec<Sample> {
        let total = |reason: &RejectReason| {
            let all = IngestProtocol::ALL.iter().map(|protocol| read(self.receive.protocol(*protocol), *reason));
            sample(&[("reason", reason.as_str())], all.sum())
        };
        RejectReason::ALL.iter().map(total).collect()
    }

    fn per_target_state(&self) -> Vec<Sample> {
        let targets = self.targets.targets();
        [("up", Some(true)), ("down", Some(false)), ("unknown", None)]
            .map(|(state, up)| {
                sample(&[("state", state)], targets.iter().filter(|target| target.up == up).count() as u64)
            })
            .into()
    }

    fn per_port(&self, read: impl Fn(&PortStats) -> u64) -> Vec<Sample> {
        self.ports.iter().map(|(name, stats)| sample(&[("port", name)], read(stats))).collect()
    }

    fn responses(&self) -> Vec<Sample> {
        let classes = ["2xx", "3xx", "4xx", "5xx"];
        let of_port = |(name, stats): &(&'static str, Arc<PortStats>)| {
            let counts = stats.responses[2..].iter().map(loaded).zip(classes);
            counts.map(|(count, class)| sample(&[("port", name), ("class", class)], count)).collect::<Vec<_>>()
        };
        self.ports.iter().flat_map(of_port).collect()
    }
}

fn bare(value: f64) -> Sample {
    Sample { labels: Vec::new(), value }
}

fn seconds(nanos: u64) -> Vec<Sample> {
    vec![bare(nanos as f64 / 1e9)]
}
