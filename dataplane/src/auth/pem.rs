//! Public keys in PEM: `PUBLIC KEY` (SubjectPublicKeyInfo, RFC 5280) and `RSA PUBLIC KEY` (PKCS #1).
//!
//! Reads just the DER that these two need; every length is checked against what is there. Private keys and
//! certificates are refused by name, because a private key in this place is a mistake worth telling.

use super::KeyError;
use super::keys::PublicKey;

const TAG_INTEGER: u8 = 0x02;
const TAG_BIT_STRING: u8 = 0x03;
const TAG_OBJECT_ID: u8 = 0x06;
const TAG_SEQUENCE: u8 = 0x30;

/// Contents of the object identifiers, without tag and length.
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// All keys of one PEM text; at least one.
pub(super) fn public_keys(text: &[u8]) -> Result<Vec<PublicKey>, KeyError> {
    let sections = pem::parse_many(text).map_err(|error| KeyError::NotPem(error.to_string()))?;
    if sections.is_empty() {
        return Err(KeyError::Empty);
    }
    let key = |section: &pem::Pem| match section.tag() {
        "PUBLIC KEY" => subject_public_key_info(section.contents()),
        "RSA PUBLIC KEY" => pkcs1(section.contents()),
        other => Err(KeyError::NotAPublicKey(other.to_owned())),
    };
    sections.iter().map(key).collect()
}

fn subject_public_key_info(der: &[u8]) -> Result<PublicKey, KeyError> {
    let parts = || {
        let mut info = Reader(only(der, TAG_SEQUENCE)?);
        let mut algorithm = Reader(info.take(TAG_SEQUENCE)?);
        let kind = algorithm.take(TAG_OBJECT_ID)?;
        // The first byte counts the unused bits of the last one: none in any key.
        let (0, key) = info
            .take(TAG_BIT_STRING)?
            .split_first()
            .map(|(unused, key)| (*unused, key))?
        else {
            return None;
        };
        info.0.is_empty().then_some((kind, algorithm, key))
    };
    let (kind, mut algorithm, key) = parts().ok_or(KeyError::Malformed("public"))?;
    match kind {
        OID_RSA => pkcs1(key),
        OID_ED25519 => PublicKey::ed25519(key),
        OID_EC => match algorithm.take(TAG_OBJECT_ID) {
            Some(OID_P256) => PublicKey::p256(key),
            Some(OID_P384) => PublicKey::p384(key),
            Some(OID_P521) => PublicKey::p521(key),
            Some(_) | None => Err(KeyError::Unsupported(
                "elliptic curve other than P-256, P-384, P-521".to_owned(),
            )),
        },
        _ => Err(KeyError::Unsupported(
            "other than RSA, EC and Ed25519".to_owned(),
        )),
    }
}

fn pkcs1(der: &[u8]) -> Result<PublicKey, KeyError> {
    let parts = || {
        let mut key = Reader(only(der, TAG_SEQUENCE)?);
        let (modulus, exponent) = (key.take(TAG_INTEGER)?, key.take(TAG_INTEGER)?);
        key.0.is_empty().then_some((modulus, exponent))
    };
    let (modulus, exponent) = parts().ok_or(KeyError::Malformed("RSA"))?;
    PublicKey::rsa(modulus, exponent)
}

/// The contents of the one value that `der` consists of.
fn only(der: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader(der);
    let contents = reader.take(tag)?;
    reader.0.is_empty().then_some(contents)
}

/// Walks over tag-length-value triples; holds what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let [found, first, rest @ ..] = self.0 else {
            return None;
        };
        if *found != tag {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81 => (usize::from(*rest.first()?), &rest[1..]),
            0x82 => (
                usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])),
                &rest[2..],
            ),
            // No key is longer than 64 KiB.
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(contents)
    }
}
