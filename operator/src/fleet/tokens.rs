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
pub(super) mod tests;
