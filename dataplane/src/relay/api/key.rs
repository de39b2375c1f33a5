//! The server API's key.
//!
//! Compared in constant time, so that an answer's delay tells nothing about the key but its length.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sluice_crds::config::Secret;
use subtle::ConstantTimeEq;

const HEADER: &str = "x-api-key";
const SCHEME: &str = "apikey";
const PARAMETER: &str = "api_key";

/// Whether the request carries the key: in `X-API-Key`, else as `Authorization: apikey …`, else as `?api_key=…`.
/// Without a configured key the API is closed.
pub(super) fn is_right(
    configured: Option<&Secret>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> bool {
    let Some(key) = configured.map(Secret::expose).filter(|key| !key.is_empty()) else {
        return false;
    };
    let matches = |given: &[u8]| bool::from(key.ct_eq(given));
    let header = match headers
        .get(HEADER)
        .map(|value| value.as_bytes())
        .filter(|given| !given.is_empty())
    {
        Some(given) => matches(given),
        None => headers
            .get(AUTHORIZATION)
            .and_then(|value| authorization(value.as_bytes()))
            .is_some_and(matches),
    };
    header
        || query
            .is_some_and(|query| parameter(query).is_some_and(|given| matches(given.as_bytes())))
}

fn authorization(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.trim_ascii().split_at_checked(SCHEME.len())?;
    let separated = key.first().is_some_and(u8::is_ascii_whitespace);
    (scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && separated).then(|| key.trim_ascii_start())
}

fn parameter(query: &str) -> Option<std::borrow::Cow<'_, str>> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == PARAMETER)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(
        key: Option<&str>,
        header: Option<(&'static str, &'static str)>,
        query: Option<&str>,
    ) -> bool {
        let key = key.map(|key| Secret::new(key.as_bytes()));
        let headers = header.map(|(name, value)| {
            (
                name.parse().expect("a header name"),
                HeaderValue::from_static(value),
            )
        });
        is_right(key.as_ref(), &headers.into_iter().collect(), query)
    }

    #[test]
    fn takes_the_key_from_each_place() {
        assert!(check(Some("k1"), Some(("x-api-key", "k1")), None));
        assert!(check(
            Some("k1"),
            Some(("authorization", "apikey k1")),
            None
        ));
        assert!(check(
            Some("k1"),
            Some(("authorization", "ApiKey  k1")),
            None
        ));
        assert!(check(Some("k1"), None, Some("api_key=k1")));
        assert!(check(Some("a+b %"), None, Some("x=1&api_key=a%2Bb+%25")));
    }

    #[test]
    fn refuses_everything_else() {
        assert!(!check(Some("k1"), None, None));
        assert!(!check(Some("k1"), Some(("x-api-key", "k2")), None));
        assert!(!check(Some("k1"), Some(("x-api-key", "k")), None));
        assert!(!check(Some("k1"), Some(("x-api-key", "k11")), None));
        assert!(!check(Some("k1"), Some(("authorization", "k1")), None));
        assert!(!check(
            Some("k1"),
            Some(("authorization", "apikeyk1")),
            None
        ));
        assert!(!check(
            Some("k1"),
            Some(("authorization", "Bearer k1")),
            None
        ));
        assert!(!check(Some("k1"), None, Some("api_key=")));
        assert!(!check(Some("k1"), None, Some("api_keys=k1")));
    }

    #[test]
    fn without_a_key_the_api_is_closed() {
        assert!(!check(None, Some(("x-api-key", "")), Some("api_key=")));
        assert!(!check(Some(""), Some(("x-api-key", "")), Some("api_key=")));
        assert!(!check(None, Some(("x-api-key", "k1")), None));
    }
}
