//! One line of a trace search.

use serde::Serialize;
use utoipa::ToSchema;
use windrose_store::row::RequestRow;

use crate::topology::{millis, rfc3339};

/// One request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TraceSummary {
    pub trace_id: String,
    /// RFC 3339.
    pub start: String,
    pub duration_ms: f64,
    /// The gateway, or the first service when there is none.
    pub entry: String,
    /// `null` with a reason when the public route is not known.
    pub route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_reason: Option<&'static str>,
    pub host: Option<String>,
    pub http_status: Option<u16>,
    pub grpc_status: Option<u8>,
    pub error: bool,
    pub fault: &'static str,
    pub reasons: Vec<String>,
    pub spans: u32,
    pub hops: u32,
    pub services: u32,
    /// More than 1: spans that came late changed the trace.
    pub revision: u32,
}

impl TraceSummary {
    /// Words a request row.
    #[must_use]
    pub fn new(row: &RequestRow) -> Self {
        let request = &row.request;
        let (route, route_reason) = super::view::entry_words(&request.entry);
        Self {
            trace_id: request.trace_id.to_string(),
            start: rfc3339(request.start),
            duration_ms: millis(request.duration_nanos as f64),
            entry: super::view::node_name(&request.entry_node),
            route,
            route_reason,
            host: request.host.as_ref().map(ToString::to_string),
            http_status: request.http_status,
            grpc_status: request.grpc_status,
            error: request.error,
            fault: request.fault.as_str(),
            reasons: request.reasons.iter().map(ToString::to_string).collect(),
            spans: request.span_count,
            hops: request.hop_count,
            services: request.service_count,
            revision: row.revision,
        }
    }
}
