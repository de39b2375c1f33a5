//! What is not shown of requests to whoever looks at them: the parts that the gateway's `redact` names. Pure.
//!
//! Where it is not clear what a body holds it is not shown at all.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use sluice_crds::config::{Dialect, Ingest, RequestPart};

use super::json;
use crate::ingest::accept::parameters::{decode, pairs};
use crate::ingest::entry::StoredRequest;
use crate::store::queue::Found;

const HIDDEN: &str = "(redacted)";
/// By what Countly's requests are ordered.
const COUNTLY_KEY: &str = "device_id";
/// Of what a request tells about its order.
const KEYS: [&str; 4] = ["key", "keyBase64", "barrier", "barrierBase64"];

pub(super) struct Redaction {
    /// Lower case.
    headers: Vec<String>,
    parameters: Vec<String>,
    hides_key: bool,
}

impl Redaction {
    pub(super) fn new(ingest: Option<&Ingest>) -> Self {
        let parts = || ingest.into_iter().flat_map(|ingest| &ingest.redact);
        let (mut headers, mut parameters) = (Vec::new(), Vec::new());
        for part in parts() {
            match part {
                RequestPart::Header(name) => headers.push(name.clone()),
                RequestPart::Parameter(name) => parameters.push(name.clone()),
            }
        }
        let hides_key = ingest.is_some_and(|ingest| match &ingest.accept.dialect {
            Dialect::Countly => parameters.iter().any(|name| name == COUNTLY_KEY),
            Dialect::Generic(generic) => {
                let key = generic.ordering_key.as_ref();
                key.is_some_and(|key| ingest.redact.contains(key))
            }
        });
        Self {
            headers,
            parameters,
            hides_key,
        }
    }

    pub(super) fn found(&self, found: &Found) -> Value {
        let mut shown = json::found(found);
        if self.hides_key {
            for name in KEYS {
                if let Some(value) = shown.get_mut(name) {
                    *value = HIDDEN.into();
                }
            }
        }
        shown
    }

    pub(super) fn request(&self, request: &mut StoredRequest) {
        for (name, value) in &mut request.headers {
            if self.headers.iter().any(|hidden| hidden == name.as_str()) {
                *value = HeaderValue::from_static(HIDDEN);
            }
        }
        if self.parameters.is_empty() {
            return;
        }
        if let Some(at) = request.target.iter().position(|byte| *byte == b'?') {
            let query = self.form(&request.target[at + 1..]);
            request.target = [&request.target[..=at], &query].concat().into();
        }
        request.body = self.body(request);
    }

    fn body(&self, request: &StoredRequest) -> Bytes {
        let body = &request.body;
        if body.is_empty() {
            return Bytes::new();
        }
        if let Some(redacted) = self.document(body) {
            return redacted.into();
        }
        let kind = request
            .headers
            .iter()
            .find(|(name, _)| *name == CONTENT_TYPE);
        let kind = kind.map_or(&b""[..], |(_, kind)| kind.as_bytes());
        if kind.is_empty() || kind.starts_with(b"application/x-www-form-urlencoded") {
            return self.form(body).into();
        }
        Bytes::from_static(HIDDEN.as_bytes())
    }

    fn hides(&self, name: &[u8]) -> bool {
        let mut parameters = self.parameters.iter();
        parameters.any(|hidden| hidden.as_bytes() == name)
    }

    /// The same query or form; values that are JSON are looked through.
    fn form(&self, text: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(text.len());
        for (name, value) in pairs(text) {
            if !shown.is_empty() {
                shown.push(b'&');
            }
            shown.extend_from_slice(name);
            shown.push(b'=');
            let value = if self.hides(&decode(name)) {
                Cow::Borrowed(HIDDEN.as_bytes())
            } else {
                match self.document(&decode(value)) {
                    Some(redacted) => {
                        let escaped = form_urlencoded::byte_serialize(&redacted);
                        Cow::Owned(escaped.collect::<String>().into_bytes())
                    }
                    None => Cow::Borrowed(value),
                }
            };
            shown.extend_from_slice(&value);
        }
        shown
    }

    /// `None`: it is no JSON that could have fields.
    fn document(&self, text: &[u8]) -> Option<Vec<u8>> {
        let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
        if !matches!(first, Some(b'{' | b'[')) {
            return None;
        }
        let mut document: Value = match serde_json::from_slice(text) {
            Ok(document) => document,
            // It begins like one: what it holds is not known.
            Err(_) => return Some(HIDDEN.as_bytes().to_vec()),
        };
        if !self.fields(&mut document) {
            return Some(text.to_vec());
        }
        serde_json::to_vec(&document).ok()
    }

    /// Whether there were any.
    fn fields(&self, value: &mut Value) -> bool {
        match value {
            Value::Object(map) => {
                let mut any = false;
                for (name, value) in map {
                    if self.hides(name.as_bytes()) {
                        *value = HIDDEN.into();
                        any = true;
                    } else {
                        any |= self.fields(value);
                    }
                }
                any
            }
            Value::Array(list) => {
                let mut any = false;
                for value in list {
                    any |= self.fields(value);
                }
                any
            }
            Value::String(text) => match self.document(text.as_bytes()) {
                Some(redacted) if redacted != text.as_bytes() => {
                    *text = String::from_utf8_lossy(&redacted).into_owned();
                    true
                }
                Some(_) | None => false,
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};

    use super::*;

    fn redaction() -> Redaction {
        Redaction {
            headers: vec!["authorization".to_owned()],
            parameters: vec!["email".to_owned(), "a b".to_owned()],
            hides_key: false,
        }
    }

    fn shown(target: &str, kind: &str, body: &str) -> (String, String) {
        let header = |name: &'static str, value: &str| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        let mut headers = vec![header("authorization", "secret")];
        if !kind.is_empty() {
            headers.push(header("content-type", kind));
        }
        let mut request = StoredRequest {
            method: Method::POST,
            target: Bytes::copy_from_slice(target.as_bytes()),
            headers,
            client: [192, 0, 2, 1].into(),
            secure: false,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        redaction().request(&mut request);
        assert_eq!(request.headers[0].1, HIDDEN);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&request.target), text(&request.body))
    }

    const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

    #[test]
    fn parameters_are_hidden_wherever_they_are() {
        let both = [
            ("/i?x=1&email=e@x&y", "/i?x=1&email=(redacted)&y="),
            ("/i?%65mail=e", "/i?%65mail=(redacted)"),
            ("/i?a+b=secret&c=d", "/i?a+b=(redacted)&c=d"),
            ("/i?", "/i?"),
            ("/email=secret", "/email=secret"),
        ];
        for (target, wanted) in both {
            assert_eq!(shown(target, "", "").0, wanted);
        }
        for (kind, body, wanted) in [
            ("", "email=e&x=%2B", "email=(redacted)&x=%2B"),
            (FORM, "x=1&email=e", "x=1&email=(redacted)"),
            (
                FORM,
                "events=%5B%7B%22email%22%3A%22e%22%7D%5D&x=1",
                "events=%5B%7B%22email%22%3A%22%28redacted%29%22%7D%5D&x=1",
            ),
            (
                "application/json",
                r#" {"a": [{"email": {"x": 1}}], "b": 2}"#,
                r#"{"a":[{"email":"(redacted)"}],"b":2}"#,
            ),
            // Nothing is in it: as it came.
            ("application/json", r#"{"a" : 1}"#, r#"{"a" : 1}"#),
            // JSON in JSON.
            (
                "",
                r#"[{"q": "{\"email\": \"e\"}"}]"#,
                r#"[{"q":"{\"email\":\"(redacted)\"}"}]"#,
            ),
            // What it holds is not known.
            ("application/json", r#"{"email": "e""#, HIDDEN),
            ("multipart/form-data; boundary=x", "--x\r\n", HIDDEN),
            ("text/plain", "email=e", HIDDEN),
        ] {
            assert_eq!(shown("/", kind, body).1, wanted, "{kind} {body}");
        }
    }

    #[test]
    fn without_parameters_bodies_are_as_they_came() {
        let redaction = Redaction::new(None);
        let mut request = StoredRequest {
            method: Method::POST,
            target: Bytes::from_static(b"/i?email=e"),
            headers: Vec::new(),
            client: [192, 0, 2, 1].into(),
            secure: false,
            body: Bytes::from_static(b"\xff{"),
        };
        let before = request.clone();
        redaction.request(&mut request);
        assert!(request == before);
    }
}
