//! The fields of an entry under whatever names its log format gives them.

use windrose_proto::Text;
use windrose_proto::attributes::{KeyValue, Value};
use windrose_proto::limits;
use windrose_proto::span::Resource;

use super::super::json::{Kind, Reader};
use super::super::text::Source;
use super::{LogRecord, line};

/// What an entry can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Method,
    Path,
    Authority,
    Protocol,
    ResponseCode,
    ResponseFlags,
    ResponseDetails,
    GrpcStatus,
    DurationMillis,
    UpstreamCluster,
    UpstreamHost,
    UpstreamLocal,
    DownstreamRemote,
    RequestId,
    BytesReceived,
    BytesSent,
    RouteName,
    SourcePrincipal,
    DestinationPrincipal,
    UserAgent,
    Direction,
    NodeId,
}

const FIELDS: usize = Field::NodeId as usize + 1;

impl Field {
    /// The field that a format calls `name`: Istio's JSON format, Envoy's operators in lower case,
    /// and the conventions of OpenTelemetry, old and new.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "method" | "http.method" | "http.request.method" | "request_method" | ":method" => Self::Method,
            "path" | "http.target" | "url.path" | "request_path" | ":path" => Self::Path,
            "authority" | "host" | "http.host" | "server.address" | ":authority" => Self::Authority,
            "protocol" | "http.protocol" => Self::Protocol,
            "response_code" | "http.status_code" | "http.response.status_code" => Self::ResponseCode,
            "response_flags" => Self::ResponseFlags,
            "response_code_details" => Self::ResponseDetails,
            "grpc_status" | "grpc_status_number" | "grpc.status_code" => Self::GrpcStatus,
            "duration" | "duration_ms" => Self::DurationMillis,
            "upstream_cluster" | "upstream_cluster_raw" => Self::UpstreamCluster,
            "upstream_host" | "upstream_remote_address" => Self::UpstreamHost,
            "upstream_local_address" => Self::UpstreamLocal,
            "downstream_remote_address" | "downstream_direct_remote_address" => Self::DownstreamRemote,
            "request_id" | "x_request_id" | "x-request-id" | "guid:x-request-id" => Self::RequestId,
            "bytes_received" | "request_size" => Self::BytesReceived,
            "bytes_sent" | "response_size" => Self::BytesSent,
            "route_name" => Self::RouteName,
            "source_principal" | "source.principal" | "downstream_peer_uri_san" => Self::SourcePrincipal,
            "destination_principal" | "destination.principal" | "upstream_peer_uri_san" => Self::DestinationPrincipal,
            "user_agent" => Self::UserAgent,
            "direction" | "traffic_direction" | "listener_direction" => Self::Direction,
            "node_id" | "node_name" => Self::NodeId,
            _ => return None,
        })
    }
}

/// Where a value came from.
#[derive(Clone, Debug)]
struct Found {
    text: Text,
    /// The name of the record's own attribute that holds it.
    attribute: Option<Text>,
}

/// The fields of one entry. `-` is how proxies write that there is none.
#[derive(Debug)]
pub(super) struct Fields {
    found: [Option<Found>; FIELDS],
    /// Everything the body says is among the fields.
    pub(super) body_is_read: bool,
}

impl Fields {
    /// Attributes first, then the body, then the resource, which holds the node.
    pub(super) fn read(record: &LogRecord, resource: &Resource) -> Self {
        let mut fields = Self { found: [const { None }; FIELDS], body_is_read: false };
        for attribute in record.attributes.iter() {
            fields.take(attribute, Some(&attribute.key));
        }
        match &record.body {
            Value::Map(entries) => entries.iter().for_each(|entry| fields.take(entry, None)),
            Value::Str(text) if text.starts_with('{') => fields.read_json(text),
            Value::Str(text) => {
                let found = &mut fields.found;
                fields.body_is_read = line::read(text, |field, text| put(found, field, text, None));
            }
            Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::Bytes(_) | Value::Array(_) => {}
        }
        for attribute in &resource.attributes {
            if Field::named(&attribute.key) == Some(Field::NodeId) {
                fields.take(attribute, None);
            }
        }
        fields
    }

    fn take(&mut self, attribute: &KeyValue, name: Option<&Text>) {
        if let Some(field) = Field::named(&attribute.key)
            && let Some(text) = attribute.value.to_text()
        {
            put(&mut self.found, field, text, name);
        }
    }

    /// The members of an object that are plain values. One that ends early was cut by its sender;
    /// what stands before is as good.
    fn read_json(&mut self, text: &Text) {
        let mut reader = Reader::new(Source::new(text.as_bytes()));
        let Ok(mut object) = reader.object() else { return };
        while let Ok(Some(name)) = reader.next_member(&mut object) {
            let field = std::str::from_utf8(&name.content()).ok().and_then(Field::named);
            let Ok(kind) = reader.kind() else { return };
            match (field, kind) {
                (Some(field), Kind::String | Kind::Number) => {
                    let Ok(text) = reader.lenient_text(limits::ATTRIBUTE_VALUE_MAX_BYTES) else { return };
                    put(&mut self.found, field, text, None);
                }
                _ if reader.skip().is_err() => return,
                _ => {}
            }
        }
    }

    /// What the entry says, unless that is nothing.
    pub(super) fn text(&self, field: Field) -> Option<&Text> {
        let found = self.found[field as usize].as_ref()?;
        (!matches!(&*found.text, "" | "-")).then_some(&found.text)
    }

    /// [`Self::text`] as a number that is not negative.
    pub(super) fn number(&self, field: Field) -> Option<f64> {
        let number: f64 = self.text(field)?.trim().parse().ok()?;
        (0.0..=NUMBER_MAX).contains(&number).then_some(number)
    }

    pub(super) fn has(&self, field: Field) -> bool {
        self.text(field).is_some()
    }

    /// Whether the format has the field, if only to say that there is none.
    pub(super) fn was_named(&self, field: Field) -> bool {
        self.found[field as usize].is_some()
    }

    /// Whether the record has an attribute `key` with this field already.
    pub(super) fn came_as(&self, field: Field, key: &str) -> bool {
        let attribute = self.found[field as usize].as_ref().and_then(|found| found.attribute.as_ref());
        attribute.is_some_and(|attribute| &**attribute == key)
    }
}

/// A year in milliseconds: no request takes longer, and no code is larger.
const NUMBER_MAX: f64 = 366.0 * 86_400_000.0;

/// The first that says something stays.
fn put(found: &mut [Option<Found>; FIELDS], field: Field, text: Text, attribute: Option<&Text>) {
    let slot = &mut found[field as usize];
    if slot.as_ref().is_none_or(|known| matches!(&*known.text, "" | "-")) {
        *slot = Some(Found { text, attribute: attribute.cloned() });
    }
}
