//! An access log entry as the span of its request.
//!
//! A proxy logs every request, sampled or not, and Envoy writes into the entry the ids of the span
//! it made or would have made. So an entry is read as that span, without its parent: the rules and
//! the join that know spans know entries, an entry whose span was received too confirms it and no
//! more, and it is stored beside spans, marked as [`windrose_proto::model::IngestProtocol::AccessLog`].
//!
//! Fields are taken from the attributes, then from the body: a map, a JSON object, or a line in the
//! default text format of Istio or Envoy. What an entry does not say stays unknown.
//!
//! A request without a trace context is known by its `x-request-id`, which is as long as a trace id
//! and then serves as one; the id of its span is made from the entry, so that a repeated entry is
//! the same span.

mod fields;
mod line;
#[cfg(test)]
mod tests;

use std::time::Duration;

use windrose_proto::Text;
use windrose_proto::attributes::{KeyValue, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::limits;
use windrose_proto::model::SpanKind;
use windrose_proto::reject::RejectReason;
use windrose_proto::span::Resource;
use windrose_proto::time::UnixNanos;

use self::fields::{Field, Fields};
use super::fnv::Fnv64;
use super::sink::{Budget, CappedAttributes, Draft, Refusal, SpanKindOrDefault};
use super::text::cut;

/// A log record as far as access logs need it.
#[derive(Debug)]
pub(super) struct LogRecord {
    pub(super) time: UnixNanos,
    pub(super) observed: UnixNanos,
    pub(super) trace_id: Option<TraceId>,
    pub(super) span_id: Option<SpanId>,
    pub(super) body: Value,
    pub(super) attributes: CappedAttributes,
    pub(super) dropped_attributes_count: u32,
}

impl Default for LogRecord {
    fn default() -> Self {
        Self {
            time: UnixNanos::ZERO,
            observed: UnixNanos::ZERO,
            trace_id: None,
            span_id: None,
            body: Value::Empty,
            attributes: CappedAttributes::default(),
            dropped_attributes_count: 0,
        }
    }
}

/// Most attributes that are added to those of the record.
const LIFTED_MAX: usize = 24;

/// Upstream clusters that mean the proxy's own application, as sidecars of several meshes name it.
const OWN_APP: [&str; 3] = ["local_app", "local_service", "local_agent"];

/// The span of an entry.
///
/// # Errors
/// When the record is no access log entry of a request: anything else may be sent here as well.
pub(super) fn draft(record: LogRecord, resource: &Resource, budget: &mut Budget) -> Result<Draft, Refusal> {
    let fields = Fields::read(&record, resource);
    if !is_entry(&fields) {
        return Err(Refusal::new(
            RejectReason::NotAccessLog,
            "log record is no access log entry: it lacks method, response_code and response_flags or upstream_cluster",
        ));
    }
    budget
        .charge(LIFTED_MAX * size_of::<KeyValue>() + url_bytes(&fields))
        .map_err(|over| Refusal::new(RejectReason::TooLarge, over.to_string()))?;
    let start = if record.time == UnixNanos::ZERO { record.observed } else { record.time };
    let duration = fields.number(Field::DurationMillis).map_or(Duration::ZERO, |ms| Duration::from_secs_f64(ms / 1e3));
    let (trace_id, span_id) = ids(&record, &fields, start);
    let mut draft = Draft {
        trace_id: Some(trace_id),
        span_id: Some(span_id),
        // A log format may put anything there.
        name: cut(fields.text(Field::Method).cloned().unwrap_or_default(), limits::NAME_MAX_BYTES),
        kind: SpanKindOrDefault(kind(&fields)),
        start,
        end: start.plus(duration),
        attributes: record.attributes,
        dropped_attributes_count: record.dropped_attributes_count,
        ..Draft::default()
    };
    lift(&fields, &mut draft);
    if !fields.body_is_read && record.body != Value::Empty {
        draft.push_static("log.record.body", record.body);
    }
    Ok(draft)
}

/// An HTTP request that a proxy of the Envoy family answered or passed on. Applications also log
/// methods and codes; flags and clusters are written by proxies only.
fn is_entry(fields: &Fields) -> bool {
    fields.has(Field::Method)
        && fields.has(Field::ResponseCode)
        && (fields.was_named(Field::ResponseFlags) || fields.was_named(Field::UpstreamCluster))
}

/// Which of the two spans of a proxy it would be: by the upstream cluster, else by the direction,
/// else by the node: a gateway passes on, and a sidecar that is called from its own address too.
fn kind(fields: &Fields) -> SpanKind {
    let text = |field| fields.text(field).map_or("", |text| &**text);
    let cluster = text(Field::UpstreamCluster);
    if cluster.starts_with("inbound|") || OWN_APP.iter().any(|own| cluster.starts_with(own)) {
        return SpanKind::Server;
    }
    if !cluster.is_empty() {
        return SpanKind::Client;
    }
    match text(Field::Direction) {
        word if word.eq_ignore_ascii_case("inbound") => return SpanKind::Server,
        word if word.eq_ignore_ascii_case("outbound") || word.eq_ignore_ascii_case("gateway") => {
            return SpanKind::Client;
        }
        _ => {}
    }
    let mut node = text(Field::NodeId).split('~');
    let (node_type, address) = (node.next().unwrap_or_default(), node.next().unwrap_or_default());
    let caller = ip_of(text(Field::DownstreamRemote));
    if node_type == "router" || (!address.is_empty() && address.split(',').next() == Some(caller)) {
        SpanKind::Client
    } else {
        SpanKind::Server
    }
}

/// Adds what the rules read, under the names that Envoy's spans use.
fn lift(fields: &Fields, draft: &mut Draft) {
    draft.push_static("component", Value::Str(Text::from_static("proxy")));
    for (field, key) in [
        (Field::NodeId, "node_id"),
        (Field::UpstreamCluster, "upstream_cluster"),
        (Field::UpstreamHost, "upstream_host"),
        (Field::UpstreamLocal, "upstream_local_address"),
        (Field::DownstreamRemote, "downstream_remote_address"),
        (Field::ResponseFlags, "response_flags"),
        (Field::ResponseDetails, "response_code_details"),
        (Field::ResponseCode, "http.status_code"),
        (Field::GrpcStatus, "grpc.status_code"),
        (Field::Method, "http.method"),
        (Field::Protocol, "http.protocol"),
        (Field::RequestId, "guid:x-request-id"),
        (Field::BytesReceived, "request_size"),
        (Field::BytesSent, "response_size"),
        (Field::RouteName, "route_name"),
        (Field::SourcePrincipal, "source.principal"),
        (Field::DestinationPrincipal, "destination.principal"),
        (Field::UserAgent, "user_agent"),
    ] {
        if let Some(text) = fields.text(field)
            && !fields.came_as(field, key)
        {
            draft.push_static(key, Value::Str(text.clone()));
        }
    }
    if let Some(caller) = fields.text(Field::DownstreamRemote) {
        draft.push_static("peer.address", Value::Str(caller.slice_ref(ip_of(caller))));
    }
    if let Some(path) = fields.text(Field::Path) {
        let host = fields.text(Field::Authority).map_or("", |host| &**host);
        let url = if path.starts_with('/') { format!("http://{host}{path}") } else { path.to_string() };
        draft.push_static("http.url", Value::Str(Text::from(url)));
    }
    // As Envoy marks its spans: nobody answered, or the answer is a failure.
    if fields.number(Field::ResponseCode).is_some_and(|code| code == 0.0 || code >= 500.0) {
        draft.push_static("error", Value::Str(Text::from_static("true")));
    }
}

fn url_bytes(fields: &Fields) -> usize {
    let bytes = |field| fields.text(field).map_or(0, |text| text.len());
    bytes(Field::Authority) + bytes(Field::Path) + "http://".len()
}

/// An address without its port.
fn ip_of(address: &str) -> &str {
    match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, _)) => ip,
        None => address.rsplit_once(':').filter(|(ip, _)| !ip.contains(':')).map_or(address, |(ip, _)| ip),
    }
}

/// The ids of the entry's span; see the module for those of a request without a context.
fn ids(record: &LogRecord, fields: &Fields, start: UnixNanos) -> (TraceId, SpanId) {
    // Never zero, which would be no id.
    let made = |salt| fingerprint(fields, start, salt) | 1;
    let trace_id = record.trace_id.or_else(|| uuid(fields.text(Field::RequestId)?)).unwrap_or_else(|| {
        let made = u128::from(made(1)) << 64 | u128::from(made(2));
        TraceId::new(made.to_be_bytes()).expect("an id with a bit set")
    });
    let span_id = record.span_id.unwrap_or_else(|| SpanId::new(made(3).to_be_bytes()).expect("an id with a bit set"));
    (trace_id, span_id)
}

/// The 16 bytes of a UUID.
fn uuid(text: &str) -> Option<TraceId> {
    let is_uuid = text.len() == 36 && [8, 13, 18, 23].iter().all(|place| text.as_bytes()[*place] == b'-');
    if is_uuid { TraceId::parse(&text.replace('-', "")) } else { None }
}

/// Equal for equal entries: a hash over what tells entries apart.
fn fingerprint(fields: &Fields, start: UnixNanos, salt: u8) -> u64 {
    let parts = [
        Field::NodeId,
        Field::RequestId,
        Field::Method,
        Field::Authority,
        Field::Path,
        Field::UpstreamCluster,
        Field::UpstreamHost,
        Field::DownstreamRemote,
        Field::ResponseCode,
        Field::DurationMillis,
    ];
    let hash = Fnv64::new().with(&[salt]).with(&start.0.to_le_bytes());
    let texts = parts.iter().map(|field| fields.text(*field).map_or("", |text| &**text));
    texts.fold(hash, |hash, text| hash.with(text.as_bytes()).with(&[0])).finish()
}
