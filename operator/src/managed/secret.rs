//! Passwords of a managed Redis: made once, kept in a Secret.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::api::DynamicObject;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::{REDIS, name};
use crate::kinds::Kind;
use crate::object::{Object, Owner};
use crate::redis::config::Passwords;

/// Bytes of a password; none can be guessed.
const BYTES: usize = 24;

/// New ones, or `None` where the system has no random numbers.
pub fn generate() -> Option<Passwords> {
    let random = SystemRandom::new();
    let one = || {
        let mut bytes = [0; BYTES];
        random.fill(&mut bytes).ok()?;
        let mut text = String::with_capacity(2 * BYTES);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Some(text)
    };
    Some(Passwords {
        operator: one()?,
        data_plane: one()?,
        replication: one()?,
    })
}

/// The Secret that keeps them.
pub fn secret(owner: &Owner, passwords: &Passwords) -> Object {
    let encoded = |text: &str| STANDARD.encode(text);
    let body = json!({
        "type": "Opaque",
        "data": {
            "operator": encoded(&passwords.operator),
            "dataplane": encoded(&passwords.data_plane),
            "replication": encoded(&passwords.replication),
        },
    });
    Object::new(Kind::Secret, owner, REDIS, &name(owner), body)
}

/// What a Secret keeps; `None` unless it keeps all of them.
pub fn passwords_of(secret: &DynamicObject) -> Option<Passwords> {
    let one = |key: &str| {
        let text = secret
            .data
            .pointer(&format!("/data/{key}"))
            .and_then(Value::as_str)?;
        let text = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
        (!text.is_empty()).then_some(text)
    };
    Some(Passwords {
        operator: one("operator")?,
        data_plane: one("dataplane")?,
        replication: one("replication")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_come_back_from_their_secret() {
        let owner = Owner {
            namespace: "n".to_owned(),
            name: "g".to_owned(),
            uid: "u".to_owned(),
        };
        let made = generate().unwrap();
        assert_ne!(made.operator, made.data_plane);
        let object = secret(&owner, &made);
        assert!(!object.body.to_string().contains(&made.operator));
        let object: DynamicObject = serde_json::from_value(object.body).unwrap();
        let read = passwords_of(&object).unwrap();
        assert_eq!(
            (read.operator, read.replication),
            (made.operator, made.replication)
        );
    }
}
