//! Routes: what a request asked for, with what varies from request to request taken out, so that
//! the number of routes stays small and no secret gets into a name.

use windrose_proto::Text;

/// Segments kept of a path; deeper ones are summed up.
const SEGMENTS_MAX: usize = 8;
/// Longest template; longer ones are cut at a segment.
const TEMPLATE_MAX_BYTES: usize = 200;
/// Longest method taken over; longer ones are no methods.
const METHOD_MAX_BYTES: usize = 16;
/// Longest segment that can be a word somebody chose.
const WORD_MAX_BYTES: usize = 40;

/// The path of a URL or a request target: without scheme, host, query and fragment.
#[must_use]
pub fn path_of(url: &str) -> Option<&str> {
    let rest = match url.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => match rest.find(['/', '?', '#']) {
            Some(slash) => &rest[slash..],
            None => return Some("/"),
        },
        _ => url,
    };
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    match path {
        "" => Some("/"),
        path if path.starts_with('/') => Some(path),
        _ => None,
    }
}

/// `GET /api/orders/{id}`: method and path template.
#[must_use]
pub fn route_of(method: Option<&str>, path: &str) -> Text {
    Text::from(with_method(method, &template(path)))
}

/// The route a proxy or framework names itself, with the method when it names only the path.
#[must_use]
pub fn named_route(method: Option<&str>, route: &str) -> Text {
    let cut = cut_at(route, TEMPLATE_MAX_BYTES);
    if cut.starts_with('/') { Text::from(with_method(method, cut)) } else { Text::from(cut) }
}

/// All requests a gateway has no route for are one route: their paths are whatever scanners try,
/// and each would be an edge of its own.
#[must_use]
pub fn no_route(method: Option<&str>) -> Text {
    Text::from(with_method(method, "(no route)"))
}

/// A gRPC method is a route as it is: its names are code.
#[must_use]
pub fn grpc_route(path: &str) -> Text {
    Text::from(cut_at(path, TEMPLATE_MAX_BYTES))
}

fn with_method(method: Option<&str>, path: &str) -> String {
    let is_method = |method: &&str| {
        !method.is_empty()
            && method.len() <= METHOD_MAX_BYTES
            && method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
    };
    match method.filter(is_method) {
        Some(method) => format!("{} {path}", method.to_ascii_uppercase()),
        None => path.to_owned(),
    }
}

/// The path with `{id}` in place of every segment that looks like an identifier.
#[must_use]
pub fn template(path: &str) -> String {
    let mut out = String::with_capacity(path.len().min(TEMPLATE_MAX_BYTES));
    for (number, segment) in path.split('/').filter(|segment| !segment.is_empty()).enumerate() {
        let shown = if is_identifier(segment) { "{id}" } else { segment };
        if number >= SEGMENTS_MAX || out.len() + 1 + shown.len() > TEMPLATE_MAX_BYTES {
            out.push_str("/…");
            break;
        }
        out.push('/');
        out.push_str(shown);
    }
    if out.is_empty() {
        out.push('/');
    }
    out
}

/// Whether a segment varies from request to request: a number, a UUID, a hash, a key, something
/// encoded, or a number behind a prefix.
fn is_identifier(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    if bytes.len() > WORD_MAX_BYTES
        || bytes.iter().any(|byte| matches!(byte, b'%' | b'@' | b'=' | b';' | b',') || !byte.is_ascii())
    {
        return true;
    }
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        // Only letters: a word, unless it is longer than words are and made of hexadecimal.
        return bytes.len() >= 16 && bytes.iter().all(u8::is_ascii_hexdigit);
    }
    let is_number = bytes.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_' | b'+'));
    let is_hex = bytes.len() >= 8 && bytes.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let is_key = bytes.len() >= 16 && digits >= 2;
    is_number || is_hex || is_key || ends_in_number(bytes)
}

/// `sku-10234`, `order_991`: at least three digits behind a separator.
fn ends_in_number(bytes: &[u8]) -> bool {
    let digits = bytes.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    digits >= 3 && bytes.len() > digits && matches!(bytes[bytes.len() - digits - 1], b'-' | b'_' | b'.' | b':')
}

fn cut_at(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::{TEMPLATE_MAX_BYTES, named_route, path_of, route_of, template};

    #[track_caller]
    fn check(path: &str, expect: &str) {
        assert_eq!(template(path), expect, "{path}");
    }

    #[test]
    fn identifiers_are_taken_out() {
        check("/api/orders/549", "/api/orders/{id}");
        check("/api/orders/", "/api/orders");
        check("/", "/");
        check("", "/");
        check("//a//b", "/a/b");
        check("/v1/users/9b2fe0c1-1c1d-4f6e-8a55-0123456789ab/cart", "/v1/users/{id}/cart");
        check("/blob/d41d8cd98f00b204e9800998ecf8427e", "/blob/{id}");
        check("/stock/sku-105", "/stock/{id}");
        check("/oauth2/token", "/oauth2/token");
        check("/api/v2/k8s", "/api/v2/k8s");
        check("/mail/someone@example.com", "/mail/{id}");
        check("/s/AbC123dEf456GhI789", "/s/{id}");
        check("/feedface", "/feedface");
        check("/face1234", "/{id}");
        check("/2026-11-21/report", "/{id}/report");
        check("/inventory.Inventory/Reserve", "/inventory.Inventory/Reserve");
        check("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/…");
    }

    #[test]
    fn templates_are_bounded() {
        let long = "/word".repeat(100_000);
        assert!(template(&long).len() <= TEMPLATE_MAX_BYTES + "/…".len());
        assert_eq!(template(&format!("/{}", "a".repeat(500))), "/{id}");
        assert!(named_route(Some("GET"), &"/ä".repeat(1_000)).len() <= TEMPLATE_MAX_BYTES + 4);
    }

    #[test]
    fn paths_of_urls_never_carry_a_query() {
        for (url, path) in [
            ("http://h:80/a/b?token=1#x", Some("/a/b")),
            ("https://h", Some("/")),
            ("https://h?x=1", Some("/")),
            ("/a?next=http://evil/", Some("/a")),
            ("host:443", None),
            ("", Some("/")),
        ] {
            assert_eq!(path_of(url), path, "{url}");
        }
    }

    #[test]
    fn methods_are_words() {
        assert_eq!(&*route_of(Some("get"), "/a/1"), "GET /a/{id}");
        assert_eq!(&*route_of(Some("not a method"), "/a"), "/a");
        assert_eq!(&*named_route(Some("GET"), "/users/:id"), "GET /users/:id");
        assert_eq!(&*named_route(Some("GET"), "checkout"), "checkout");
    }
}
