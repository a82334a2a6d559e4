//! OTLP `ExportLogsServiceRequest` in protobuf: access log entries, the rest counted.
//!
//! ```text
//! ResourceLogs  1 resource  2 scope_logs  3 schema_url
//! ScopeLogs     1 scope     2 log_records 3 schema_url
//! LogRecord     1 time  5 body  6 attributes  9 trace_id  10 span_id  11 observed_time
//! ```

use bytes::Bytes;

use super::{Arc, Fault, Fields, Refusal, Resource, Scope, Sink, UnixNanos, Walker, any_value, span_id, trace_id};
use crate::decode::access_log::{self, LogRecord};
use crate::decode::{DecodeError, Decoded, Origin};

/// Decodes an `ExportLogsServiceRequest`: each access log entry as the span of its request.
///
/// # Errors
/// When the body is not such a message; nothing of it is taken then.
pub fn decode_otlp_logs_protobuf(body: &Bytes, origin: Origin) -> Result<Decoded, DecodeError> {
    let mut walker = Walker::new(body, Sink::new(origin));
    walker.logs_request().map_err(|fault| DecodeError {
        reason: fault.reason(),
        message: format!("not an OTLP ExportLogsServiceRequest in protobuf: {fault}"),
    })?;
    Ok(walker.sink.finish())
}

impl<'a> Walker<'a> {
    fn logs_request(&mut self) -> Result<(), Fault> {
        let mut fields = Fields::of(self.source.body());
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                self.resource_logs(field.bytes()?)?;
            }
        }
        Ok(())
    }

    fn resource_logs(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let resource = self.resource_of_group(message)?;
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                self.scope_logs(field.bytes()?, &resource)?;
            }
        }
        Ok(())
    }

    fn scope_logs(&mut self, message: &'a [u8], resource: &Arc<Resource>) -> Result<(), Fault> {
        let scope = self.scope_of_group(message)?;
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                self.one_record(field.bytes()?, resource, &scope);
            }
        }
        Ok(())
    }

    fn one_record(&mut self, message: &'a [u8], resource: &Arc<Resource>, scope: &Arc<Scope>) {
        if !self.sink.has_room() {
            return;
        }
        let read = self.record(message).map_err(Refusal::from);
        let draft = read.and_then(|record| access_log::draft(record, resource, &mut self.sink.budget));
        self.sink.take(draft, resource, scope);
    }

    fn record(&mut self, message: &'a [u8]) -> Result<LogRecord, Fault> {
        let mut record = LogRecord::default();
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => record.time = UnixNanos(field.fixed64()?),
                5 => any_value(self.source, &mut self.sink.budget, field.bytes()?, 0, &mut record.body)?,
                6 => record.attributes.push(self.key_value(field.bytes()?)?),
                7 => record.dropped_attributes_count = field.uint32()?,
                9 => record.trace_id = trace_id(field.bytes()?)?,
                10 => record.span_id = span_id("span id", field.bytes()?)?,
                11 => record.observed = UnixNanos(field.fixed64()?),
                _ => {}
            }
        }
        Ok(record)
    }
}
