//! Reads a request body under the caps: size, time, and the memory of all requests together.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use windrose_proto::limits;

use super::admission::Account;
use super::failure::Failure;

/// Finds the length of a body in its first bytes.
pub(super) type LengthIn = fn(&[u8]) -> Option<usize>;

/// Of a body that says how long it will be, so many times what has come is believed.
const BELIEVED_TIMES: usize = 16;

/// The whole body. A body of one frame, which most are, is not copied.
pub(super) async fn read_body(
    body: Body,
    account: &mut Account,
    deadline: Duration,
    length: Option<LengthIn>,
) -> Result<Bytes, Failure> {
    tokio::time::timeout(deadline, collect(body, account, length)).await.unwrap_or_else(|_| Err(Failure::slow()))
}

async fn collect(mut body: Body, account: &mut Account, length: Option<LengthIn>) -> Result<Bytes, Failure> {
    let announced = body.size_hint();
    if announced.lower() > limits::BODY_MAX_BYTES as u64 {
        return Err(Failure::too_large(limits::BODY_MAX_BYTES));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut expected = announced.exact().and_then(|len| usize::try_from(len).ok());
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
            expected = expected.or_else(|| length?(&first));
        }
        let needed = so_far + data.len();
        if rest.capacity() < needed {
            // To the byte: spans keep the body they came in.
            let believed = limits::BODY_MAX_BYTES.min(BELIEVED_TIMES * so_far);
            let wanted = expected.unwrap_or_default().min(believed).max(needed);
            rest.reserve(wanted - rest.len());
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::receive::admission::Admission;

    const PIECE: usize = 1024;

    async fn collected(length: Option<LengthIn>) -> (Vec<u8>, Bytes) {
        let sent: Vec<u8> = (0..40 * PIECE + 7).map(|place| (place / 3) as u8).collect();
        let piece = |piece: &[u8]| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece)));
        let pieces: Vec<_> = sent.chunks(PIECE).map(piece).collect();
        let body = Body::new(StreamBody::new(futures::stream::iter(pieces)));
        let mut account = Admission::new(1 << 20, Duration::ZERO).open();
        let read = collect(body, &mut account, length).await.unwrap();
        (sent, read)
    }

    #[tokio::test]
    async fn whatever_a_body_says_of_its_length_it_is_read_whole() {
        let lengths: [Option<LengthIn>; 5] =
            [None, Some(|_| None), Some(|_| Some(0)), Some(|_| Some(40 * PIECE + 7)), Some(|_| Some(usize::MAX))];
        for length in lengths {
            let (sent, read) = collected(length).await;
            assert_eq!(sent, read);
        }
    }

    #[tokio::test]
    async fn room_is_made_to_the_byte_and_for_no_more_than_is_believed() {
        let (sent, read) = collected(Some(|_| Some(40 * PIECE + 7))).await;
        assert_eq!(BytesMut::from(read).capacity(), sent.len());
        let (_, read) = collected(Some(|_| Some(usize::MAX))).await;
        assert!(BytesMut::from(read).capacity() <= BELIEVED_TIMES * 40 * PIECE);
    }
}
