//! Key material: certificates, private keys, public keys, key sets.
//!
//! Everything is held against the code that will use it, so that a key that passes here can be served with.

use jsonwebtoken::DecodingKey;
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::config::{Secret, TlsMaterial};
use crate::objects::Holder;

use super::{Context, references};

/// Public keys in one PEM file; more than a rotation ever needs.
const PUBLIC_KEYS_MAX: usize = 16;

/// Certificate and key of the Secret that the reference at `field` names.
pub(super) fn certificate(
    name: &str,
    field: &str,
    context: &mut Context<'_>,
) -> Option<TlsMaterial> {
    let data = references::object(Holder::Secret, name, field, context)?;
    let certificate = references::value(data, "Secret", name, "tls.crt", field, context);
    let private_key = references::value(data, "Secret", name, "tls.key", field, context);
    let chain = certificate
        .as_ref()
        .and_then(|pem| certificates(pem, name, field, context));
    let key =
        private_key
            .as_ref()
            .and_then(|pem| match PrivateKeyDer::from_pem_slice(pem.expose()) {
                Ok(key) => Some(key),
                Err(_) => {
                    let what = format!(
                        "tls.key of Secret {}/{name} is not a private key",
                        context.namespace
                    );
                    context.problem(field, what, "put an unencrypted PEM private key there");
                    None
                }
            });
    let (chain, key) = (chain?, key?);
    if let Err(error) = CertifiedKey::from_der(chain, key, &ring::default_provider()) {
        let what = format!(
            "Secret {}/{name} cannot be used: {error}",
            context.namespace
        );
        context.problem(
            field,
            what,
            "put a certificate (tls.crt) and its own private key (tls.key) there",
        );
        return None;
    }
    Some(TlsMaterial {
        certificate: certificate?,
        private_key: private_key?,
    })
}

fn certificates(
    pem: &Secret,
    name: &str,
    field: &str,
    context: &mut Context<'_>,
) -> Option<Vec<CertificateDer<'static>>> {
    match CertificateDer::pem_slice_iter(pem.expose()).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Some(chain),
        _ => {
            let what = format!(
                "tls.crt of Secret {}/{name} is not a certificate",
                context.namespace
            );
            context.problem(
                field,
                what,
                "put the PEM certificate chain there, its own first",
            );
            None
        }
    }
}

/// Every public key of a PEM text, one secret each.
pub(super) fn public_keys(pem: &Secret, field: &str, context: &mut Context<'_>) -> Vec<Secret> {
    let instead = "put PEM public keys there: RSA, EC P-256 or P-384, or Ed25519";
    let blocks = blocks(pem.expose());
    if blocks.is_empty() || blocks.len() > PUBLIC_KEYS_MAX {
        let what = if blocks.is_empty() {
            "the value is not a PEM key"
        } else {
            "the value holds too many keys"
        };
        context.problem(field, what, instead);
        return Vec::new();
    }
    let mut keys = Vec::with_capacity(blocks.len());
    for block in blocks {
        if block.contains("PRIVATE KEY") {
            let instead =
                "put only the public key there; keep the private one with who signs tokens";
            context.problem(field, "the value is a private key", instead);
        } else if is_public_key(block.as_bytes()) {
            keys.push(Secret::new(block.into_bytes()));
        } else {
            context.problem(
                field,
                "the value is not a public key that tokens can be verified with",
                instead,
            );
        }
    }
    keys
}

fn is_public_key(pem: &[u8]) -> bool {
    DecodingKey::from_rsa_pem(pem).is_ok()
        || DecodingKey::from_ec_pem(pem).is_ok()
        || DecodingKey::from_ed_pem(pem).is_ok()
}

/// The PEM blocks of a text, each from its BEGIN to its END line. Text around them does not count.
fn blocks(bytes: &[u8]) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in String::from_utf8_lossy(bytes).lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            open = Some(String::new());
        }
        if let Some(block) = &mut open {
            block.push_str(line);
            block.push('\n');
            if line.starts_with("-----END ") {
                blocks.extend(open.take());
            }
        }
    }
    blocks
}

/// A JSON Web Key Set with at least one key.
pub(super) fn check_key_set(
    document: &Secret,
    field: &str,
    context: &mut Context<'_>,
) -> Option<()> {
    let set: Option<Value> = serde_json::from_slice(document.expose()).ok();
    let keys = set
        .as_ref()
        .and_then(|set| set.get("keys"))
        .and_then(Value::as_array);
    let typed = |keys: &Vec<Value>| {
        keys.iter()
            .all(|key| key.get("kty").is_some_and(Value::is_string))
    };
    match keys {
        Some(keys) if !keys.is_empty() && typed(keys) => Some(()),
        Some(_) => {
            context.problem(
                field,
                "the key set holds no key, or one without kty",
                "put the keys into it",
            );
            None
        }
        None => {
            let instead = "put JSON of the form {\"keys\": [...]} there";
            context.problem(field, "the value is not a JSON Web Key Set", instead);
            None
        }
    }
}
