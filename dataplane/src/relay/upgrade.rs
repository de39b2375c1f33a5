//! The server's side of the WebSocket opening handshake (RFC 6455 section 4.2). Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha1::{Digest, Sha1};

use super::protocol::Encoding;

const ACCEPT_SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const SUBPROTOCOL_JSON: &str = "centrifuge-json";
const SUBPROTOCOL_PROTOBUF: &str = "centrifuge-protobuf";

#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    pub encoding: Encoding,
    pub accept: HeaderValue,
    /// To be confirmed in the answer.
    pub subprotocol: Option<&'static str>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct UpgradeError {
    pub status: StatusCode,
    pub text: &'static str,
}

const fn bad(text: &'static str) -> UpgradeError {
    UpgradeError {
        status: StatusCode::BAD_REQUEST,
        text,
    }
}

pub fn check(headers: &HeaderMap, query: Option<&str>) -> Result<Upgrade, UpgradeError> {
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(bad(
            "expected the headers Connection: Upgrade and Upgrade: websocket",
        ));
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(UpgradeError {
            status: StatusCode::UPGRADE_REQUIRED,
            text: "expected Sec-WebSocket-Version: 13",
        });
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .ok_or(bad("expected the header Sec-WebSocket-Key"))?;
    if STANDARD
        .decode(key)
        .ok()
        .is_none_or(|nonce| nonce.len() != 16)
    {
        return Err(bad("expected 16 base64-encoded bytes in Sec-WebSocket-Key"));
    }
    let subprotocol = [SUBPROTOCOL_PROTOBUF, SUBPROTOCOL_JSON]
        .into_iter()
        .find(|name| has_token(headers, &SEC_WEBSOCKET_PROTOCOL, name));
    let protobuf = subprotocol == Some(SUBPROTOCOL_PROTOBUF)
        || query.is_some_and(|query| {
            query
                .split('&')
                .any(|pair| matches!(pair, "format=protobuf" | "cf_protocol=protobuf"))
        });
    Ok(Upgrade {
        encoding: if protobuf {
            Encoding::Protobuf
        } else {
            Encoding::Json
        },
        accept: accept(key.as_bytes()),
        subprotocol,
    })
}

fn accept(key: &[u8]) -> HeaderValue {
    let digest = Sha1::new()
        .chain_update(key)
        .chain_update(ACCEPT_SALT)
        .finalize();
    HeaderValue::from_str(&STANDARD.encode(digest)).expect("base64 is a valid header value")
}

/// Whether a comma-separated header holds the token, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_answer_of_the_rfc_example() {
        let upgrade = check(&headers(&GOOD), Some("cf_protocol_version=v2")).unwrap();
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            (upgrade.encoding, upgrade.subprotocol),
            (Encoding::Json, None)
        );
    }

    #[test]
    fn the_encoding_is_chosen_by_subprotocol_or_query() {
        let mut with = headers(&GOOD);
        assert_eq!(
            check(&with, Some("a=b&format=protobuf")).unwrap().encoding,
            Encoding::Protobuf
        );
        assert_eq!(
            check(&with, Some("cf_protocol=protobuf")).unwrap().encoding,
            Encoding::Protobuf
        );
        with.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("x, centrifuge-protobuf"),
        );
        let upgrade = check(&with, None).unwrap();
        assert_eq!(
            (upgrade.encoding, upgrade.subprotocol),
            (Encoding::Protobuf, Some(SUBPROTOCOL_PROTOBUF))
        );
        with.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("centrifuge-json"),
        );
        assert_eq!(
            check(&with, None).unwrap().subprotocol,
            Some(SUBPROTOCOL_JSON)
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (index, named) in ["Connection", "Upgrade", "Version: 13", "Sec-WebSocket-Key"]
            .into_iter()
            .enumerate()
        {
            let mut pairs = GOOD.to_vec();
            pairs.remove(index);
            let error = check(&headers(&pairs), None).unwrap_err();
            assert!(error.text.contains(named), "{named}: {}", error.text);
        }
        let mut short = GOOD;
        short[3].1 = "c2hvcnQ=";
        assert!(check(&headers(&short), None).is_err());
    }
}
