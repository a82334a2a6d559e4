//! A line in the default text format of Istio or of Envoy.
//!
//! ```text
//! Istio  [start] "method path protocol" code flags details termination "failure" rx tx duration service_time
//!        "xff" "agent" "request id" "authority" "host" cluster up_local down_local down_remote sni route
//! Envoy  [start] "method path protocol" code flags rx tx duration service_time
//!        "xff" "agent" "request id" "authority" "host"
//! ```

use windrose_proto::Text;

use super::fields::Field;

/// Places of the words that say something, by number of words in the line.
const ISTIO: (usize, &[(usize, Field)]) = (
    22,
    &[
        (2, Field::ResponseCode),
        (3, Field::ResponseFlags),
        (4, Field::ResponseDetails),
        (7, Field::BytesReceived),
        (8, Field::BytesSent),
        (9, Field::DurationMillis),
        (12, Field::UserAgent),
        (13, Field::RequestId),
        (14, Field::Authority),
        (15, Field::UpstreamHost),
        (16, Field::UpstreamCluster),
        (17, Field::UpstreamLocal),
        (19, Field::DownstreamRemote),
        (21, Field::RouteName),
    ],
);
const ENVOY: (usize, &[(usize, Field)]) = (
    13,
    &[
        (2, Field::ResponseCode),
        (3, Field::ResponseFlags),
        (4, Field::BytesReceived),
        (5, Field::BytesSent),
        (6, Field::DurationMillis),
        (9, Field::UserAgent),
        (10, Field::RequestId),
        (11, Field::Authority),
        (12, Field::UpstreamHost),
    ],
);
const REQUEST_PLACE: usize = 1;
/// One more than any format has, so that a longer line fits none.
const WORDS_MAX: usize = ISTIO.0 + 1;

/// Reads a line; false when it is in neither format.
pub(super) fn read(line: &Text, mut put: impl FnMut(Field, Text)) -> bool {
    let words: Vec<&str> = Words { rest: line.trim() }.take(WORDS_MAX).collect();
    let Some((_, places)) = [ISTIO, ENVOY].into_iter().find(|(count, _)| *count == words.len()) else { return false };
    let is_request = line.starts_with('[') && words[2].len() <= 3 && words[2].bytes().all(|byte| byte.is_ascii_digit());
    let Some((method, rest)) = words[REQUEST_PLACE].split_once(' ').filter(|_| is_request) else { return false };
    // A path holds no space that is not escaped, but a broken client may send one.
    let (path, protocol) = rest.rsplit_once(' ').unwrap_or((rest, ""));
    for (field, part) in [(Field::Method, method), (Field::Path, path), (Field::Protocol, protocol)] {
        put(field, line.slice_ref(part));
    }
    for (place, field) in places {
        put(*field, line.slice_ref(words[*place]));
    }
    true
}

/// Words between blanks; one in quotes or brackets may hold blanks and comes without them.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start_matches(' ');
        let closing = match rest.as_bytes().first()? {
            b'"' => '"',
            b'[' => ']',
            _ => {
                let end = rest.find(' ').unwrap_or(rest.len());
                let (word, rest) = rest.split_at(end);
                self.rest = rest;
                return Some(word);
            }
        };
        let inner = &rest[1..];
        // A word that is never closed goes to the end of the line.
        let end = inner.find(closing).unwrap_or(inner.len());
        self.rest = inner.get(end + 1..).unwrap_or_default();
        Some(&inner[..end])
    }
}
