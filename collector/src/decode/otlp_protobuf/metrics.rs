//! OTLP `ExportMetricsServiceRequest` in protobuf.
//!
//! ```text
//! ResourceMetrics     1 resource  2 scope_metrics  3 schema_url
//! ScopeMetrics        1 scope     2 metrics        3 schema_url
//! Metric              1 name  2 description  3 unit  5 gauge  7 sum  9 histogram
//!                     10 exponential_histogram  11 summary
//! Gauge, Sum, …       1 data_points  2 aggregation_temporality  3 is_monotonic
//! NumberDataPoint     2 start  3 time  4 as_double  5 exemplars  6 as_int  7 attributes  8 flags
//! HistogramDataPoint  2 start  3 time  4 count  5 sum  6 bucket_counts  7 explicit_bounds  8 exemplars
//!                     9 attributes  10 flags
//! SummaryDataPoint    2 start  3 time  4 count  5 sum  6 quantile_values (1 quantile  2 value)
//!                     7 attributes  8 flags
//! Exemplar            2 time  3 as_double  4 span_id  5 trace_id  6 as_int  7 filtered_attributes
//! ```
//!
//! A malformed point is refused alone; anything malformed around points refuses the body.

use bytes::Bytes;
use windrose_proto::limits;

use super::{Fault, Fields, Sink, SpanId, TraceId, UnixNanos, Walker};
use crate::decode::DecodeError;
use crate::decode::otlp_metrics::{
    HistogramValue, Metric, OtlpSink, Point, PointExemplar, PointValue, Shape, SummaryValue, Temporality, Translation,
};
use crate::decode::sink::Budget;
use crate::decode::wire::{Field, Payload, WireError};

/// Walks an `ExportMetricsServiceRequest`.
///
/// # Errors
/// When the body is not such a message; what came before has been handed on.
pub(in super::super) fn walk_metrics_protobuf(body: &Bytes, sink: &mut dyn OtlpSink) -> Result<(), DecodeError> {
    let mut walker = Walker::new(body, Sink::without_spans());
    walker.metrics_request(sink).map_err(|fault| DecodeError {
        reason: fault.reason(),
        message: format!("not an OTLP ExportMetricsServiceRequest in protobuf: {fault}"),
    })
}

impl<'a> Walker<'a> {
    fn metrics_request(&mut self, sink: &mut dyn OtlpSink) -> Result<(), Fault> {
        let mut fields = Fields::of(self.source.body());
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                // Nothing of one resource is needed for the next.
                let before = self.sink.budget;
                self.resource_metrics(field.bytes()?, sink)?;
                self.sink.budget = before;
            }
        }
        Ok(())
    }

    fn resource_metrics(&mut self, message: &'a [u8], sink: &mut dyn OtlpSink) -> Result<(), Fault> {
        let resource = self.resource_of_group(message)?;
        let mut translation = Translation::new(resource, sink);
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                self.scope_metrics(field.bytes()?, &mut translation)?;
            }
        }
        translation.finish();
        Ok(())
    }

    fn scope_metrics(&mut self, message: &'a [u8], translation: &mut Translation<'_>) -> Result<(), Fault> {
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                // A metric is gone before the next one is read.
                let before = self.sink.budget;
                translation.take(&self.metric(field.bytes()?)?);
                self.sink.budget = before;
            }
        }
        Ok(())
    }

    fn metric(&mut self, message: &'a [u8]) -> Result<Metric, Fault> {
        let mut metric = Metric::default();
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            let shape = match field.number {
                1 => {
                    metric.name = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES);
                    continue;
                }
                2 => {
                    metric.description = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES);
                    continue;
                }
                3 => {
                    metric.unit = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES);
                    continue;
                }
                5 => Shape::Gauge,
                7 => Shape::Sum,
                9 => Shape::Histogram,
                10 => Shape::Exponential,
                11 => Shape::Summary,
                _ => continue,
            };
            metric.begin(shape);
            self.points(field.bytes()?, &mut metric)?;
        }
        Ok(metric)
    }

    fn points(&mut self, message: &'a [u8], metric: &mut Metric) -> Result<(), Fault> {
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 if metric.shape == Shape::Exponential => {
                    field.bytes()?;
                    metric.exponential_points += 1;
                }
                1 => {
                    let message = field.bytes()?;
                    metric.take(self.point(message, metric.shape));
                }
                2 => metric.temporality = Temporality::from_otlp(field.int32()?),
                3 => metric.is_monotonic = field.varint()? != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn point(&mut self, message: &'a [u8], shape: Shape) -> Result<Point, Fault> {
        self.sink.budget.charge_one::<Point>()?;
        let mut point = Point::empty(shape);
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            // Three layouts that agree on little more than the time.
            match (&mut point.value, field.number) {
                (_, 2) => point.start = UnixNanos(field.fixed64()?),
                (_, 3) => point.time = UnixNanos(field.fixed64()?),
                (PointValue::Number(value), 4) => *value = Some(f64::from_bits(field.fixed64()?)),
                (PointValue::Number(value), 6) => *value = Some(field.fixed64()?.cast_signed() as f64),
                (PointValue::Number(_), 5) | (PointValue::Histogram(_), 8) => {
                    point.exemplars.push(self.exemplar(field.bytes()?)?);
                }
                (PointValue::Number(_) | PointValue::Summary(_), 7) | (PointValue::Histogram(_), 9) => {
                    point.attributes.push(self.key_value(field.bytes()?)?);
                }
                (PointValue::Number(_) | PointValue::Summary(_), 8) | (PointValue::Histogram(_), 10) => {
                    point.flags = field.uint32()?;
                }
                (PointValue::Histogram(histogram), _) => self.histogram_field(&field, histogram)?,
                (PointValue::Summary(summary), _) => self.summary_field(&field, summary)?,
                (PointValue::Number(_), _) => {}
            }
        }
        Ok(point)
    }

    fn histogram_field(&mut self, field: &Field<'a>, histogram: &mut HistogramValue) -> Result<(), Fault> {
        let budget = &mut self.sink.budget;
        match field.number {
            4 => histogram.count = field.fixed64()?,
            5 => histogram.sum = Some(f64::from_bits(field.fixed64()?)),
            6 => each_fixed64(field, budget, |count| histogram.bucket_counts.push(count))?,
            7 => each_fixed64(field, budget, |bits| histogram.bounds.push(f64::from_bits(bits)))?,
            _ => {}
        }
        Ok(())
    }

    fn summary_field(&mut self, field: &Field<'a>, summary: &mut SummaryValue) -> Result<(), Fault> {
        match field.number {
            4 => summary.count = field.fixed64()?,
            5 => summary.sum = f64::from_bits(field.fixed64()?),
            6 => {
                self.sink.budget.charge_one::<(f64, f64)>()?;
                let (mut quantile, mut value) = (0.0, 0.0);
                let mut fields = Fields::of(field.bytes()?);
                while let Some(field) = fields.next()? {
                    match field.number {
                        1 => quantile = f64::from_bits(field.fixed64()?),
                        2 => value = f64::from_bits(field.fixed64()?),
                        _ => {}
                    }
                }
                summary.quantiles.push((quantile, value));
            }
            _ => {}
        }
        Ok(())
    }

    fn exemplar(&mut self, message: &'a [u8]) -> Result<PointExemplar, Fault> {
        self.sink.budget.charge_one::<PointExemplar>()?;
        let mut exemplar = PointExemplar::default();
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                2 => exemplar.time = UnixNanos(field.fixed64()?),
                3 => exemplar.value = Some(f64::from_bits(field.fixed64()?)),
                // An exemplar of nothing is still an example.
                4 => exemplar.span_id = SpanId::from_slice(field.bytes()?),
                5 => exemplar.trace_id = TraceId::from_slice(field.bytes()?),
                6 => exemplar.value = Some(field.fixed64()?.cast_signed() as f64),
                7 => exemplar.attributes.push(self.key_value(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(exemplar)
    }
}

/// The numbers of a repeated field, packed or one by one.
fn each_fixed64(field: &Field<'_>, budget: &mut Budget, mut push: impl FnMut(u64)) -> Result<(), Fault> {
    let Payload::Bytes(packed) = field.payload else {
        budget.charge_one::<u64>()?;
        push(field.fixed64()?);
        return Ok(());
    };
    let (numbers, rest) = packed.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(WireError::Truncated.into());
    }
    budget.charge(packed.len())?;
    numbers.iter().for_each(|number| push(u64::from_le_bytes(*number)));
    Ok(())
}
