//! The page, as it was built from `page/` and put into this program; without it there is a word about that.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Response, StatusCode};

use super::api::Answer;

include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// Where the page begins.
const INDEX: &str = "index.html";
/// Names in it have a digest of what they hold.
const HASHED: &str = "assets/";
const MISSING: &str =
    "This build has no page: it was made without `just page`. The API is at /api/v1.\n";

/// What keeps others from showing the page in a frame, and what others wrote from running in it.
const GUARDS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// A file of the page.
pub struct Page {
    name: &'static str,
    body: &'static [u8],
}

/// `None`: no file has this path.
pub fn find(path: &str) -> Option<Page> {
    let wanted = match path.strip_prefix('/')? {
        "" => INDEX,
        name => name,
    };
    let found = FILES.iter().find(|(name, _)| *name == wanted);
    match found {
        Some((name, body)) => Some(Page { name, body }),
        None if wanted == INDEX => Some(Page {
            name: "missing.txt",
            body: MISSING.as_bytes(),
        }),
        None => None,
    }
}

impl Page {
    pub fn answer(&self, method: &Method) -> Answer {
        let mut answer = Response::new(Bytes::from_static(self.body));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind(self.name)));
        let kept = if self.name.starts_with(HASHED) {
            "max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
        for (name, value) in GUARDS {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            *answer.body_mut() = Bytes::new();
        }
        answer
    }
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_index_and_it_is_guarded() {
        let page = find("/").unwrap();
        let answer = page.answer(&Method::GET);
        assert!(!answer.body().is_empty());
        for (name, _) in GUARDS {
            assert!(answer.headers().contains_key(name), "{name}");
        }
        assert_eq!(
            page.answer(&Method::POST).status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert!(find("/nothing").is_none() && find("index.html").is_none());
        assert!(find("/../Cargo.toml").is_none());
    }
}
