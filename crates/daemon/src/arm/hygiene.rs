//! What a request must look like before anything of it is believed: method, Host, Origin, path, content type.

use ::arm::Error;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Uri;
use axum::http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_decode_str;

/// Browsers and servers agree on about this length of a URL; ids have some 300 bytes.
const LONGEST_URI_BYTES: usize = 8192;
/// The deepest id with its action has 13 segments; an id inside an id as many again.
const MOST_SEGMENTS: usize = 40;
/// Names that only this machine answers to, without a port: a name of somebody's own domain that leads here is refused,
/// or a web page could reach us by it.
const OWN_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Refuses what no client of ours sends. `own` says whether Host has to be one of the names of this machine: on the unix
/// socket, which no browser reaches, it may be any.
///
/// # Errors
/// By name, and closed to browsers: there is no CORS header on any answer.
pub(crate) fn check_head(method: &Method, uri: &Uri, headers: &HeaderMap, own: bool) -> Result<(), Error> {
    if uri.to_string().len() > LONGEST_URI_BYTES {
        return Err(Error::new(414, "RequestUriTooLong", "the URL is too long"));
    }
    let host = single(headers, &HOST)?;
    if own && !host.is_some_and(is_own) {
        let message = "Host is not a name of this machine: ask 127.0.0.1 or localhost";
        return Err(Error::bad("InvalidHostHeader", message));
    }
    if uri.authority().is_some() {
        return Err(Error::bad(
            "InvalidRequestUri",
            "the URL has to begin with its path",
        ));
    }
    let origin = single(headers, &ORIGIN)?;
    let same_site = |origin: &str| origin.strip_prefix("https://") == host;
    if origin.is_some_and(|origin| !same_site(origin)) {
        let message = "requests of other sites are refused";
        return Err(Error::new(403, "OriginNotAllowed", message));
    }
    if !matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::PATCH | Method::POST | Method::DELETE
    ) {
        let message = format!("there is no method {method:.20}", method = method.as_str());
        return Err(Error::new(405, "MethodNotAllowed", message));
    }
    Ok(())
}

/// The decoded segments of a path: empty ones left out, as clients send `//` and a trailing `/`.
///
/// # Errors
/// Whatever a file system or a proxy would read otherwise than we do.
pub(crate) fn segments(path: &str) -> Result<Vec<String>, Error> {
    let wrong = |message: &str| Error::bad("InvalidRequestUri", message);
    let mut segments = Vec::new();
    for raw in path.split('/').filter(|raw| !raw.is_empty()) {
        let decoded = percent_decode_str(raw).decode_utf8();
        let segment = decoded.map_err(|_| wrong("the path is not UTF-8"))?;
        if segment == "." || segment == ".." {
            return Err(wrong("the path has a segment of dots"));
        }
        let strange = |c: char| c.is_control() || matches!(c, '/' | '\\' | '%' | '?' | '#');
        if segment.contains(strange) {
            return Err(wrong("a segment of the path has a character that no name has"));
        }
        segments.push(segment.into_owned());
        if segments.len() > MOST_SEGMENTS {
            return Err(wrong("the path has too many segments"));
        }
    }
    Ok(segments)
}

/// A body has to be JSON: a form or plain text is what a web page can send without asking first.
///
/// # Errors
/// 415.
pub(crate) fn check_content_type(headers: &HeaderMap, wanted: &str) -> Result<(), Error> {
    let said = single(headers, &CONTENT_TYPE)?.unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let message = format!("Content-Type has to be {wanted}");
    Err(Error::new(415, "UnsupportedMediaType", message))
}

/// What follows `Bearer` in Authorization; None without that header.
///
/// # Errors
/// 401 for another scheme.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(said) = single(headers, &AUTHORIZATION)? else {
        return Ok(None);
    };
    let scheme = said
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case("bearer "));
    match scheme {
        Some(_) => Ok(said.get(7..).map(str::trim)),
        None => Err(unauthenticated(
            "InvalidAuthenticationToken",
            "Authorization has to be `Bearer TOKEN`",
        )),
    }
}

pub(crate) fn unauthenticated(code: &str, message: &str) -> Error {
    Error::new(401, code, message)
}

/// A header that may stand once.
///
/// # Errors
/// It stands twice, or is no text.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Error> {
    let mut all = headers.get_all(name).iter();
    let first = all.next();
    let wrong = |what: &str| Error::bad("InvalidHeader", format!("the header {name} {what}"));
    if all.next().is_some() {
        return Err(wrong("stands twice"));
    }
    first
        .map(|value| value.to_str().map_err(|_| wrong("is no text")))
        .transpose()
}

/// With any port: a tunnel may lead to ours from another.
fn is_own(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    port.bytes().all(|byte| byte.is_ascii_digit())
        && OWN_NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        pairs.collect()
    }

    fn refused(method: &str, uri: &str, pairs: &[(&str, &str)]) -> Option<String> {
        let (method, uri) = (method.parse().unwrap(), uri.parse().unwrap());
        check_head(&method, &uri, &headers(pairs), true)
            .err()
            .map(|error| error.code)
    }

    #[test]
    fn only_a_name_of_this_machine_is_a_host() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8943",
            "LocalHost:1",
            "[::1]:8943",
            "[::1]",
        ] {
            assert_eq!(refused("GET", "/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost:8943x",
            "localhost.",
            "::1",
            "127.0.0.1:80:80",
        ] {
            let code = refused("GET", "/", &[("host", host)]);
            assert_eq!(code.as_deref(), Some("InvalidHostHeader"), "{host}");
        }
        assert_eq!(refused("GET", "/", &[]).as_deref(), Some("InvalidHostHeader"));
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(refused("GET", "/", &twice).as_deref(), Some("InvalidHeader"));
    }

    #[test]
    fn other_origins_and_preflights_are_refused() {
        let from =
            |origin: &str, method: &str| refused(method, "/", &[("host", "localhost:1"), ("origin", origin)]);
        assert_eq!(from("https://localhost:1", "PUT"), None);
        for origin in [
            "null",
            "http://localhost:1",
            "https://localhost",
            "https://evil.example",
        ] {
            assert_eq!(
                from(origin, "GET").as_deref(),
                Some("OriginNotAllowed"),
                "{origin}"
            );
        }
        for method in ["OPTIONS", "TRACE", "CONNECT", "PROPFIND"] {
            let code = refused(method, "/", &[("host", "localhost:1")]);
            assert_eq!(code.as_deref(), Some("MethodNotAllowed"), "{method}");
        }
    }

    #[test]
    fn a_path_means_one_thing_only() {
        assert_eq!(segments("//a//B%20c/").unwrap(), ["a", "B c"]);
        for path in [
            "/a/../b",
            "/%2e%2E/b",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/%ff",
            "/./a",
            "/a%250a",
        ] {
            assert_eq!(segments(path).unwrap_err().code, "InvalidRequestUri", "{path}");
        }
        assert!(segments(&"/a".repeat(MOST_SEGMENTS + 1)).is_err());
    }

    #[test]
    fn a_bearer_is_a_bearer() {
        let of = |value: &str| bearer(&headers(&[("authorization", value)])).map(|it| it.map(str::to_owned));
        assert_eq!(of("bearer  x "), Ok(Some(String::from("x"))));
        for wrong in ["Basic eA==", "Bearer", "", "x"] {
            assert_eq!(of(wrong).unwrap_err().status, 401, "{wrong}");
        }
        assert_eq!(bearer(&HeaderMap::new()), Ok(None));
    }

    proptest! {
        #[test]
        fn segments_never_climb(path in "(/|\\.|%2e|%2f|%5c|a|%|\\\\|é|%C3%A9|%00){0,40}") {
            if let Ok(segments) = segments(&path) {
                for segment in segments {
                    prop_assert!(!segment.is_empty() && segment != "." && segment != "..");
                    prop_assert!(!segment.contains(['/', '\\', '\0']));
                }
            }
        }
    }
}
