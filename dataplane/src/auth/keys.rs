//! Keys and the check of one signature.
//!
//! A key knows its own type and verifies only the algorithms of that type, so a token cannot choose how a key is
//! used (an RSA key is never taken for a shared secret). Pure: no clock, no I/O. `pem` and `jwks` make the keys.
//!
//! The primitives are those of `ring`, which TLS links already; P-521 is missing there and comes from `p521`.

use p521::ecdsa::signature::Verifier as _;
use ring::{hmac, signature};

use super::KeyError;
use super::token::{Algorithm, Token};

/// Sizes of RSA keys that `ring` verifies; RFC 7518 asks for 2048 at least.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Longest public exponent that `ring` accepts; all keys in use have 65537 (3 bytes).
const RSA_EXPONENT_BYTES_MAX: usize = 4;

/// A shared secret.
pub(super) struct SharedSecret {
    sha256: hmac::Key,
    sha384: hmac::Key,
    sha512: hmac::Key,
}

impl SharedSecret {
    pub(super) fn new(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self {
            sha256: hmac::Key::new(hmac::HMAC_SHA256, secret),
            sha384: hmac::Key::new(hmac::HMAC_SHA384, secret),
            sha512: hmac::Key::new(hmac::HMAC_SHA512, secret),
        })
    }

    fn verifies(&self, token: &Token<'_>) -> bool {
        let key = match token.algorithm {
            Algorithm::Hs256 => &self.sha256,
            Algorithm::Hs384 => &self.sha384,
            Algorithm::Hs512 => &self.sha512,
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512
            | Algorithm::Es256
            | Algorithm::Es384
            | Algorithm::Es512
            | Algorithm::EdDsa => return false,
        };
        hmac::verify(key, token.message, &token.signature).is_ok()
    }
}

/// The public half of a key pair.
pub(super) enum PublicKey {
    /// Big-endian without leading zeros.
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed point.
    P256(Vec<u8>),
    /// Uncompressed point.
    P384(Vec<u8>),
    P521(Box<p521::ecdsa::VerifyingKey>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let (modulus, exponent) = (
            without_leading_zeros(modulus),
            without_leading_zeros(exponent),
        );
        let bits = modulus.first().map_or(0, |first| {
            modulus.len() * 8 - first.leading_zeros() as usize
        });
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        let exponent_is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
        if !exponent_is_odd || exponent == [1] || exponent.len() > RSA_EXPONENT_BYTES_MAX {
            return Err(KeyError::Malformed("RSA"));
        }
        Ok(Self::Rsa {
            modulus: modulus.to_vec(),
            exponent: exponent.to_vec(),
        })
    }

    /// `point` is in the uncompressed form of SEC 1: 4, x, y.
    pub(super) fn p256(point: &[u8]) -> Result<Self, KeyError> {
        is_uncompressed(point, 32)
            .then(|| Self::P256(point.to_vec()))
            .ok_or(KeyError::Malformed("P-256"))
    }

    pub(super) fn p384(point: &[u8]) -> Result<Self, KeyError> {
        is_uncompressed(point, 48)
            .then(|| Self::P384(point.to_vec()))
            .ok_or(KeyError::Malformed("P-384"))
    }

    pub(super) fn p521(point: &[u8]) -> Result<Self, KeyError> {
        let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
        key.map(|key| Self::P521(Box::new(key)))
            .map_err(|_| KeyError::Malformed("P-521"))
    }

    pub(super) fn ed25519(key: &[u8]) -> Result<Self, KeyError> {
        (key.len() == 32)
            .then(|| Self::Ed25519(key.to_vec()))
            .ok_or(KeyError::Malformed("Ed25519"))
    }

    /// Whether a token of this algorithm can have been signed with this key.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => rsa_parameters(algorithm).is_some(),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::P384(_) => algorithm == Algorithm::Es384,
            Self::P521(_) => algorithm == Algorithm::Es512,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
        }
    }

    pub(super) fn verifies(&self, token: &Token<'_>) -> bool {
        if !self.fits(token.algorithm) {
            return false;
        }
        let fixed = |parameters: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(parameters, key)
                .verify(token.message, &token.signature)
                .is_ok()
        };
        match self {
            Self::Rsa { modulus, exponent } => {
                rsa_parameters(token.algorithm).is_some_and(|parameters| {
                    let key = signature::RsaPublicKeyComponents {
                        n: modulus,
                        e: exponent,
                    };
                    key.verify(parameters, token.message, &token.signature)
                        .is_ok()
                })
            }
            Self::P256(point) => fixed(&signature::ECDSA_P256_SHA256_FIXED, point),
            Self::P384(point) => fixed(&signature::ECDSA_P384_SHA384_FIXED, point),
            Self::P521(key) => p521::ecdsa::Signature::from_slice(&token.signature)
                .is_ok_and(|signature| key.verify(token.message, &signature).is_ok()),
            Self::Ed25519(key) => fixed(&signature::ED25519, key),
        }
    }
}

/// Keys written into the configuration: any of them may have signed, which is how they are rotated.
#[derive(Default)]
pub(super) struct ConfiguredKeys {
    pub(super) secrets: Vec<SharedSecret>,
    pub(super) public: Vec<PublicKey>,
}

impl ConfiguredKeys {
    pub(super) fn verify(&self, token: &Token<'_>) -> bool {
        if token.algorithm.is_symmetric() {
            self.secrets.iter().any(|secret| secret.verifies(token))
        } else {
            self.public.iter().any(|key| key.verifies(token))
        }
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Hs256
        | Algorithm::Hs384
        | Algorithm::Hs512
        | Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::Es512
        | Algorithm::EdDsa => None,
    }
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

fn is_uncompressed(point: &[u8], coordinate_bytes: usize) -> bool {
    point.len() == 1 + 2 * coordinate_bytes && point[0] == 4
}
