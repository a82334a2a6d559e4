//! The way of every request, whatever protocol it came by: tenant, body, decode, intake, counts.

use ::http::HeaderMap;
use axum::body::Body;
use bytes::Bytes;
use windrose_proto::model::IngestProtocol;
use windrose_proto::reject::RejectReason;
use windrose_proto::tenant::TenantId;

use super::body::read_body;
use super::failure::{Failure, FailureKind};
use super::grpc::length_in;
use super::{Intake, Receiver, Submission};
use crate::decode::{BodyFormat, ContentEncoding, DecodeError, Decoded, Origin, Rejections, decode};

/// The header that names the tenant, in HTTP and as gRPC metadata.
const TENANT_HEADER: &str = "x-scope-orgid";

/// Bodies up to here are decoded where they are received: at about 1 µs per KiB of OTLP protobuf
/// that stays below half a millisecond, and handing over to another thread would cost 20 µs.
const INLINE_MAX_BYTES: usize = 256 << 10;

/// How much larger than its body a request may turn out, for the choice above.
const EXPANSION: usize = 8;

/// A message as it was cut out of a request.
pub(super) struct Message {
    pub(super) format: BodyFormat,
    pub(super) encoding: ContentEncoding,
    pub(super) body: Bytes,
}

/// What became of a request that was not refused.
pub(super) struct Accepted {
    /// Spans acknowledged.
    pub(super) spans: u64,
    /// Spans refused while the rest was acknowledged.
    pub(super) rejected: Rejections,
}

impl<I: Intake> Receiver<I> {
    /// Counts a request that was refused before anything of it was read.
    pub(super) fn refuse(&self, ingest: IngestProtocol, failure: Failure) -> Failure {
        let stats = self.stats.protocol(ingest);
        stats.requests.count_request();
        stats.requests.count_refused(failure.reason);
        failure
    }

    /// Takes a request through to the intake. `cut` finds the message in the body, and may refuse.
    pub(super) async fn accept(
        &self,
        ingest: IngestProtocol,
        headers: &HeaderMap,
        body: Body,
        cut: impl FnOnce(Bytes) -> Result<Message, Failure>,
    ) -> Result<Accepted, Failure> {
        let stats = self.stats.protocol(ingest);
        let _in_flight = self.stats.enter();
        stats.requests.count_request();
        let result = self.take(ingest, headers, body, cut).await;
        match &result {
            Ok(accepted) => stats.count_rejections(&accepted.rejected),
            Err(failure) => {
                stats.requests.count_refused(failure.reason);
                tracing::debug!(protocol = %ingest, reason = %failure.reason, error = %failure, "request refused");
            }
        }
        result
    }

    async fn take(
        &self,
        ingest: IngestProtocol,
        headers: &HeaderMap,
        body: Body,
        cut: impl FnOnce(Bytes) -> Result<Message, Failure>,
    ) -> Result<Accepted, Failure> {
        let stats = self.stats.protocol(ingest);
        let tenant = self.tenant(headers)?;
        let mut account = self.admission.open();
        let body = read_body(body, &mut account, self.options.body_timeout, length_in(headers)).await?;
        stats.requests.count_body(body.len());
        let message = cut(body)?;
        let origin = Origin { ingest, arrived: self.clock.now() };
        let mut decoded = self.decode(&message, origin).await?;
        let rejected = std::mem::take(&mut decoded.rejected);
        let spans = decoded.spans.len() as u64;
        if spans == 0 {
            return Ok(Accepted { spans, rejected });
        }
        let submitted = match account.pay(decoded.memory_bytes).await {
            Ok(()) => {
                let Message { format, encoding, body } = message;
                let submission = Submission { tenant, format, encoding, body, origin, decoded };
                self.intake.submit(submission).await.map_err(Failure::from)
            }
            Err(failure) => Err(failure),
        };
        match submitted {
            Ok(()) => {
                stats.count_spans(spans);
                Ok(Accepted { spans, rejected })
            }
            Err(failure) => {
                stats.count_rejected_spans(failure.reason, spans);
                Err(failure)
            }
        }
    }

    /// Decoding that takes long must not hold up the other connections of this thread.
    async fn decode(&self, message: &Message, origin: Origin) -> Result<Decoded, Failure> {
        let Message { format, encoding, body } = message;
        let (format, encoding) = (*format, *encoding);
        let expected_bytes = if encoding == ContentEncoding::Identity { body.len() } else { body.len() * EXPANSION };
        if expected_bytes <= INLINE_MAX_BYTES {
            return Ok(decode(format, encoding, body, origin)?);
        }
        let _slot = self.decode_slots.acquire().await.map_err(|_| Failure::unavailable())?;
        let body = body.clone();
        let decoding = tokio::task::spawn_blocking(move || decode(format, encoding, &body, origin));
        match decoding.await {
            Ok(decoded) => Ok(decoded?),
            Err(error) => {
                tracing::error!(%error, "a decoder panicked");
                Err(DecodeError { reason: RejectReason::BadBody, message: "the body could not be decoded".into() }
                    .into())
            }
        }
    }

    pub(super) fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, Failure> {
        let refuse = |message: &str| Failure {
            kind: FailureKind::Malformed,
            reason: RejectReason::BadTenant,
            message: message.to_owned(),
        };
        let mut values = headers.get_all(TENANT_HEADER).iter();
        match (values.next(), values.next()) {
            (None, _) if self.options.require_tenant => Err(refuse("X-Scope-OrgID is missing: name the tenant")),
            (None, _) => Ok(TenantId::default()),
            (Some(_), Some(_)) => Err(refuse("X-Scope-OrgID occurs more than once")),
            (Some(name), None) => Ok(TenantId::new(&String::from_utf8_lossy(name.as_bytes()))?),
        }
    }
}

/// The coding named by `header`.
pub(super) fn content_encoding(headers: &HeaderMap, header: &'static str) -> Result<ContentEncoding, Failure> {
    let Some(value) = headers.get(header) else { return Ok(ContentEncoding::Identity) };
    let name = String::from_utf8_lossy(value.as_bytes());
    ContentEncoding::parse(&name)
        .ok_or_else(|| Failure::unsupported(format!("{header} {name:?} is not understood: use {ACCEPTED_ENCODINGS}")))
}

/// Content codings, as answers name them.
pub(super) const ACCEPTED_ENCODINGS: &str = "zstd, gzip, deflate, identity";
