//! OTLP/JSON `ExportMetricsServiceRequest`. As lenient as for spans; a point that cannot be read is
//! refused alone.

use bytes::Bytes;

use super::{Fault, IdKind, Reader, Sink, Source, SpanId, TraceId, Walk as _, Walker};
use crate::decode::DecodeError;
use crate::decode::otlp_metrics::{
    HistogramValue, Metric, OtlpSink, Point, PointExemplar, PointValue, Shape, SummaryValue, Temporality, Translation,
};

/// Walks an OTLP/JSON `ExportMetricsServiceRequest`.
///
/// # Errors
/// When the body is not JSON or not of that shape; what came before has been handed on.
pub(in super::super) fn walk_metrics_json(body: &Bytes, sink: &mut dyn OtlpSink) -> Result<(), DecodeError> {
    let mut walker = Walker { reader: Reader::new(Source::new(body)), sink: Sink::without_spans() };
    walker.metrics_request(sink).map_err(|fault| DecodeError {
        reason: fault.reason(),
        message: format!("not an OTLP/JSON ExportMetricsServiceRequest: {fault}"),
    })
}

impl Walker<'_> {
    fn metrics_request(&mut self, sink: &mut dyn OtlpSink) -> Result<(), Fault> {
        let mut root = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut root)? {
            match name.content().as_ref() {
                b"resourceMetrics" | b"resource_metrics" => self.each(|walker| {
                    // Nothing of one resource is needed for the next.
                    let before = walker.sink.budget;
                    walker.resource_metrics(sink)?;
                    walker.sink.budget = before;
                    Ok(())
                })?,
                _ => self.reader.skip()?,
            }
        }
        Ok(self.reader.end()?)
    }

    fn resource_metrics(&mut self, sink: &mut dyn OtlpSink) -> Result<(), Fault> {
        let resource = self.resource_of_group()?;
        let mut translation = Translation::new(resource, sink);
        let mut group = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut group)? {
            match name.content().as_ref() {
                b"scopeMetrics" | b"scope_metrics" => self.each(|walker| walker.scope_metrics(&mut translation))?,
                _ => self.reader.skip()?,
            }
        }
        translation.finish();
        Ok(())
    }

    fn scope_metrics(&mut self, translation: &mut Translation<'_>) -> Result<(), Fault> {
        let mut group = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut group)? {
            match name.content().as_ref() {
                b"metrics" => self.each(|walker| {
                    // A metric is gone before the next one is read.
                    let before = walker.sink.budget;
                    translation.take(&walker.metric()?);
                    walker.sink.budget = before;
                    Ok(())
                })?,
                _ => self.reader.skip()?,
            }
        }
        Ok(())
    }

    fn metric(&mut self) -> Result<Metric, Fault> {
        let mut metric = Metric::default();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"name" => metric.name = self.name()?,
                b"description" => metric.description = self.name()?,
                b"unit" => metric.unit = self.name()?,
                b"gauge" => self.points(Shape::Gauge, &mut metric)?,
                b"sum" => self.points(Shape::Sum, &mut metric)?,
                b"histogram" => self.points(Shape::Histogram, &mut metric)?,
                b"exponentialHistogram" | b"exponential_histogram" => self.points(Shape::Exponential, &mut metric)?,
                b"summary" => self.points(Shape::Summary, &mut metric)?,
                _ => self.reader.skip()?,
            }
        }
        Ok(metric)
    }

    fn points(&mut self, shape: Shape, metric: &mut Metric) -> Result<(), Fault> {
        if self.reader.kind()? == super::Kind::Null {
            return Ok(self.reader.null()?);
        }
        metric.begin(shape);
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"dataPoints" | b"data_points" if shape == Shape::Exponential => self.each(|walker| {
                    metric.exponential_points += 1;
                    Ok(walker.reader.skip()?)
                })?,
                b"dataPoints" | b"data_points" => self.each(|walker| {
                    let read = walker.one(|walker| walker.point(shape))?;
                    metric.take(read.map_err(|refusal| refusal.message));
                    Ok(())
                })?,
                b"aggregationTemporality" | b"aggregation_temporality" => metric.temporality = self.temporality()?,
                b"isMonotonic" | b"is_monotonic" => metric.is_monotonic = self.reader.lenient_bool()?,
                _ => self.reader.skip()?,
            }
        }
        Ok(())
    }

    fn temporality(&mut self) -> Result<Temporality, Fault> {
        let word = self.name()?.to_ascii_lowercase();
        Ok(match word.strip_prefix("aggregation_temporality_").unwrap_or(&word) {
            "delta" => Temporality::Delta,
            "cumulative" => Temporality::Cumulative,
            number => Temporality::from_otlp(number.parse().unwrap_or_default()),
        })
    }

    fn point(&mut self, shape: Shape) -> Result<Point, Fault> {
        self.sink.budget.charge_one::<Point>()?;
        let mut point = Point::empty(shape);
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match (&mut point.value, name.content().as_ref()) {
                (_, b"timeUnixNano" | b"time_unix_nano") => point.time = self.time()?,
                (_, b"startTimeUnixNano" | b"start_time_unix_nano") => point.start = self.time()?,
                (_, b"flags") => point.flags = self.reader.lenient_u32()?,
                (_, b"attributes") => self.attributes(&mut |attribute| point.attributes.push(attribute))?,
                (_, b"exemplars") => {
                    let mut list = self.reader.array()?;
                    while self.reader.next_item(&mut list)? {
                        point.exemplars.push(self.exemplar()?);
                    }
                }
                (PointValue::Number(value), b"asDouble" | b"as_double") => *value = self.number()?.or(*value),
                (PointValue::Number(value), b"asInt" | b"as_int") => *value = self.whole_number()?.or(*value),
                (PointValue::Number(_), _) => self.reader.skip()?,
                (PointValue::Histogram(histogram), name) => self.histogram_member(name, histogram)?,
                (PointValue::Summary(summary), name) => self.summary_member(name, summary)?,
            }
        }
        Ok(point)
    }

    /// A number; `null` is none.
    fn number(&mut self) -> Result<Option<f64>, Fault> {
        if self.reader.kind()? == super::Kind::Null {
            self.reader.null()?;
            return Ok(None);
        }
        Ok(Some(self.reader.lenient_f64()?))
    }

    /// A whole number as the store has it; `null` is none.
    fn whole_number(&mut self) -> Result<Option<f64>, Fault> {
        if self.reader.kind()? == super::Kind::Null {
            self.reader.null()?;
            return Ok(None);
        }
        Ok(Some(self.reader.lenient_i64()? as f64))
    }

    fn histogram_member(&mut self, name: &[u8], histogram: &mut HistogramValue) -> Result<(), Fault> {
        match name {
            b"count" => histogram.count = self.reader.lenient_u64()?,
            b"sum" => histogram.sum = self.number()?,
            b"bucketCounts" | b"bucket_counts" => {
                let mut list = self.reader.array()?;
                while self.reader.next_item(&mut list)? {
                    self.sink.budget.charge_one::<u64>()?;
                    histogram.bucket_counts.push(self.reader.lenient_u64()?);
                }
            }
            b"explicitBounds" | b"explicit_bounds" => {
                let mut list = self.reader.array()?;
                while self.reader.next_item(&mut list)? {
                    self.sink.budget.charge_one::<f64>()?;
                    histogram.bounds.push(self.reader.lenient_f64()?);
                }
            }
            _ => self.reader.skip()?,
        }
        Ok(())
    }

    fn summary_member(&mut self, name: &[u8], summary: &mut SummaryValue) -> Result<(), Fault> {
        match name {
            b"count" => summary.count = self.reader.lenient_u64()?,
            b"sum" => summary.sum = self.reader.lenient_f64()?,
            b"quantileValues" | b"quantile_values" => {
                let mut list = self.reader.array()?;
                while self.reader.next_item(&mut list)? {
                    self.sink.budget.charge_one::<(f64, f64)>()?;
                    summary.quantiles.push(self.quantile()?);
                }
            }
            _ => self.reader.skip()?,
        }
        Ok(())
    }

    /// A quantile and its value; what is left out is zero.
    fn quantile(&mut self) -> Result<(f64, f64), Fault> {
        let (mut quantile, mut value) = (0.0, 0.0);
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"quantile" => quantile = self.reader.lenient_f64()?,
                b"value" => value = self.reader.lenient_f64()?,
                _ => self.reader.skip()?,
            }
        }
        Ok((quantile, value))
    }

    fn exemplar(&mut self) -> Result<PointExemplar, Fault> {
        self.sink.budget.charge_one::<PointExemplar>()?;
        let mut exemplar = PointExemplar::default();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"timeUnixNano" | b"time_unix_nano" => exemplar.time = self.time()?,
                b"asDouble" | b"as_double" => exemplar.value = self.number()?.or(exemplar.value),
                b"asInt" | b"as_int" => exemplar.value = self.whole_number()?.or(exemplar.value),
                b"traceId" | b"trace_id" => exemplar.trace_id = self.id(IdKind::Trace, TraceId::parse)?,
                b"spanId" | b"span_id" => exemplar.span_id = self.id(IdKind::Span, SpanId::parse)?,
                b"filteredAttributes" | b"filtered_attributes" => {
                    self.attributes(&mut |attribute| exemplar.attributes.push(attribute))?;
                }
                _ => self.reader.skip()?,
            }
        }
        Ok(exemplar)
    }
}
