//! Signs tokens for test clients with the secret of the test manifests.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// The HMAC secret of every manifest in [`crate::manifest`] and of `e2e/profiles`.
pub const SECRET: &str = "secret";

/// Signs any claims with HS256.
pub fn sign(claims: &Value) -> String {
    sign_with(claims, SECRET)
}

pub fn sign_with(claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(
        &Header::default(),
        claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
    .expect("JSON claims can always be signed with HS256")
}

/// A connection token of the default account.
pub fn user(user: &str) -> String {
    sign(&json!({ "sub": user }))
}

/// A connection token of an account.
pub fn of_account(user: &str, account: &str) -> String {
    sign(&json!({ "sub": user, "account": account }))
}

/// A subscription token.
pub fn subscription(user: &str, channel: &str) -> String {
    sign(&json!({ "sub": user, "channel": channel }))
}

/// Unix seconds, `delta_s` from now.
pub fn unix_s(delta_s: i64) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970");
    i64::try_from(now.as_secs()).expect("seconds fit") + delta_s
}
