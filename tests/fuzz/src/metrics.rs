//! Decoders of pushed metrics.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;
use windrose_proto::metric::Metadata;
use windrose_proto::span::Resource;

use crate::decode::{OtlpForm, OtlpSink, PointRefusal, RemoteSeries, RemoteSink, Stat, walk_otlp_metrics};

/// Looks at everything that is handed on.
#[derive(Default)]
struct Seen {
    samples: u64,
    refused: u64,
}

impl RemoteSink for Seen {
    fn series(&mut self, series: &RemoteSeries<'_>) {
        let labels = series.labels.as_ref().expect("OTLP's labels are checked before");
        assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted and unique");
        assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
        assert!(labels.iter().any(|(name, _)| *name == "__name__"));
        self.samples += series.samples.len() as u64;
    }

    fn metadata(&mut self, family: &str, _: Metadata) {
        assert!(!family.is_empty());
    }
}

impl OtlpSink for Seen {
    fn refuse(&mut self, _: PointRefusal, points: u64, cause: &dyn Fn() -> String) {
        assert!(points > 0 && !cause().is_empty());
        self.refused += points;
    }

    fn page_name(&self, metric: &str, _: bool) -> Option<String> {
        Some(metric.to_owned())
    }

    fn stat(&mut self, _: &Arc<Resource>, stat: &Stat<'_>) {
        assert!(stat.labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted and unique");
        assert!(stat.start.is_none_or(|start| start <= stat.time));
    }
}

fn walk(form: OtlpForm, body: &[u8]) -> Option<Seen> {
    let mut seen = Seen::default();
    walk_otlp_metrics(form, &Bytes::copy_from_slice(body), &mut seen).ok()?;
    Some(seen)
}

/// OTLP metrics in protobuf: every point of what the reference implementation accepts becomes samples or
/// is refused.
pub fn check_otlp_protobuf(body: &[u8]) {
    let Some(Seen { samples, refused }) = walk(OtlpForm::Protobuf, body) else { return };
    let Ok(request) = ExportMetricsServiceRequest::decode(body) else { return };
    let scopes = request.resource_metrics.iter().flat_map(|group| &group.scope_metrics);
    let points = scopes.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    });
    assert!(samples + refused >= points.sum::<usize>() as u64, "{samples} samples, {refused} points refused");
}

/// OTLP metrics in JSON.
pub fn check_otlp_json(body: &[u8]) {
    walk(OtlpForm::Json, body);
}
