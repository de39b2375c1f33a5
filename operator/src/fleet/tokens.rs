//! Who a data plane is, by the token that its kubelet gave it: checked against the cluster's public keys, and against the pods there are.
//!
//! That says what a TokenReview would, needs no right beyond what every service account has, and asks the API server nothing when
//! all data planes come at once, as they do when another operator leads.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

/// Whom the tokens are for.
pub const AUDIENCE: &str = "sluice-manager";
/// Clocks of the API server and of this machine differ.
const LEEWAY_S: u64 = 60;
/// A projected token has about 1 KB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The cluster's keys, and who signs with them.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    pub(super) issuer: String,
    pub(super) keys: Vec<Key>,
}

/// A public key, as in RFC 7517.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Key {
    #[serde(default)]
    pub(super) kid: String,
    kty: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

/// The pod that a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) pod_uid: String,
    pub(super) service_account: String,
}

/// Why a token does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the token is none")]
    Malformed,
    /// Keys may have changed since they were read.
    #[error("no key of the cluster has signed the token")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is not for {AUDIENCE}")]
    Audience,
    #[error("the token is of another cluster")]
    Issuer,
    #[error("the token has expired, or does not count yet")]
    Time,
    #[error("the token is bound to no pod")]
    NoPod,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    aud: Audience,
    #[serde(default)]
    exp: u64,
    #[serde(default)]
    nbf: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Bound>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

#[derive(Deserialize)]
struct Bound {
    namespace: String,
    pod: Option<Named>,
    serviceaccount: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

/// `now`: seconds since 1970.
pub(super) fn verify(token: &str, keys: &Keys, now: u64) -> Result<Bearer, Refused> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refused::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Refused::Malformed)?;
    let header: Header = part(header)?;
    let signature = decode(signature)?;
    let fits = |key: &&Key| key.kid == header.kid && key.algorithm() == Some(header.alg.as_str());
    let key = keys.keys.iter().find(fits).ok_or(Refused::UnknownKey)?;
    key.verify(signed.as_bytes(), &signature)?;
    let claims: Claims = part(claims)?;
    if claims.iss != keys.issuer {
        return Err(Refused::Issuer);
    }
    let is_for_us = match &claims.aud {
        Audience::One(one) => one == AUDIENCE,
        Audience::Many(many) => many.iter().any(|one| one == AUDIENCE),
    };
    if !is_for_us {
        return Err(Refused::Audience);
    }
    if now >= claims.exp.saturating_add(LEEWAY_S) || claims.nbf > now + LEEWAY_S {
        return Err(Refused::Time);
    }
    let bound = claims.kubernetes.ok_or(Refused::NoPod)?;
    let pod = bound.pod.ok_or(Refused::NoPod)?;
    Ok(Bearer {
        namespace: bound.namespace,
        pod: pod.name,
        pod_uid: pod.uid,
        service_account: bound.serviceaccount.name,
    })
}

impl Key {
    fn algorithm(&self) -> Option<&'static str> {
        match (self.kty.as_str(), self.crv.as_str()) {
            ("RSA", _) => Some("RS256"),
            ("EC", "P-256") => Some("ES256"),
            _ => None,
        }
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), Refused> {
        let verified = if self.kty == "RSA" {
            let (n, e) = (decode(&self.n)?, decode(&self.e)?);
            let key = RsaPublicKeyComponents { n, e };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
        } else {
            let point = [vec![4], decode(&self.x)?, decode(&self.y)?].concat();
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
            key.verify(signed, signature)
        };
        verified.map_err(|_| Refused::Signature)
    }
}

fn part<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, Refused> {
    serde_json::from_slice(&decode(text)?).map_err(|_| Refused::Malformed)
}

fn decode(text: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Malformed)
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    struct Signer {
        key: EcdsaKeyPair,
        random: SystemRandom,
    }

    impl Signer {
        fn new() -> Self {
            let random = SystemRandom::new();
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
            Self { key, random }
        }

        fn keys(&self) -> Keys {
            let point = &self.key.public_key().as_ref()[1..];
            let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let key = json!({
                "kid": "k", "kty": "EC", "crv": "P-256", "x": text(&point[..32]), "y": text(&point[32..]),
            });
            Keys {
                issuer: "https://cluster".to_owned(),
                keys: vec![serde_json::from_value(key).unwrap()],
            }
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = self.key.sign(&self.random, signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
        }
    }

    fn header() -> Value {
        json!({"alg": "ES256", "kid": "k"})
    }

    fn claims() -> Value {
        json!({
            "iss": "https://cluster", "aud": ["sluice-manager"], "exp": NOW + 600, "nbf": NOW,
            "kubernetes.io": {
                "namespace": "shop",
                "pod": {"name": "front-1", "uid": "u"},
                "serviceaccount": {"name": "front", "uid": "v"},
            },
        })
    }

    #[test]
    fn a_token_names_its_pod() {
        let signer = Signer::new();
        let token = signer.sign(&header(), &claims());
        let bearer = verify(&token, &signer.keys(), NOW).unwrap();
        let wanted = Bearer {
            namespace: "shop".to_owned(),
            pod: "front-1".to_owned(),
            pod_uid: "u".to_owned(),
            service_account: "front".to_owned(),
        };
        assert_eq!(bearer, wanted);
    }

    #[test]
    fn what_is_wrong_with_a_token() {
        let signer = Signer::new();
        let keys = signer.keys();
        let with = |pointer: &str, value: Value| {
            let mut claims = claims();
            *claims.pointer_mut(pointer).unwrap() = value;
            signer.sign(&header(), &claims)
        };
        let valid = signer.sign(&header(), &claims());
        let cases = [
            (String::new(), Refused::Malformed),
            ("a.b.c".to_owned(), Refused::Malformed),
            ("x".repeat(20_000), Refused::Malformed),
            (Signer::new().sign(&header(), &claims()), Refused::Signature),
            (
                signer.sign(&json!({"alg": "ES256", "kid": "other"}), &claims()),
                Refused::UnknownKey,
            ),
            (
                signer.sign(&json!({"alg": "none", "kid": "k"}), &claims()),
                Refused::UnknownKey,
            ),
            (
                signer.sign(&json!({"alg": "RS256", "kid": "k"}), &claims()),
                Refused::UnknownKey,
            ),
            (with("/iss", json!("https://other")), Refused::Issuer),
            (with("/aud", json!("api")), Refused::Audience),
            (with("/aud", json!(["api"])), Refused::Audience),
            (with("/exp", json!(NOW - 61)), Refused::Time),
            (with("/nbf", json!(NOW + 61)), Refused::Time),
            (with("/kubernetes.io/pod", Value::Null), Refused::NoPod),
            (with("/kubernetes.io", Value::Null), Refused::NoPod),
        ];
        for (token, wanted) in cases {
            assert_eq!(verify(&token, &keys, NOW), Err(wanted), "{token}");
        }
        let tampered = valid.replacen('.', ".e", 1);
        assert!(verify(&tampered, &keys, NOW).is_err());
    }
}
