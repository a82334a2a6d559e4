//! Content codings of bodies, inflated under a hard cap: a bomb costs at most
//! [`limits::DECOMPRESSED_MAX_BYTES`] and is refused.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use windrose_proto::limits;
use windrose_proto::reject::RejectReason;

use super::DecodeError;

/// Largest zstd window accepted: 8 MiB, what RFC 9659 allows for HTTP. The frame header asks for
/// that much memory before the first byte of content.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is encoded on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContentEncoding {
    #[default]
    Identity,
    Gzip,
    Zstd,
    /// zlib as HTTP means it, or raw deflate as some send it.
    Deflate,
}

impl ContentEncoding {
    /// Every coding, in the order of [`Self::code`].
    pub const ALL: [Self; 4] = [Self::Identity, Self::Gzip, Self::Zstd, Self::Deflate];

    /// From a `content-encoding` or `grpc-encoding` header value.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// A stable number for logs on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Back from [`Self::code`].
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// The content of `body`; the body itself when it is not compressed.
///
/// # Errors
/// `too_large` when it inflates beyond the limit, `bad_body` when it is not of that coding.
pub fn decompress(encoding: ContentEncoding, body: &Bytes) -> Result<Bytes, DecodeError> {
    match encoding {
        ContentEncoding::Identity => Ok(body.clone()),
        ContentEncoding::Gzip => inflate("gzip", MultiGzDecoder::new(&body[..]), body.len()),
        ContentEncoding::Zstd => zstd_decoder(body)
            .map_err(|error| broken("zstd", &error))
            .and_then(|decoder| inflate("zstd", decoder, body.len())),
        ContentEncoding::Deflate if has_zlib_header(body) => {
            inflate("deflate", ZlibDecoder::new(&body[..]), body.len())
        }
        ContentEncoding::Deflate => inflate("deflate", DeflateDecoder::new(&body[..]), body.len()),
    }
}

fn zstd_decoder(body: &Bytes) -> io::Result<zstd::stream::read::Decoder<'static, &[u8]>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..])?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// RFC 1950: method 8 in the low nibble, and the first two bytes are a multiple of 31.
fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0)
}

/// Telemetry shrinks five to twelve times; four is a first guess that never wastes much.
const EXPANSION_GUESS: usize = 4;

fn inflate(coding: &str, decoder: impl Read, compressed_len: usize) -> Result<Bytes, DecodeError> {
    let max = limits::DECOMPRESSED_MAX_BYTES;
    let mut content = Vec::with_capacity(compressed_len.saturating_mul(EXPANSION_GUESS).min(max));
    decoder.take(max as u64 + 1).read_to_end(&mut content).map_err(|error| broken(coding, &error))?;
    if content.len() > max {
        return Err(DecodeError {
            reason: RejectReason::TooLarge,
            message: format!("body inflates to more than {} MiB: send smaller batches", max >> 20),
        });
    }
    Ok(Bytes::from(content))
}

fn broken(coding: &str, error: &io::Error) -> DecodeError {
    DecodeError::bad_body(format!("body is not valid {coding}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::Bytes;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;
    use windrose_proto::limits;
    use windrose_proto::reject::RejectReason;

    use super::{ContentEncoding, decompress};

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(content: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(content: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        zstd::encode_all(content, 1).unwrap()
    }

    #[track_caller]
    fn check(encoding: ContentEncoding, body: Vec<u8>, expect: Result<&[u8], RejectReason>) {
        let content = decompress(encoding, &Bytes::from(body));
        assert_eq!(content.as_deref().map_err(|error| error.reason), expect);
    }

    #[test]
    fn each_coding() {
        let content = b"spans spans spans spans".as_slice();
        check(ContentEncoding::Identity, content.to_vec(), Ok(content));
        check(ContentEncoding::Gzip, gzip(content), Ok(content));
        check(ContentEncoding::Gzip, [gzip(b"spans spans "), gzip(b"spans spans")].concat(), Ok(content));
        check(ContentEncoding::Zstd, zstd(content), Ok(content));
        check(ContentEncoding::Zstd, [zstd(b"spans spans "), zstd(b"spans spans")].concat(), Ok(content));
        check(ContentEncoding::Deflate, zlib(content), Ok(content));
        check(ContentEncoding::Deflate, raw_deflate(content), Ok(content));
    }

    #[test]
    fn bodies_of_another_coding_or_cut_short_are_refused() {
        for encoding in [ContentEncoding::Gzip, ContentEncoding::Zstd, ContentEncoding::Deflate] {
            check(encoding, b"{\"resourceSpans\":[]}".to_vec(), Err(RejectReason::BadBody));
        }
        let content = vec![7; 1000];
        for (encoding, body) in [
            (ContentEncoding::Gzip, gzip(&content)),
            (ContentEncoding::Zstd, zstd(&content)),
            (ContentEncoding::Deflate, zlib(&content)),
        ] {
            check(encoding, body[..body.len() - 3].to_vec(), Err(RejectReason::BadBody));
        }
    }

    #[test]
    fn bombs_are_refused() {
        let zeros = vec![0; limits::DECOMPRESSED_MAX_BYTES + 1];
        check(ContentEncoding::Gzip, gzip(&zeros), Err(RejectReason::TooLarge));
        check(ContentEncoding::Zstd, zstd(&zeros), Err(RejectReason::TooLarge));
        check(ContentEncoding::Deflate, zlib(&zeros), Err(RejectReason::TooLarge));
        // A frame that asks for a window of 2 GiB before it has said anything.
        let wide_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        check(ContentEncoding::Zstd, wide_window.to_vec(), Err(RejectReason::BadBody));
    }

    #[test]
    fn names_and_codes() {
        for (name, expect) in [
            ("gzip", Some(ContentEncoding::Gzip)),
            ("GZIP", Some(ContentEncoding::Gzip)),
            ("x-gzip", Some(ContentEncoding::Gzip)),
            ("zstd", Some(ContentEncoding::Zstd)),
            ("deflate", Some(ContentEncoding::Deflate)),
            ("", Some(ContentEncoding::Identity)),
            ("identity", Some(ContentEncoding::Identity)),
            ("br", None),
            ("gzip, zstd", None),
        ] {
            assert_eq!(ContentEncoding::parse(name), expect, "{name}");
        }
        for encoding in ContentEncoding::ALL {
            assert_eq!(ContentEncoding::from_code(encoding.code()), Some(encoding));
        }
        assert_eq!(ContentEncoding::from_code(9), None);
    }

    proptest! {
        #[test]
        fn damaged_bodies_never_panic(
            content in proptest::collection::vec(any::<u8>(), 0..512),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            for (encoding, mut body) in [
                (ContentEncoding::Gzip, gzip(&content)),
                (ContentEncoding::Zstd, zstd(&content)),
                (ContentEncoding::Deflate, zlib(&content)),
            ] {
                let at = at.index(body.len());
                body[at] = byte;
                if let Ok(inflated) = decompress(encoding, &Bytes::from(body)) {
                    prop_assert!(inflated.len() <= limits::DECOMPRESSED_MAX_BYTES);
                }
            }
        }
    }
}
