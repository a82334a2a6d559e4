//! Which protocol a request spoke and whether it was encrypted.

use windrose_proto::model::{Protocol, Tls, Vantage};

use super::attrs::{Key, View};

/// The application protocol.
pub(super) fn protocol(view: &View<'_>) -> Protocol {
    let is_grpc_content = [Key::GrpcContentType, Key::RequestContentType]
        .iter()
        .any(|key| view.text(*key).is_some_and(|text| text.contains("application/grpc")));
    let is_grpc_system = view.text(Key::RpcSystem).is_some_and(|system| &**system == "grpc");
    if view.has(Key::GrpcPath) || view.has(Key::GrpcStatusCode) || is_grpc_content || is_grpc_system {
        return Protocol::Grpc;
    }
    if view.first(&[Key::MessagingSystem]).is_some() {
        return Protocol::Messaging;
    }
    let version = view.first(&[Key::HttpProtocol, Key::NetworkProtocolVersion, Key::HttpFlavor]);
    if let Some(protocol) = version.and_then(|version| version_of(version.as_str()?)) {
        return protocol;
    }
    // A number instead of a text is a version as well.
    match version.and_then(|version| version.as_i64()) {
        Some(1) => return Protocol::Http1,
        Some(2) => return Protocol::Http2,
        Some(3) => return Protocol::Http3,
        _ => {}
    }
    let is_http = view.first(&[Key::HttpMethod, Key::HttpRequestMethod, Key::HttpUrl, Key::UrlFull]).is_some();
    if is_http { Protocol::Http } else { Protocol::Unknown }
}

fn version_of(text: &str) -> Option<Protocol> {
    if text.contains("HTTP/2") || matches!(text, "2" | "2.0") {
        Some(Protocol::Http2)
    } else if text.contains("HTTP/3") || matches!(text, "3" | "3.0") {
        Some(Protocol::Http3)
    } else if text.contains("HTTP/1") || text.starts_with('1') {
        Some(Protocol::Http1)
    } else {
        None
    }
}

/// Transport security of the leg this span reports: the upstream leg of client halves, the
/// downstream leg of entries. Envoy says nothing of it by default; the principals are custom tags
/// that only mutual TLS fills.
pub(super) fn tls(view: &View<'_>, vantage: Vantage) -> Tls {
    match vantage {
        Vantage::Downstream if view.text(Key::SourcePrincipal).is_some() => Tls::Mutual,
        Vantage::Downstream if is_https(view) => Tls::Tls,
        Vantage::Upstream | Vantage::UpstreamLogical | Vantage::Single
            if view.text(Key::DestinationPrincipal).is_some() =>
        {
            Tls::Mutual
        }
        _ => Tls::Unknown,
    }
}

fn is_https(view: &View<'_>) -> bool {
    let scheme_is = |text: &str| text.eq_ignore_ascii_case("https");
    match view.first_text(&[Key::UrlScheme, Key::HttpScheme]) {
        Some(scheme) => scheme_is(scheme),
        None => view
            .first_text(&[Key::HttpUrl, Key::UrlFull])
            .is_some_and(|url| url.split_once("://").is_some_and(|(scheme, _)| scheme_is(scheme))),
    }
}
