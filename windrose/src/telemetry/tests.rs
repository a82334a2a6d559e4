use std::path::Path;

use windrose_proto::time::SystemClock;
use windrose_query::scrape_status::Target;
use windrose_store::disk::{Disk, SimDisk};
use windrose_store::metrics::MetricConfig;
use windrose_store::sealed::{DiskStore, WriterName};

use super::*;

#[derive(Debug)]
struct NoTargets;

impl TargetSource for NoTargets {
    fn targets(&self) -> Vec<Target> {
        Vec::new()
    }
}

fn metric_store() -> MetricStore {
    let disk = Arc::new(SimDisk::new(1));
    let tables = DiskStore::open(Arc::clone(&disk) as Arc<dyn Disk>, Path::new("/tables")).unwrap();
    let writer = WriterName::new("test").unwrap();
    let (config, clock) = (MetricConfig::default(), Arc::new(SystemClock));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let opening = MetricStore::open(disk, Path::new("/metrics"), config, clock, Arc::new(tables), writer);
    runtime.block_on(opening).unwrap().0
}

fn telemetry(port: &Arc<PortStats>) -> Telemetry {
    Telemetry::new(Sources {
        readiness: Readiness::default(),
        started: UnixNanos::from_secs(1_800_000_000),
        receive: Arc::default(),
        metric_receive: Arc::default(),
        wal: Arc::default(),
        join: Arc::default(),
        maintenance: Arc::default(),
        metrics: metric_store(),
        targets: Arc::new(NoTargets),
        ports: vec![("otlp_grpc", Arc::clone(port))],
    })
}

/// Dashboards and alerts are written against these names: changing one breaks somebody.
const STABLE: &str = "\
process_cpu_seconds counter
process_open_fds gauge
process_resident_memory_bytes gauge
process_start_time_seconds gauge
windrose_build_info gauge
windrose_compaction_files counter
windrose_compaction_read_bytes counter
windrose_compaction_seconds counter
windrose_compaction_written_bytes counter
windrose_join_archive_errors counter
windrose_join_conflicts counter
windrose_join_derivations counter
windrose_join_duplicate_spans counter
windrose_join_facts counter
windrose_join_known gauge
windrose_join_known_refused counter
windrose_join_late_spans counter
windrose_join_open_bytes gauge
windrose_join_open_traces gauge
windrose_join_oversize_spans counter
windrose_join_revisions counter
windrose_join_span_uses gauge
windrose_join_stored_spans counter
windrose_join_traces counter
windrose_join_unreadable_records counter
windrose_join_unsealed_bytes gauge
windrose_join_unsealed_rows gauge
windrose_maintenance_failures counter
windrose_metric_receive_body_bytes counter
windrose_metric_receive_pushed_counters counter
windrose_metric_receive_refused_requests counter
windrose_metric_receive_rejected_samples counter
windrose_metric_receive_requests counter
windrose_metric_receive_samples counter
windrose_metrics_active_series gauge
windrose_metrics_block_bytes gauge
windrose_metrics_block_changes counter
windrose_metrics_blocks gauge
windrose_metrics_chunks gauge
windrose_metrics_dropped counter
windrose_metrics_exemplars counter
windrose_metrics_head_bytes gauge
windrose_metrics_replay_seconds gauge
windrose_metrics_samples counter
windrose_metrics_series counter
windrose_metrics_wal_bytes gauge
windrose_port_connections counter
windrose_port_open_connections gauge
windrose_port_responses counter
windrose_ready gauge
windrose_receive_body_bytes counter
windrose_receive_in_flight_requests gauge
windrose_receive_refused_requests counter
windrose_receive_rejected_spans counter
windrose_receive_requests counter
windrose_receive_spans counter
windrose_retention_bytes counter
windrose_retention_files counter
windrose_scrape_targets gauge
windrose_seal_failures counter
windrose_tables_quarantined_files gauge
windrose_vacuum_files counter
windrose_wal_appended_bytes counter
windrose_wal_appended_records counter
windrose_wal_damaged_bytes counter
windrose_wal_disk_bytes gauge
windrose_wal_failures counter
windrose_wal_lag_bytes gauge
windrose_wal_refused_records counter
windrose_wal_segments gauge
windrose_wal_sync_max_seconds gauge
windrose_wal_sync_seconds counter
windrose_wal_syncs counter
windrose_wal_torn_bytes counter
";

#[test]
fn the_set_of_metrics_is_stable() {
    let page = telemetry(&Arc::default()).page().expect("a page");
    let mut types: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    types.sort_unstable();
    assert_eq!(types.join("\n") + "\n", STABLE);
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn what_a_port_counts_is_shown() {
    let port = Arc::new(PortStats::default());
    drop(port.connection());
    let open = port.connection();
    port.answered(http::StatusCode::OK);
    port.answered(http::StatusCode::SERVICE_UNAVAILABLE);
    let page = telemetry(&port).page().expect("a page");
    for line in [
        "windrose_port_connections_total{port=\"otlp_grpc\"} 2.0",
        "windrose_port_open_connections{port=\"otlp_grpc\"} 1.0",
        "windrose_port_responses_total{port=\"otlp_grpc\",class=\"2xx\"} 1.0",
        "windrose_port_responses_total{port=\"otlp_grpc\",class=\"5xx\"} 1.0",
        "windrose_ready 1.0",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line} in:\n{page}");
    }
    drop(open);
}
