//! Signatures and claims, through [`Authenticator`].

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::testing::{
    NOW, Pair, hmac_token, hmac_token_of, jwt, key_set, secret, unsigned, with_jwt,
};
use super::*;

pub(super) const SECRET: &[u8] = b"secret";

pub(super) fn authenticator(jwt: Jwt) -> Authenticator {
    Authenticator::new(&with_jwt(jwt), &Handle::current()).unwrap()
}

pub(super) fn hmac() -> Authenticator {
    authenticator(Jwt {
        hmac_secrets: vec![secret(SECRET)],
        ..jwt()
    })
}

fn with_pem(pem: &str) -> Authenticator {
    authenticator(Jwt {
        public_keys: vec![secret(pem)],
        ..jwt()
    })
}

fn with_document(document: &str) -> Authenticator {
    let jwks = Jwks {
        source: JwksSource::Document(secret(document)),
        refresh: std::time::Duration::from_secs(60),
    };
    authenticator(Jwt {
        jwks: Some(jwks),
        ..jwt()
    })
}

pub(super) fn is_invalid<T: std::fmt::Debug>(result: &Result<T, AuthError>) -> bool {
    matches!(result, Err(AuthError::Invalid(_)))
}

pub(super) async fn accepts(authenticator: &Authenticator, token: &str) -> bool {
    match authenticator.connection(token, NOW).await {
        Ok(identity) => {
            assert_eq!(&*identity.user, "42");
            true
        }
        Err(AuthError::Invalid(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

fn user() -> Value {
    json!({"sub": "42"})
}

fn all_pairs() -> Vec<(Vec<&'static str>, Pair)> {
    let rsa = Pair::rsa_of(2048);
    vec![
        (
            vec!["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            rsa,
        ),
        (vec!["ES256"], Pair::p256()),
        (vec!["ES384"], Pair::p384()),
        (vec!["ES512"], Pair::p521()),
        (vec!["EdDSA"], Pair::ed25519()),
    ]
}

#[tokio::test]
async fn every_algorithm_by_pem_and_by_key_set() {
    let pairs = all_pairs();
    for (algorithms, pair) in &pairs {
        let by_pem = with_pem(&pair.pem);
        let by_set = with_document(&key_set(std::slice::from_ref(&pair.jwk)));
        for algorithm in algorithms {
            let token = pair.token(algorithm, &user());
            assert!(accepts(&by_pem, &token).await, "{algorithm} by PEM");
            assert!(accepts(&by_set, &token).await, "{algorithm} by key set");
            let mut forged = token.clone();
            let last = forged.rfind('.').unwrap() + 5;
            forged.replace_range(
                last..=last,
                if &forged[last..=last] == "A" {
                    "B"
                } else {
                    "A"
                },
            );
            assert!(!accepts(&by_pem, &forged).await, "{algorithm} forged");
            for (others, other) in &pairs {
                if others != algorithms {
                    assert!(
                        !accepts(&with_pem(&other.pem), &token).await,
                        "{algorithm} with {others:?}"
                    );
                }
            }
        }
    }
    for algorithm in ["HS256", "HS384", "HS512"] {
        assert!(accepts(&hmac(), &hmac_token(algorithm, SECRET, &user())).await);
        assert!(!accepts(&hmac(), &hmac_token(algorithm, b"other", &user())).await);
    }
}

#[tokio::test]
async fn a_token_does_not_choose_how_a_key_is_used() {
    let rsa = Pair::rsa();
    for authenticator in [with_pem(&rsa.pem), with_pem(&rsa.pkcs1_pem())] {
        assert!(accepts(&authenticator, &rsa.token("RS256", &user())).await);
        for public in [rsa.pem.clone(), rsa.pkcs1_pem()] {
            assert!(
                !accepts(
                    &authenticator,
                    &hmac_token("HS256", public.as_bytes(), &user())
                )
                .await
            );
        }
    }
    for algorithm in ["none", "None", "NONE", "", "hs256", "HS1"] {
        let token = unsigned(&json!({"alg": algorithm}), &user());
        assert!(!accepts(&hmac(), &token).await, "{algorithm}");
    }
    assert!(
        !accepts(&hmac(), &unsigned(&json!({"alg": "HS256"}), &user())).await,
        "no signature"
    );
    // A shared secret in a published set would let every reader sign.
    let oct = json!({"kty": "oct", "k": "c2VjcmV0"});
    let document = key_set(&[oct, Pair::p256().jwk]);
    assert!(
        !accepts(
            &with_document(&document),
            &hmac_token("HS256", SECRET, &user())
        )
        .await
    );
}

#[tokio::test]
async fn any_of_the_configured_keys() {
    let (a, b, c) = (Pair::p256(), Pair::p256(), Pair::p256());
    let authenticator = authenticator(Jwt {
        hmac_secrets: vec![secret("new"), secret("old")],
        // Two in one PEM text.
        public_keys: vec![
            secret(Pair::ed25519().pem),
            secret(format!("{}{}", a.pem, b.pem)),
        ],
        ..jwt()
    });
    for (known, token) in [
        (true, hmac_token("HS256", b"new", &user())),
        (true, hmac_token("HS512", b"old", &user())),
        (false, hmac_token("HS256", b"older", &user())),
        (true, a.token("ES256", &user())),
        (true, b.token_of("ES256", "ids do not matter here", &user())),
        (false, c.token("ES256", &user())),
    ] {
        assert_eq!(accepts(&authenticator, &token).await, known);
    }
}

#[tokio::test]
async fn key_sets_choose_by_id_and_algorithm() {
    let (a, b, plain, rsa) = (Pair::p256(), Pair::p256(), Pair::ed25519(), Pair::rsa());
    let encryption = Pair::p256();
    let authenticator = with_document(&key_set(&[
        a.jwk_with(&json!({"kid": "a", "use": "sig"})),
        b.jwk_with(&json!({"kid": "b", "alg": "ES256", "key_ops": ["verify"]})),
        plain.jwk.clone(),
        rsa.jwk_with(&json!({"kid": "rsa", "alg": "RS256"})),
        encryption.jwk_with(&json!({"kid": "enc", "use": "enc"})),
        // Left out one by one, without harm to the others.
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "kid": "broken"}),
        json!({"kty": "new", "kid": "unknown type"}),
        json!({"kty": 5}),
        json!("no key"),
    ]));
    for (accepted, token) in [
        (true, a.token_of("ES256", "a", &user())),
        (false, a.token_of("ES256", "b", &user())),
        (true, a.token("ES256", &user())),
        (true, b.token("ES256", &user())),
        (false, a.token_of("ES256", "unknown", &user())),
        (
            true,
            plain.token_of("EdDSA", "any: the key has no id", &user()),
        ),
        (true, rsa.token_of("RS256", "rsa", &user())),
        (false, rsa.token_of("RS512", "rsa", &user())),
        (false, rsa.token_of("PS256", "rsa", &user())),
        (false, encryption.token_of("ES256", "enc", &user())),
    ] {
        assert_eq!(accepts(&authenticator, &token).await, accepted, "{token}");
    }
}

#[tokio::test]
async fn bad_keys_are_told_apart() {
    let small = Pair::rsa_of(1024).pem;
    let private = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let refused = |jwt: Jwt| match Authenticator::new(&with_jwt(jwt), &Handle::current()) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    };
    let pem = |text: &str| {
        refused(Jwt {
            public_keys: vec![secret(Pair::p256().pem), secret(text)],
            ..jwt()
        })
    };
    assert_eq!(
        pem(&small),
        "public key 2: RSA key of 1024 bits; 2048 to 8192 are supported"
    );
    assert_eq!(
        pem(&private),
        "public key 2: holds \"PRIVATE KEY\" where \"PUBLIC KEY\" is needed"
    );
    assert_eq!(pem("no pem"), "public key 2: empty");
    assert_eq!(
        pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        "public key 2: broken public key"
    );
    assert_eq!(
        refused(Jwt {
            hmac_secrets: vec![secret("")],
            ..jwt()
        }),
        "shared secret 1: empty"
    );
    let refresh = std::time::Duration::from_secs(60);
    let set = |source| {
        refused(Jwt {
            jwks: Some(Jwks { source, refresh }),
            ..jwt()
        })
    };
    assert!(set(JwksSource::Document(secret("{}"))).starts_with("key set: not a key set"));
    assert!(set(JwksSource::Document(secret(r#"{"keys":[]}"#))).starts_with("key set: no key"));
    for url in ["ftp://a/b", "http://", "file://relative", "", "keys.json"] {
        assert!(
            set(JwksSource::Url(url.to_owned())).starts_with("location of the key set: "),
            "{url}"
        );
    }
}

#[tokio::test]
async fn without_keys_every_token_is_invalid() {
    let config = Authentication {
        jwt: None,
        ..with_jwt(jwt())
    };
    let none = Authenticator::new(&config, &Handle::current()).unwrap();
    let token = hmac_token("HS256", b"", &user());
    assert!(is_invalid(&none.connection(&token, NOW).await));
    assert!(is_invalid(&none.subscription(&token, NOW).await));
    assert!(is_invalid(
        &authenticator(jwt()).connection(&token, NOW).await
    ));
}

#[tokio::test]
async fn malformed_tokens() {
    let good = hmac_token("HS256", SECRET, &user());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let long = "a".repeat(70_000);
    for token in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        message,
        &good[1..],
        &format!("{good}.x"),
        &format!("{good}="),
        &format!("{message}.{signature}A"),
        &format!(" {good}"),
        &long,
    ] {
        assert!(is_invalid(&hmac().connection(token, NOW).await), "{token}");
    }
    let critical = Pair::p256();
    let token = critical.token_with(
        &json!({"alg": "ES256", "crit": ["b64"], "b64": false}),
        &user(),
    );
    assert!(!accepts(&with_pem(&critical.pem), &token).await);
    let token = critical.token_with(&json!({"alg": "ES256", "kid": 5}), &user());
    assert!(!accepts(&with_pem(&critical.pem), &token).await);
    for claims in [
        "",
        "null",
        "[]",
        "5",
        "\"sub\"",
        "{",
        "{\"sub\":\"a\",\"sub\":\"b\"}",
        "{\"sub\":\"a\"}x",
    ] {
        let token = hmac_token_of("HS256", SECRET, claims);
        assert!(
            is_invalid(&hmac().connection(&token, NOW).await),
            "{claims}"
        );
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// JSON of all kinds, with the names of claims where names are.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "sub",
        "exp",
        "nbf",
        "aud",
        "iss",
        "expire_at",
        "info",
        "b64info",
        "channels",
        "subs",
        "override",
        "presence",
        "value",
        "data",
        "b64data",
        "channel",
        "client",
        "org",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_refused(token in "(?s).*", header in "(?s).*", claims in any::<Vec<u8>>()) {
        block_on(async {
            prop_assert!(is_invalid(&hmac().connection(&token, NOW).await));
            let parts = [header.as_str(), &token, &header].join(".");
            prop_assert!(is_invalid(&hmac().subscription(&parts, NOW).await));
            Ok(())
        })?;
        let rules = Rules { account_claim: Some("org".to_owned()), ..Rules::default() };
        let _ = claims::connection(&claims, &rules, NOW);
        let _ = KeySet::parse(&claims);
        let _ = pem::public_keys(&claims);
        let _ = Location::parse(&token);
    }

    #[test]
    fn any_claims_are_decided(claims in any_json(), now in any::<u64>()) {
        let text = claims.to_string();
        let rules = Rules { account_claim: Some("org".to_owned()), ..Rules::default() };
        for rules in [rules, Rules::default()] {
            if let Ok(identity) = claims::connection(text.as_bytes(), &rules, now) {
                prop_assert!(identity.expires_at.is_none_or(|at| at > now));
                prop_assert_eq!(rules.account_claim.is_some(), !identity.account.is_empty());
            }
            if let Ok(identity) = claims::subscription(text.as_bytes(), &rules, now) {
                prop_assert!(!identity.channel.is_empty());
            }
        }
    }

    #[test]
    fn any_der_is_decided(contents in any::<Vec<u8>>(), tag in prop::sample::select(vec!["PUBLIC KEY", "RSA PUBLIC KEY"])) {
        let text = ::pem::encode(&::pem::Pem::new(tag, contents));
        let _ = pem::public_keys(text.as_bytes());
    }
}
