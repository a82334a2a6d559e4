//! The public columns that often say exactly what an attribute says, and how to say it back.
//!
//! Invariant: [`Lift::render`] of a published lift never changes, because files on disk rely on
//! it. A sender that spells the value differently is simply not lifted.

use std::fmt::Write as _;
use std::net::IpAddr;

use arrow::array::{Int32Array, Int64Array, ListArray, StringArray};

use windrose_proto::model::NodeRole;
use windrose_proto::normal::RoleHint;

use super::super::TableError;
use super::super::columns::{Columns, Reader, int_at, long_at, text_at, words_at};
use crate::row::SpanRow;

/// The values of these columns for one row.
#[derive(Clone, Debug, Default)]
pub(super) struct Public<'a> {
    method: Option<&'a str>,
    host: Option<&'a str>,
    path: Option<&'a str>,
    /// What stands before the path in the URL: `http://users.shop:8080`.
    url_prefix: Option<&'a str>,
    /// What stands after the path, question mark included.
    url_query: Option<&'a str>,
    route: Option<&'a str>,
    http_status: Option<i32>,
    flags: Vec<String>,
    request_id: Option<&'a str>,
    request_bytes: Option<i64>,
    response_bytes: Option<i64>,
    upstream_cluster: Option<&'a str>,
    peer_ip: Option<String>,
    peer_port: Option<i32>,
    identity: Identity<'a>,
}

/// Columns that say who the process is. Written by the caller of [`push`], read here.
#[derive(Clone, Copy, Debug, Default)]
struct Identity<'a> {
    service: &'a str,
    namespace: Option<&'a str>,
    version: Option<&'a str>,
    cluster: Option<&'a str>,
    pod: Option<&'a str>,
    node_ip: Option<IpAddr>,
    node_role: Option<&'a str>,
}

impl<'a> Public<'a> {
    pub(super) fn of(row: &'a SpanRow) -> Self {
        let normal = &*row.normal;
        let attributes = &row.span.attributes;
        let path = normal.path.as_deref().filter(|path| !path.is_empty());
        let url = attributes.text("http.url").or_else(|| attributes.text("url.full"));
        let (url_prefix, url_query) = url
            .zip(path)
            .and_then(|(url, path)| split_url(url, path))
            .map_or((None, None), |(prefix, query)| (Some(prefix), Some(query)));
        Self {
            method: normal.method.as_deref(),
            host: normal.host.as_deref(),
            path,
            url_prefix,
            url_query: url_query.filter(|query| !query.is_empty()),
            route: normal.route.as_deref(),
            http_status: normal.outcome.http_status.map(i32::from),
            flags: normal.outcome.flags.iter().map(ToString::to_string).collect(),
            request_id: normal.request_id.as_deref(),
            request_bytes: normal.request_bytes.map(|bytes| bytes as i64),
            response_bytes: normal.response_bytes.map(|bytes| bytes as i64),
            upstream_cluster: normal.upstream_cluster.as_deref(),
            peer_ip: normal.peer_ip.map(|ip: IpAddr| ip.to_string()),
            peer_port: normal.peer_port.map(i32::from),
            identity: Identity {
                service: &normal.identity.service,
                namespace: normal.identity.namespace.as_deref(),
                version: normal.identity.version.as_deref(),
                cluster: normal.identity.cluster.as_deref(),
                pod: normal.identity.pod.as_deref(),
                node_ip: normal.identity.ip,
                node_role: role_word(normal.role),
            },
        }
    }
}

/// The role as the column `node_role` says it. Null: the span alone does not decide; the rest of
/// the trace does.
pub(super) const fn role_word(role: RoleHint) -> Option<&'static str> {
    match role {
        RoleHint::Known(role) => Some(role.as_str()),
        RoleHint::InContext => None,
    }
}

/// What stands before and after `path` in `url`, when the path stands where a path does.
fn split_url<'a>(url: &'a str, path: &str) -> Option<(&'a str, &'a str)> {
    let authority = url.find("://").map_or(0, |place| place + 3);
    let slash = authority + url[authority..].find('/')?;
    let query = url[slash..].strip_prefix(path)?;
    Some((&url[..slash], query))
}

/// Adds these columns.
pub(super) fn push(columns: &mut Columns, rows: &[Public<'_>]) {
    columns.text_opt("method", rows.iter().map(|row| row.method));
    columns.text_opt("host", rows.iter().map(|row| row.host));
    columns.text_opt("path", rows.iter().map(|row| row.path));
    columns.text_opt("url_prefix", rows.iter().map(|row| row.url_prefix));
    columns.text_opt("url_query", rows.iter().map(|row| row.url_query));
    columns.text_opt("route", rows.iter().map(|row| row.route));
    columns.int_opt("http_status", rows.iter().map(|row| row.http_status));
    columns.words("flags", rows.iter().map(|row| &row.flags));
    columns.text_opt("request_id", rows.iter().map(|row| row.request_id));
    columns.long_opt("req_bytes", rows.iter().map(|row| row.request_bytes));
    columns.long_opt("resp_bytes", rows.iter().map(|row| row.response_bytes));
    columns.text_opt("upstream_cluster", rows.iter().map(|row| row.upstream_cluster));
    columns.text_opt("peer_ip", rows.iter().map(|row| row.peer_ip.as_deref()));
    columns.int_opt("peer_port", rows.iter().map(|row| row.peer_port));
}

/// Reads these columns.
pub(super) struct PublicReader<'a> {
    texts: [&'a StringArray; 8],
    identity: [&'a StringArray; 7],
    peer_ip: &'a StringArray,
    http_status: &'a Int32Array,
    peer_port: &'a Int32Array,
    flags: &'a ListArray,
    request_bytes: &'a Int64Array,
    response_bytes: &'a Int64Array,
}

impl<'a> PublicReader<'a> {
    pub(super) fn new(reader: Reader<'a>) -> Result<Self, TableError> {
        Ok(Self {
            texts: [
                reader.text("method")?,
                reader.text("host")?,
                reader.text("path")?,
                reader.text("url_prefix")?,
                reader.text("url_query")?,
                reader.text("route")?,
                reader.text("request_id")?,
                reader.text("upstream_cluster")?,
            ],
            identity: [
                reader.text("service")?,
                reader.text("namespace")?,
                reader.text("version")?,
                reader.text("cluster")?,
                reader.text("pod")?,
                reader.text("node_ip")?,
                reader.text("node_role")?,
            ],
            peer_ip: reader.text("peer_ip")?,
            http_status: reader.int("http_status")?,
            peer_port: reader.int("peer_port")?,
            flags: reader.list("flags")?,
            request_bytes: reader.long("req_bytes")?,
            response_bytes: reader.long("resp_bytes")?,
        })
    }

    pub(super) fn get(&self, row: usize) -> Public<'a> {
        let [method, host, path, url_prefix, url_query, route, request_id, upstream_cluster] =
            self.texts.map(|array| text_at(array, row));
        let [service, namespace, version, cluster, pod, node_ip, node_role] =
            self.identity.map(|array| text_at(array, row));
        Public {
            method,
            host,
            path,
            url_prefix,
            url_query,
            route,
            http_status: int_at(self.http_status, row),
            flags: words_at(self.flags, row),
            request_id,
            request_bytes: long_at(self.request_bytes, row),
            response_bytes: long_at(self.response_bytes, row),
            upstream_cluster,
            peer_ip: text_at(self.peer_ip, row).map(str::to_owned),
            peer_port: int_at(self.peer_port, row),
            identity: Identity {
                service: service.unwrap_or_default(),
                namespace,
                version,
                cluster,
                pod,
                node_ip: node_ip.and_then(|ip| ip.parse().ok()),
                node_role,
            },
        }
    }
}

/// An attribute value that public columns can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lift {
    Method,
    HttpStatus,
    Flags,
    RequestId,
    RequestBytes,
    ResponseBytes,
    Route,
    UpstreamCluster,
    /// Istio's alternative stat name: the cluster with a semicolon behind.
    UpstreamClusterSemicolon,
    /// `ip` or `ip:port`.
    Peer,
    Path,
    Url,
    Service,
    Namespace,
    Version,
    Cluster,
    /// Istio's `sidecar~10.0.0.1~pod.namespace~namespace.svc.cluster.local`.
    NodeId,
}

impl Lift {
    /// Which key may be said by what. Entries are never changed or removed.
    const KEYS: [(&'static str, Self); 22] = [
        ("guid:x-request-id", Self::RequestId),
        ("http.method", Self::Method),
        ("http.request.method", Self::Method),
        ("http.response.status_code", Self::HttpStatus),
        ("http.route", Self::Route),
        ("http.status_code", Self::HttpStatus),
        ("http.url", Self::Url),
        ("istio.canonical_revision", Self::Version),
        ("istio.canonical_service", Self::Service),
        ("istio.cluster_id", Self::Cluster),
        ("istio.namespace", Self::Namespace),
        ("node_id", Self::NodeId),
        ("peer.address", Self::Peer),
        ("request_size", Self::RequestBytes),
        ("response_flags", Self::Flags),
        ("response_size", Self::ResponseBytes),
        ("upstream_address", Self::Peer),
        ("upstream_cluster", Self::UpstreamCluster),
        ("upstream_cluster.name", Self::UpstreamClusterSemicolon),
        ("url.full", Self::Url),
        ("url.path", Self::Path),
        ("x-request-id", Self::RequestId),
    ];

    /// The lift of `key`, if it has one.
    pub(super) fn of(key: &str) -> Option<Self> {
        Self::KEYS.binary_search_by_key(&key, |(key, _)| key).ok().map(|place| Self::KEYS[place].1)
    }

    /// The other spelling of `key`, for keys whose senders do not agree. Never changed either.
    pub(super) fn other_of(key: &str) -> Option<Self> {
        // Envoy by itself says the cluster's name, Istio its own with a semicolon.
        (key == "upstream_cluster.name").then_some(Self::UpstreamCluster)
    }

    /// Writes the value into `out`, which must be empty; false when the columns do not say it.
    pub(super) fn render(self, row: &Public<'_>, out: &mut String) -> bool {
        let text = |out: &mut String, text: Option<&str>| text.inspect(|text| out.push_str(text)).is_some();
        match self {
            Self::Method => text(out, row.method),
            Self::RequestId => text(out, row.request_id),
            Self::Route => text(out, row.route),
            Self::Path => text(out, row.path),
            Self::UpstreamCluster => text(out, row.upstream_cluster),
            Self::UpstreamClusterSemicolon => {
                text(out, row.upstream_cluster) && {
                    out.push(';');
                    true
                }
            }
            Self::Service => text(out, Some(row.identity.service)),
            Self::Namespace => text(out, row.identity.namespace),
            Self::Version => text(out, row.identity.version),
            Self::Cluster => text(out, row.identity.cluster),
            Self::NodeId => row.identity.write_node_id(out),
            Self::HttpStatus => row.http_status.is_some_and(|status| write!(out, "{status}").is_ok()),
            Self::RequestBytes => row.request_bytes.is_some_and(|bytes| write!(out, "{bytes}").is_ok()),
            Self::ResponseBytes => row.response_bytes.is_some_and(|bytes| write!(out, "{bytes}").is_ok()),
            Self::Peer => {
                text(out, row.peer_ip.as_deref()) && row.peer_port.is_none_or(|port| write!(out, ":{port}").is_ok())
            }
            Self::Url => {
                text(out, row.url_prefix) && text(out, row.path) && {
                    text(out, row.url_query);
                    true
                }
            }
            Self::Flags => {
                out.push_str(if row.flags.is_empty() { "-" } else { "" });
                for (place, flag) in row.flags.iter().enumerate() {
                    out.push_str(if place == 0 { "" } else { "," });
                    out.push_str(flag);
                }
                true
            }
        }
    }
}

impl Identity<'_> {
    /// Gateways are `router` to Istio, and their role is often left to the rest of the trace.
    fn write_node_id(&self, out: &mut String) -> bool {
        let kind = match self.node_role.map(NodeRole::parse) {
            Some(Some(NodeRole::Sidecar)) => "sidecar",
            Some(Some(NodeRole::Waypoint)) => "waypoint",
            Some(Some(NodeRole::NodeProxy)) => "ztunnel",
            Some(_) | None => "router",
        };
        let (Some(ip), Some(pod), Some(namespace)) = (self.node_ip, self.pod, self.namespace) else { return false };
        write!(out, "{kind}~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local").is_ok()
    }
}
