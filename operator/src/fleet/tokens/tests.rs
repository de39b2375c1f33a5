use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;

/// A cluster's key.
pub(in crate::fleet) struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    pub(in crate::fleet) fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        Self { key, random }
    }

    /// As the API server shows it.
    pub(in crate::fleet) fn jwk(&self) -> Value {
        let point = &self.key.public_key().as_ref()[1..];
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kid": "k", "kty": "EC", "crv": "P-256", "x": text(&point[..32]), "y": text(&point[32..]),
        })
    }

    fn keys(&self) -> Keys {
        Keys {
            issuer: "https://cluster".to_owned(),
            keys: vec![serde_json::from_value(self.jwk()).unwrap()],
        }
    }

    pub(in crate::fleet) fn sign(&self, header: &Value, claims: &Value) -> String {
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
