//! Who may connect: the `authentication` part of a Gateway.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DATA_KEY, DURATION, OBJECT_NAME};

/// Who may connect.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.jwt) || self.anonymous == 'Allowed'",
    "message": "nobody could connect: set jwt, or anonymous to Allowed"
}]))]
pub struct Authentication {
    /// Connection and subscription tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// Allowed lets clients without a token connect, with an empty user; default Refused.
    #[serde(default)]
    pub anonymous: Anonymous,
    /// How long a client may stay after its token expired: a duration from 0s to 1h, default 25s.
    #[serde(default = "expiry_grace")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('0s') && duration(self) <= duration('1h')",
        "message": "must be from 0s to 1h"
    }]))]
    pub expiry_grace: String,
}

/// Clients without a token.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Anonymous {
    Allowed,
    #[default]
    Refused,
}

/// JSON Web Tokens. A token is accepted when any of the keys signed it.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.hmac) && size(self.hmac) > 0) || (has(self.publicKeys) && size(self.publicKeys) > 0) || has(self.jwks)",
    "message": "no token could be verified: set hmac, publicKeys or jwks"
}]))]
pub struct Jwt {
    /// Shared secrets for HS256, HS384 and HS512, at most 8; several while a secret is being rotated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub hmac: Vec<Hmac>,
    /// PEM public keys for RS, PS, ES and EdDSA tokens, at most 8 sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub public_keys: Vec<KeySource>,
    /// JSON Web Key Set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Jwks>,
    /// Required value of the claim `aud`, at most 512 characters; unset: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub audience: Option<String>,
    /// Required value of the claim `iss`, at most 512 characters; unset: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub issuer: Option<String>,
    /// Claim that names the account of the client, at most 128 characters. When set, tokens without it are
    /// refused and clients reach only clients of their account; unset: all clients share one account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub account_claim: Option<String>,
}

/// A shared secret.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hmac {
    /// Where the secret is.
    pub secret_ref: SecretKey,
}

/// One key of a Secret or ConfigMap.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct SecretKey {
    /// Name of the object, in the namespace of the gateway.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
    /// Key in the data of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: String,
}

/// Where public key material is: exactly one of the two.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.secretRef) != has(self.configMapRef)",
    "message": "set exactly one of secretRef and configMapRef"
}]))]
pub struct KeySource {
    /// Key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
    /// Key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<SecretKey>,
}

/// Where the key set is: exactly one of `url`, `secretRef` and `configMapRef`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.url), has(self.secretRef), has(self.configMapRef)].filter(x, x).size() == 1",
    "message": "set exactly one of url, secretRef and configMapRef"
}]))]
pub struct Jwks {
    /// `http://`, `https://` or `file:///` address of the key set, at most 2048 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
    /// Key of a Secret that holds the key set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
    /// Key of a ConfigMap that holds the key set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<SecretKey>,
    /// How often the key set is read again from `url`: a duration from 10s to 24h, default 1h.
    #[serde(default = "refresh_interval")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('10s') && duration(self) <= duration('24h')",
        "message": "must be from 10s to 24h"
    }]))]
    pub refresh_interval: String,
}

fn expiry_grace() -> String {
    "25s".to_owned()
}

fn refresh_interval() -> String {
    "1h".to_owned()
}
