//! Keys, tokens and a key set server for tests. Signs with other libraries than the ones that verify.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use p521::ecdsa::signature::RandomizedSigner;
use p521::elliptic_curve::sec1::ToEncodedPoint;
use p521::pkcs8::EncodePublicKey as _;
use parking_lot::Mutex;
use rsa::pkcs1::{EncodeRsaPrivateKey as _, EncodeRsaPublicKey as _};
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use sluice_crds::config::{Authentication, Jwks, JwksSource, Jwt, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub(super) const NOW: u64 = 1_700_000_000;

pub(super) enum Signer {
    Library(EncodingKey),
    P521(Box<p521::ecdsa::SigningKey>),
}

/// A key pair with all forms in which its public half is configured.
pub(super) struct Pair {
    signer: Signer,
    pub(super) pem: String,
    pub(super) jwk: Value,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Pair {
    pub(super) fn p256() -> Self {
        Self::generated(&rcgen::PKCS_ECDSA_P256_SHA256, "P-256")
    }

    pub(super) fn p384() -> Self {
        Self::generated(&rcgen::PKCS_ECDSA_P384_SHA384, "P-384")
    }

    pub(super) fn ed25519() -> Self {
        Self::generated(&rcgen::PKCS_ED25519, "Ed25519")
    }

    fn generated(algorithm: &'static rcgen::SignatureAlgorithm, curve: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let (secret, raw) = (pair.serialize_pem(), pair.public_key_raw());
        let (signer, jwk) = if curve == "Ed25519" {
            (
                EncodingKey::from_ed_pem(secret.as_bytes()),
                json!({"kty": "OKP", "crv": curve, "x": b64(raw)}),
            )
        } else {
            let (x, y) = raw[1..].split_at(raw.len() / 2);
            let jwk = json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)});
            (EncodingKey::from_ec_pem(secret.as_bytes()), jwk)
        };
        Self {
            signer: Signer::Library(signer.unwrap()),
            pem: pair.public_key_pem(),
            jwk,
        }
    }

    pub(super) fn p521() -> Self {
        let secret = p521::SecretKey::random(&mut OsRng);
        let public = secret.public_key();
        let point = public.to_encoded_point(false);
        let jwk = json!({"kty": "EC", "crv": "P-521", "x": b64(point.x().unwrap()), "y": b64(point.y().unwrap())});
        let signer = p521::ecdsa::SigningKey::from_bytes(&secret.to_bytes()).unwrap();
        let pem = public.to_public_key_pem(Default::default()).unwrap();
        Self {
            signer: Signer::P521(Box::new(signer)),
            pem,
            jwk,
        }
    }

    /// One for all tests: making it takes a second.
    pub(super) fn rsa() -> &'static Self {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| Self::rsa_of(2048))
    }

    pub(super) fn rsa_of(bits: usize) -> Self {
        let secret = rsa::RsaPrivateKey::new(&mut OsRng, bits).unwrap();
        let public = secret.to_public_key();
        let jwk = json!({"kty": "RSA", "n": b64(public.n().to_bytes_be()), "e": b64(public.e().to_bytes_be())});
        let signer = EncodingKey::from_rsa_der(secret.to_pkcs1_der().unwrap().as_bytes());
        let pem =
            rsa::pkcs8::EncodePublicKey::to_public_key_pem(&public, Default::default()).unwrap();
        Self {
            signer: Signer::Library(signer),
            pem,
            jwk,
        }
    }

    /// The PKCS #1 form of the RSA key.
    pub(super) fn pkcs1_pem(&self) -> String {
        let key =
            <rsa::RsaPublicKey as rsa::pkcs8::DecodePublicKey>::from_public_key_pem(&self.pem)
                .unwrap();
        key.to_pkcs1_pem(Default::default()).unwrap()
    }

    pub(super) fn jwk_with(&self, more: &Value) -> Value {
        let mut jwk = self.jwk.clone();
        jwk.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        jwk
    }

    pub(super) fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.token_with(&json!({"alg": algorithm, "typ": "JWT"}), claims)
    }

    pub(super) fn token_of(&self, algorithm: &str, key_id: &str, claims: &Value) -> String {
        self.token_with(&json!({"alg": algorithm, "kid": key_id}), claims)
    }

    pub(super) fn token_with(&self, header: &Value, claims: &Value) -> String {
        sign(&self.signer, header, &claims.to_string())
    }
}

fn sign(signer: &Signer, header: &Value, claims: &str) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims));
    let signature = match signer {
        Signer::Library(key) => {
            let algorithm = serde_json::from_value(header["alg"].clone()).unwrap();
            jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap()
        }
        Signer::P521(key) => {
            let signature: p521::ecdsa::Signature =
                key.sign_with_rng(&mut OsRng, message.as_bytes());
            b64(signature.to_bytes())
        }
    };
    format!("{message}.{signature}")
}

pub(super) fn hmac_token(algorithm: &str, secret: &[u8], claims: &Value) -> String {
    hmac_token_of(algorithm, secret, &claims.to_string())
}

/// With the claims as they are written.
pub(super) fn hmac_token_of(algorithm: &str, secret: &[u8], claims: &str) -> String {
    sign(
        &Signer::Library(EncodingKey::from_secret(secret)),
        &json!({"alg": algorithm}),
        claims,
    )
}

pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}.", b64(header.to_string()), b64(claims.to_string()))
}

pub(super) fn jwt() -> Jwt {
    Jwt {
        hmac_secrets: Vec::new(),
        public_keys: Vec::new(),
        jwks: None,
        audience: None,
        issuer: None,
        account_claim: None,
    }
}

pub(super) fn with_jwt(jwt: Jwt) -> Authentication {
    Authentication {
        jwt: Some(jwt),
        anonymous: false,
        expiry_grace: Duration::from_secs(25),
    }
}

pub(super) fn secret(text: impl AsRef<[u8]>) -> Secret {
    Secret::new(text.as_ref())
}

pub(super) fn key_set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

pub(super) fn with_url(url: &str, refresh: Duration) -> Authentication {
    with_jwt(Jwt {
        jwks: Some(Jwks {
            source: JwksSource::Url(url.to_owned()),
            refresh,
        }),
        ..jwt()
    })
}

/// Serves one document over HTTP and counts the requests.
pub(super) struct Server {
    pub(super) url: String,
    /// Status line and body.
    pub(super) answer: Arc<Mutex<(&'static str, String)>>,
    hits: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(document: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(("200 OK", document)));
        let hits = Arc::new(AtomicUsize::new(0));
        let (answers, counter) = (Arc::clone(&answer), Arc::clone(&hits));
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let (status, body) = answers.lock().clone();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let head = format!(
                    "HTTP/1.1 {status}\r\nlocation: /keys\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes()).await;
            }
        });
        Self {
            url,
            answer,
            hits,
            task,
        }
    }

    pub(super) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
