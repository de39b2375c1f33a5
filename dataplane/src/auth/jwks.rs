//! JSON Web Key Sets (RFC 7517): a document to keys, and which of them a token may have been signed with.
//!
//! Pure. A set is read leniently, since other applications share it: keys of an unknown type, for encryption, or
//! broken are left out, one by one. Shared secrets (`oct`) are left out as well: a set is made to be published.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::keys::PublicKey;
use super::token::{Algorithm, Token};

/// Keys of one set. Bounds the work for a token that names none of them; sets in use have fewer than ten.
const KEYS_MAX: usize = 64;

/// The keys of a set that can verify tokens; never empty.
pub(super) struct KeySet {
    keys: Vec<SetKey>,
}

struct SetKey {
    id: Option<String>,
    /// `Some` when the set binds the key to one algorithm.
    algorithm: Option<Algorithm>,
    key: PublicKey,
}

/// What a set makes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Verified,
    /// The key that the token names did not sign it.
    Refused,
    /// A newer set might have the key: the token names one that is not here, or names none and no key fits.
    UnknownKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<Value>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// The error is for logs and says nothing of the keys themselves.
    pub(super) fn parse(document: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(document).map_err(|error| format!("not a key set: {error}"))?;
        if document.keys.len() > KEYS_MAX {
            return Err(format!("more than {KEYS_MAX} keys"));
        }
        let keys: Vec<SetKey> = document.keys.into_iter().filter_map(set_key).collect();
        if keys.is_empty() {
            return Err("no key for RS, PS, ES or EdDSA signatures".to_owned());
        }
        Ok(Self { keys })
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn verify(&self, token: &Token<'_>) -> Verdict {
        let named = token.key_id.as_deref();
        let may_have_signed = |candidate: &&SetKey| {
            let id_fits = match (named, candidate.id.as_deref()) {
                (Some(named), Some(id)) => named == id,
                (Some(_) | None, None) | (None, Some(_)) => true,
            };
            id_fits
                && candidate
                    .algorithm
                    .is_none_or(|only| only == token.algorithm)
        };
        if self
            .keys
            .iter()
            .filter(may_have_signed)
            .any(|candidate| candidate.key.verifies(token))
        {
            return Verdict::Verified;
        }
        let is_here = named.is_some()
            && self
                .keys
                .iter()
                .any(|candidate| candidate.id.as_deref() == named);
        if is_here {
            Verdict::Refused
        } else {
            Verdict::UnknownKey
        }
    }
}

fn set_key(value: Value) -> Option<SetKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
        && jwk
            .key_ops
            .as_ref()
            .is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    if !for_signatures {
        return None;
    }
    let key = public_key(&jwk)?;
    // A key bound to an algorithm that is unknown here, or that its type cannot have, verifies nothing.
    let algorithm: Option<Algorithm> = jwk.alg.map(serde_json::from_value).transpose().ok()?;
    if !algorithm.is_none_or(|only| key.fits(only)) {
        return None;
    }
    Some(SetKey {
        id: jwk.kid,
        algorithm,
        key,
    })
}

fn public_key(jwk: &Jwk) -> Option<PublicKey> {
    let bytes = |text: &Option<String>| {
        URL_SAFE_NO_PAD
            .decode(text.as_deref()?.trim_end_matches('='))
            .ok()
    };
    match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => PublicKey::rsa(&bytes(&jwk.n)?, &bytes(&jwk.e)?).ok(),
        ("EC", Some(curve)) => {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            let point =
                |length| Some([&[4][..], &padded(&x, length)?, &padded(&y, length)?].concat());
            match curve {
                "P-256" => PublicKey::p256(&point(32)?).ok(),
                "P-384" => PublicKey::p384(&point(48)?).ok(),
                "P-521" => PublicKey::p521(&point(66)?).ok(),
                _ => None,
            }
        }
        ("OKP", Some("Ed25519")) => PublicKey::ed25519(&bytes(&jwk.x)?).ok(),
        _ => None,
    }
}

/// Some issuers leave out the leading zeros of a coordinate.
fn padded(coordinate: &[u8], length: usize) -> Option<Vec<u8>> {
    let missing = length.checked_sub(coordinate.len())?;
    Some([&vec![0; missing], coordinate].concat())
}
