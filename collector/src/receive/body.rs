//! Reads a request body under the caps: size, time, and the memory of all requests together.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use windrose_proto::limits;

use super::admission::Account;
use super::failure::Failure;

/// The whole body. A body of one frame, which most are, is not copied.
pub(super) async fn read_body(body: Body, account: &mut Account, deadline: Duration) -> Result<Bytes, Failure> {
    tokio::time::timeout(deadline, collect(body, account)).await.unwrap_or_else(|_| Err(Failure::slow()))
}

async fn collect(mut body: Body, account: &mut Account) -> Result<Bytes, Failure> {
    let announced = body.size_hint();
    if announced.lower() > limits::BODY_MAX_BYTES as u64 {
        return Err(Failure::too_large(limits::BODY_MAX_BYTES));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::malformed(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = if rest.is_empty() { first.len() } else { rest.len() };
        if so_far + data.len() > limits::BODY_MAX_BYTES {
            return Err(Failure::too_large(limits::BODY_MAX_BYTES));
        }
        account.pay(data.len()).await?;
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            // The announcement is at most the cap, and only now worth believing.
            let exact = announced.exact().and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
            rest.reserve(exact.max(first.len() + data.len()));
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}
