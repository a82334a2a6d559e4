//! How the request ended as one span saw it (rules O1, O3, O4 and the span part of F).

use smallvec::SmallVec;
use windrose_proto::Text;
use windrose_proto::model::{Fault, ProxyKind, Reason, Rule, SpanKind};
use windrose_proto::normal::Outcome;
use windrose_proto::span::StatusCode;

use super::attrs::{Key, View};
use super::reading::Reading;

/// Response flags kept of one span; Envoy writes at most a handful.
const FLAGS_MAX: usize = 8;

/// gRPC codes that are failures of the service, not of the request.
#[must_use]
pub fn is_grpc_server_error(code: u8) -> bool {
    matches!(code, 2 | 4 | 8 | 10 | 12 | 13 | 14 | 15)
}

/// The outcome. Rules O1, O3, O4, F0–F5, F9.
pub(super) fn outcome(reading: &Reading<'_>, kind: ProxyKind) -> Outcome {
    let view = &reading.view;
    let http_status = http_status(view, kind);
    let grpc_status = grpc_status(view);
    let flags = flags(view);
    let mut reasons: SmallVec<[Reason; 1]> = flags.iter().map(|flag| reason_of_flag(flag)).collect();
    if let Some(reason) = view.get(Key::ErrorReason).and_then(|value| reason_of_reset(value.as_str()?)) {
        reasons.push(reason);
    }
    if view.is_true(Key::Canceled) {
        reasons.push(Reason::Cancelled);
    }
    let error = is_error(reading, http_status, grpc_status);
    let (fault, fault_rule) = if error || http_status.is_some_and(|code| code >= 400) {
        fault(reading, kind, http_status, flags.is_empty(), &mut reasons)
    } else {
        (Fault::None, "F0")
    };
    sort_reasons(&mut reasons);
    Outcome {
        http_status,
        grpc_status,
        flags,
        reasons,
        error,
        fault,
        fault_rule: Rule(fault_rule),
        retry: view
            .number(&[Key::ResendCount, Key::OldResendCount, Key::RetryCount, Key::RetryAttempt])
            .map_or(0, |retry| retry.clamp(0, i64::from(u8::MAX)) as u8),
        try_number: view.number(&[Key::KongBalancerTry, Key::TryCount]).and_then(|number| u8::try_from(number).ok()),
    }
}

/// Reasons are a set.
pub(crate) fn sort_reasons(reasons: &mut SmallVec<[Reason; 1]>) {
    reasons.sort_unstable();
    reasons.dedup();
}

/// Whether Envoy answered without an upstream, when `response_code_details` says so.
pub(super) fn local_reply(view: &View<'_>) -> Option<bool> {
    view.text(Key::ResponseCodeDetails).map(|details| &**details != "via_upstream")
}

/// O1: Envoy writes `0` when nobody answered.
fn http_status(view: &View<'_>, kind: ProxyKind) -> Option<u16> {
    let code = view.number(&[Key::HttpResponseStatusCode, Key::HttpStatusCode, Key::HttpStatus]).or_else(|| {
        // Spring's observation calls it just `status`.
        if kind == ProxyKind::SpringCloudGateway { view.number(&[Key::Status]) } else { None }
    })?;
    u16::try_from(code).ok().filter(|code| (1..1000).contains(code))
}

fn grpc_status(view: &View<'_>) -> Option<u8> {
    let code = view.number(&[Key::RpcGrpcStatus, Key::GrpcStatusCode, Key::GrpcStatus])?;
    u8::try_from(code).ok()
}

fn flags(view: &View<'_>) -> SmallVec<[Text; 1]> {
    let Some(text) = view.text(Key::ResponseFlags) else { return SmallVec::new() };
    let flags = text.split(',').map(str::trim).filter(|flag| !matches!(*flag, "" | "-"));
    flags.take(FLAGS_MAX).map(|flag| text.slice_ref(flag)).collect()
}

/// OTel instrumentation and Envoy's CLIENT spans mark 4xx and any gRPC code but 0 as errors; who
/// asks for error rates means failures of the service. So a known answer decides before the
/// span's status does.
fn is_error(reading: &Reading<'_>, http_status: Option<u16>, grpc_status: Option<u8>) -> bool {
    if let Some(code) = grpc_status.filter(|code| *code != 0) {
        return is_grpc_server_error(code) || http_status.is_some_and(|code| code >= 500);
    }
    if http_status.is_some_and(|code| code >= 500) || reading.view.is_true(Key::Error) {
        return true;
    }
    let is_client_fault =
        reading.span.kind == SpanKind::Client && http_status.is_some_and(|code| (400..500).contains(&code));
    reading.span.status == StatusCode::Error && !is_client_fault
}

fn fault(
    reading: &Reading<'_>,
    kind: ProxyKind,
    http_status: Option<u16>,
    no_flags: bool,
    reasons: &mut SmallVec<[Reason; 1]>,
) -> (Fault, &'static str) {
    let view = &reading.view;
    let source = view.get(Key::ApisixResponseSource).and_then(|value| value.as_str());
    if reasons.iter().any(|reason| matches!(reason, Reason::ClientAbort | Reason::ClientProtocol)) {
        return (Fault::Client, "F1");
    }
    if http_status == Some(499) {
        reasons.push(Reason::ClientAbort);
        return (Fault::Client, "F1b");
    }
    if reasons.iter().any(is_made_by_proxy) {
        return (Fault::Proxy, "F2");
    }
    if kind == ProxyKind::Agentgateway
        && let Some(word) = view.get(Key::Reason).and_then(|value| value.as_str()).filter(|word| !word.is_empty())
    {
        reasons.extend(reason_of_agentgateway(word));
        return (if word == "Upstream" { Fault::Upstream } else { Fault::Proxy }, "F3c");
    }
    match source {
        Some("upstream") => return (Fault::Upstream, "F3"),
        Some("apisix" | "nginx") => return (Fault::Proxy, "F3b"),
        _ => {}
    }
    if local_reply(view) == Some(true) {
        return (Fault::Proxy, "F2b");
    }
    let has_flags_key = view.has(Key::ResponseFlags);
    if no_flags && has_flags_key && http_status.is_some() {
        return (Fault::Upstream, "F4");
    }
    if kind != ProxyKind::None && has_flags_key && http_status.is_none() {
        return (Fault::Proxy, "F5");
    }
    (Fault::Unknown, "F9")
}

/// Reasons that only a proxy can have.
fn is_made_by_proxy(reason: &Reason) -> bool {
    match reason {
        Reason::ConnTimeout
        | Reason::LocalReset
        | Reason::NoRoute
        | Reason::NoHealthyUpstream
        | Reason::ConnFail
        | Reason::Timeout
        | Reason::CircuitOpen
        | Reason::Overload
        | Reason::RetryLimit
        | Reason::RateLimited
        | Reason::RateLimitError
        | Reason::Denied
        | Reason::FaultInjected
        | Reason::Cache
        | Reason::DnsFail
        | Reason::TlsFail
        | Reason::UpstreamReset
        | Reason::UpstreamProtocol => true,
        Reason::DelayInjected
        | Reason::ClientAbort
        | Reason::ClientProtocol
        | Reason::HedgeLost
        | Reason::Cancelled
        | Reason::OtherFlag(_) => false,
    }
}

/// The reason an Envoy response flag stands for. Also the vocabulary of flags in metrics.
#[must_use]
pub fn reason_of_flag(flag: &str) -> Reason {
    match flag {
        "NR" | "NC" | "NFCF" => Reason::NoRoute,
        "UH" => Reason::NoHealthyUpstream,
        "UF" | "CONNECT" => Reason::ConnFail,
        "UC" | "UR" | "LR" => Reason::UpstreamReset,
        "UPE" => Reason::UpstreamProtocol,
        "UT" | "SI" | "DT" | "UMSDR" => Reason::Timeout,
        "UO" => Reason::CircuitOpen,
        "OM" | "DO" | "UDO" | "LH" => Reason::Overload,
        "URX" => Reason::RetryLimit,
        "RL" => Reason::RateLimited,
        "RLSE" => Reason::RateLimitError,
        "UAEX" | "DENY" | "NETWORK_POLICY" => Reason::Denied,
        "FI" => Reason::FaultInjected,
        "DI" => Reason::DelayInjected,
        "DC" | "DR" => Reason::ClientAbort,
        "DPE" | "IH" => Reason::ClientProtocol,
        "RFCF" => Reason::Cache,
        "DF" => Reason::DnsFail,
        "TLS_FAILURE" | "H2_HANDSHAKE_FAILURE" | "IDENTITY_ERROR" | "CERT_REVOKED" => Reason::TlsFail,
        // Kept as written: a new flag must not be lost. Copied, since it outlives its request.
        other => Reason::OtherFlag(Text::from(other)),
    }
}

/// O3: the text of Envoy's `error.reason` on an attempt.
fn reason_of_reset(text: &str) -> Option<Reason> {
    Some(match text {
        "local connection failure" | "remote connection failure" => Reason::ConnFail,
        "connection timeout" => Reason::ConnTimeout,
        "connection termination"
        | "remote reset"
        | "remote refused stream reset"
        | "HTTP/1 premature upstream half close" => Reason::UpstreamReset,
        "protocol error" => Reason::UpstreamProtocol,
        "overflow" => Reason::CircuitOpen,
        "overload manager reset" => Reason::Overload,
        "local reset" | "local refused stream reset" => Reason::LocalReset,
        _ => return None,
    })
}

fn reason_of_agentgateway(word: &str) -> Option<Reason> {
    Some(match word {
        "NotFound" => Reason::NoRoute,
        "NoHealthyBackend" => Reason::NoHealthyUpstream,
        "Timeout" => Reason::Timeout,
        "UpstreamFailure" => Reason::ConnFail,
        "RateLimit" => Reason::RateLimited,
        "JwtAuth" | "Oidc" | "BasicAuth" | "APIKeyAuth" | "ExtAuth" | "Authorization" | "Guardrail" => Reason::Denied,
        "InvalidRequest" => Reason::ClientProtocol,
        _ => return None,
    })
}
