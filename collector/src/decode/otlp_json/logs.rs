//! OTLP/JSON `ExportLogsServiceRequest`: access log entries, the rest counted. As lenient as for spans.

use bytes::Bytes;

use super::{Arc, Fault, IdKind, Reader, Resource, Scope, Sink, Source, SpanId, TraceId, Walk as _, Walker};
use crate::decode::access_log::{self, LogRecord};
use crate::decode::{DecodeError, Decoded, Origin};

/// Decodes an OTLP/JSON `ExportLogsServiceRequest`: each access log entry as the span of its request.
///
/// # Errors
/// When the body is not JSON or not of that shape; nothing of it is taken then.
pub fn decode_otlp_logs_json(body: &Bytes, origin: Origin) -> Result<Decoded, DecodeError> {
    let mut walker = Walker { reader: Reader::new(Source::new(body)), sink: Sink::new(origin) };
    walker.logs_request().map_err(|fault| DecodeError {
        reason: fault.reason(),
        message: format!("not an OTLP/JSON ExportLogsServiceRequest: {fault}"),
    })?;
    Ok(walker.sink.finish())
}

impl Walker<'_> {
    fn logs_request(&mut self) -> Result<(), Fault> {
        let mut root = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut root)? {
            match name.content().as_ref() {
                b"resourceLogs" | b"resource_logs" => self.each(Self::resource_logs)?,
                _ => self.reader.skip()?,
            }
        }
        Ok(self.reader.end()?)
    }

    fn resource_logs(&mut self) -> Result<(), Fault> {
        let resource = self.resource_of_group()?;
        let mut group = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut group)? {
            match name.content().as_ref() {
                b"scopeLogs" | b"scope_logs" => self.each(|walker| walker.scope_logs(&resource))?,
                _ => self.reader.skip()?,
            }
        }
        Ok(())
    }

    fn scope_logs(&mut self, resource: &Arc<Resource>) -> Result<(), Fault> {
        let scope = self.scope_of_group()?;
        let mut group = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut group)? {
            match name.content().as_ref() {
                b"logRecords" | b"log_records" => self.each(|walker| walker.one_record(resource, &scope))?,
                _ => self.reader.skip()?,
            }
        }
        Ok(())
    }

    fn one_record(&mut self, resource: &Arc<Resource>, scope: &Arc<Scope>) -> Result<(), Fault> {
        if !self.sink.has_room() {
            return Ok(self.reader.skip()?);
        }
        let read = self.one(Self::record)?;
        let draft = read.and_then(|record| access_log::draft(record, resource, &mut self.sink.budget));
        self.sink.take(draft, resource, scope);
        Ok(())
    }

    fn record(&mut self) -> Result<LogRecord, Fault> {
        let mut record = LogRecord::default();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"timeUnixNano" | b"time_unix_nano" => record.time = self.time()?,
                b"observedTimeUnixNano" | b"observed_time_unix_nano" => record.observed = self.time()?,
                b"traceId" | b"trace_id" => record.trace_id = self.id(IdKind::Trace, TraceId::parse)?,
                b"spanId" | b"span_id" => record.span_id = self.id(IdKind::Span, SpanId::parse)?,
                b"body" => record.body = self.any_value(0)?,
                b"attributes" => self.attributes(&mut |attribute| record.attributes.push(attribute))?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => {
                    record.dropped_attributes_count = self.reader.lenient_u32()?;
                }
                _ => self.reader.skip()?,
            }
        }
        Ok(record)
    }
}
