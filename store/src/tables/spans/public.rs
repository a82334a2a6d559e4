//! The public columns that often say exactly what an attribute says, and how to say it back.
//!
//! Invariant: [`Lift::render`] of a published lift never changes, because files on disk rely on
//! it. A sender that spells the value differently is simply not lifted.

use std::fmt::Write as _;
use std::net::IpAddr;

use arrow::array::{Int32Array, Int64Array, ListArray, StringArray};

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
        }
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
}

impl Lift {
    /// Which key may be said by what. Entries are never changed or removed.
    const KEYS: [(&'static str, Self); 17] = [
        ("guid:x-request-id", Self::RequestId),
        ("http.method", Self::Method),
        ("http.request.method", Self::Method),
        ("http.response.status_code", Self::HttpStatus),
        ("http.route", Self::Route),
        ("http.status_code", Self::HttpStatus),
        ("http.url", Self::Url),
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
