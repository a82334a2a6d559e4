//! Bytes of a body as text that shares the body.

use bytes::Bytes;
use windrose_proto::Text;

/// A body whose parts can be shared without copying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    body: &'a Bytes,
}

impl<'a> Source<'a> {
    pub(super) const fn new(body: &'a Bytes) -> Self {
        Self { body }
    }

    /// The whole body.
    pub(super) fn body(self) -> &'a [u8] {
        self.body
    }

    /// A part of the body, shared; cut at `max_bytes`.
    pub(super) fn bytes(self, part: &'a [u8], max_bytes: usize) -> Bytes {
        self.body.slice_ref(&part[..part.len().min(max_bytes)])
    }

    /// A part of the body as text: shared when it is UTF-8, else copied with replacement
    /// characters; at most `max_bytes` long, cut at a character boundary.
    #[inline]
    pub(super) fn text(self, part: &'a [u8], max_bytes: usize) -> Text {
        if part.is_empty() {
            return Text::new();
        }
        if part.len() <= max_bytes
            && let Ok(text) = Text::try_from(self.body.slice_ref(part))
        {
            return text;
        }
        self.long_or_broken(part, max_bytes)
    }

    #[cold]
    fn long_or_broken(self, part: &'a [u8], max_bytes: usize) -> Text {
        let head = &part[..part.len().min(max_bytes)];
        let readable = match std::str::from_utf8(head) {
            Ok(text) => text,
            // The cut halved the last character.
            Err(error) if error.error_len().is_none() && head.len() < part.len() => {
                std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return cut(Text::from(String::from_utf8_lossy(head).into_owned()), max_bytes),
        };
        Text::try_from(self.body.slice_ref(readable.as_bytes())).unwrap_or_default()
    }
}

/// `text`, at most `max_bytes` long, cut at a character boundary.
pub(super) fn cut(text: Text, max_bytes: usize) -> Text {
    if text.len() <= max_bytes { text } else { text.slice_ref(&text[..text.floor_char_boundary(max_bytes)]) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Source;

    #[track_caller]
    fn check(part: &[u8], max_bytes: usize, expect: &str, expect_shared: bool) {
        let body = Bytes::copy_from_slice(part);
        let text = Source::new(&body).text(&body, max_bytes);
        assert_eq!(&*text, expect);
        assert!(text.len() <= max_bytes);
        let shared = body.as_ptr_range().contains(&text.as_bytes().as_ptr());
        assert_eq!(shared, expect_shared, "whether the body is shared");
    }

    #[test]
    fn valid_text_is_shared_and_cut_at_a_character() {
        check("grün".as_bytes(), 10, "grün", true);
        check("grün".as_bytes(), 3, "gr", true);
        check("grün".as_bytes(), 4, "grü", true);
        check("grün".as_bytes(), 2, "gr", true);
    }

    #[test]
    fn broken_text_is_repaired_and_never_longer_than_allowed() {
        check(b"a\xffb", 10, "a\u{fffd}b", false);
        check(b"\xff\xff\xff\xff", 4, "\u{fffd}", false);
        check(b"a\xffbc", 3, "a", false);
    }
}
