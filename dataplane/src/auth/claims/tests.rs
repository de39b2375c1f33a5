//! Claims, through [`Authenticator`](super::super::Authenticator).

use bytes::Bytes;
use serde_json::json;
use sluice_crds::config::Jwt;

use super::super::testing::{NOW, hmac_token, hmac_token_of, jwt, secret};
use super::super::tests::{SECRET, accepts, authenticator, hmac, is_invalid};
use super::super::{AuthError, Identity, Overrides, ServerSubscription, SubscriptionIdentity};

#[tokio::test]
async fn dates() {
    let year = NOW + 365 * 24 * 60 * 60;
    let expired = Err(AuthError::Expired);
    for (claims, wanted) in [
        (json!({}), Ok(None)),
        (json!({"exp": NOW + 1}), Ok(Some(NOW + 1))),
        (json!({"exp": NOW}), expired.clone()),
        (json!({"exp": 0}), expired.clone()),
        (json!({"exp": -1}), expired.clone()),
        (json!({"exp": NOW as f64 + 7.9}), Ok(Some(NOW + 7))),
        (json!({"exp": (NOW + 7).to_string()}), Ok(Some(NOW + 7))),
        (json!({"exp": 1e300}), Ok(Some(year))),
        (json!({"exp": u64::MAX}), Ok(Some(year))),
        (json!({"exp": null}), Ok(None)),
        (json!({"nbf": NOW}), Ok(None)),
        (json!({"nbf": NOW + 1}), expired.clone()),
        (json!({"expire_at": NOW + 5}), Ok(Some(NOW + 5))),
        (
            json!({"exp": NOW + 1, "expire_at": NOW + 5}),
            Ok(Some(NOW + 5)),
        ),
        (json!({"exp": NOW + 1, "expire_at": 0}), Ok(None)),
        (json!({"exp": NOW + 1, "expire_at": -3}), Ok(None)),
        (
            json!({"exp": NOW + 1, "expire_at": year + 1}),
            Ok(Some(year)),
        ),
        (json!({"exp": NOW, "expire_at": NOW + 5}), expired.clone()),
        (json!({"exp": NOW + 1, "expire_at": NOW}), expired.clone()),
    ] {
        let token = hmac_token("HS256", SECRET, &claims);
        let found = hmac()
            .connection(&token, NOW)
            .await
            .map(|identity| identity.expires_at);
        assert_eq!(found, wanted, "{claims}");
        let mut claims = claims;
        claims["channel"] = json!("c");
        let token = hmac_token("HS256", SECRET, &claims);
        let found = hmac()
            .subscription(&token, NOW)
            .await
            .map(|identity| identity.expires_at);
        assert_eq!(found, wanted, "{claims}");
        let forged = hmac_token("HS256", b"other", &claims);
        assert!(
            is_invalid(&hmac().subscription(&forged, NOW).await),
            "forged is never expired"
        );
    }
}

#[tokio::test]
async fn wrong_types_are_invalid() {
    for claims in [
        json!({"sub": 42}),
        json!({"exp": true}),
        json!({"exp": "soon"}),
        json!({"exp": "inf"}),
        json!({"nbf": []}),
        json!({"aud": 5}),
        json!({"aud": [5]}),
        json!({"iss": {}}),
        json!({"expire_at": 1.5}),
        json!({"expire_at": "5"}),
        json!({"b64info": "%"}),
        json!({"channels": "a"}),
        json!({"channels": [1]}),
        json!({"subs": ["a"]}),
        json!({"subs": {"a": 1}}),
        json!({"subs": {"a": {"b64data": "%"}}}),
        json!({"subs": {"a": {"override": {"presence": true}}}}),
        json!({"subs": {"a": {"override": {"presence": {"value": 1}}}}}),
        json!({"channel": "a subscription token"}),
    ] {
        let token = hmac_token("HS256", SECRET, &claims);
        assert!(
            is_invalid(&hmac().connection(&token, NOW).await),
            "{claims}"
        );
    }
}

#[tokio::test]
async fn audience_and_issuer() {
    let picky = authenticator(Jwt {
        hmac_secrets: vec![secret(SECRET)],
        audience: Some("me".to_owned()),
        issuer: Some("you".to_owned()),
        ..jwt()
    });
    for (accepted, claims) in [
        (true, json!({"sub": "42", "aud": "me", "iss": "you"})),
        (
            true,
            json!({"sub": "42", "aud": ["them", "me"], "iss": "you"}),
        ),
        (false, json!({"sub": "42", "aud": ["them"], "iss": "you"})),
        (false, json!({"sub": "42", "aud": [], "iss": "you"})),
        (false, json!({"sub": "42", "aud": "m", "iss": "you"})),
        (false, json!({"sub": "42", "iss": "you"})),
        (false, json!({"sub": "42", "aud": "me"})),
        (false, json!({"sub": "42", "aud": "me", "iss": "yo"})),
        // Meant for someone else comes before expired.
        (
            false,
            json!({"sub": "42", "aud": "them", "iss": "you", "exp": 1}),
        ),
    ] {
        assert_eq!(
            accepts(&picky, &hmac_token("HS256", SECRET, &claims)).await,
            accepted,
            "{claims}"
        );
    }
}

#[tokio::test]
async fn accounts() {
    let of = |claim: &str| {
        authenticator(Jwt {
            hmac_secrets: vec![secret(SECRET)],
            account_claim: Some(claim.to_owned()),
            ..jwt()
        })
    };
    let long = format!("\"{}\"", "a".repeat(256));
    for (value, wanted) in [
        ("\"acme\"", Some("acme")),
        ("\"\\u0061cme\"", Some("acme")),
        ("\"a.b/c d\"", Some("a.b/c d")),
        ("42", Some("42")),
        ("-7", Some("-7")),
        ("18446744073709551615", Some("18446744073709551615")),
        ("18446744073709551616", None),
        ("1.5", None),
        ("1e3", None),
        ("\"\"", None),
        ("\"a\\u001fb\"", None),
        ("null", None),
        ("true", None),
        ("[\"acme\"]", None),
        ("{}", None),
        (&long, None),
        ("\"a\",\"org\":\"b\"", None),
        ("\"a\",\"\\u006frg\":\"b\"", None),
    ] {
        let token = hmac_token_of(
            "HS256",
            SECRET,
            &format!(r#"{{"x":{{"org":"no"}},"org":{value}}}"#),
        );
        let found = of("org").connection(&token, NOW).await;
        assert_eq!(
            found.as_ref().ok().map(|identity| &*identity.account),
            wanted,
            "{value}: {found:?}"
        );
        let token = hmac_token_of(
            "HS256",
            SECRET,
            &format!(r#"{{"channel":"c","org":{value}}}"#),
        );
        let found = of("org").subscription(&token, NOW).await;
        assert_eq!(
            found.as_ref().ok().map(|identity| &*identity.account),
            wanted,
            "{value}: {found:?}"
        );
    }
    let missing = hmac_token("HS256", SECRET, &json!({"sub": "a", "channel": "c"}));
    assert!(is_invalid(&of("org").subscription(&missing, NOW).await));
    let both = hmac_token("HS256", SECRET, &json!({"sub": "a", "org": "b"}));
    assert_eq!(
        &*of("sub").connection(&both, NOW).await.unwrap().account,
        "a"
    );
    assert_eq!(&*hmac().connection(&both, NOW).await.unwrap().account, "");
}

#[tokio::test]
async fn connection_claims() {
    let claims = concat!(
        r#"{"sub":"42","iat":1,"jti":"x","meta":{},"info":{ "b":1,"#,
        "\n\r",
        r#" "a":1.0, "s":"\n" },"channels":["ignored"],"subs":{"#,
        r#""b":{"info":[1],"data":null,"override":{"presence":{"value":true},"join_leave":{"value":false},"#,
        r#""force_recovery":{},"force_positioning":null,"other":1}},"#,
        r#""a":{"b64info":"AAE=","info":"not this","b64data":"AgM=","data":1},"c":null,"d":{"data":{"x":1}}}}"#,
    );
    let identity = hmac()
        .connection(&hmac_token_of("HS256", SECRET, claims), NOW)
        .await
        .unwrap();
    assert_eq!(&*identity.user, "42");
    assert_eq!(identity.info, r#"{ "b":1,   "a":1.0, "s":"\n" }"#);
    let sub =
        |channel: &str, info: &'static [u8], data: &'static [u8], overrides| ServerSubscription {
            channel: channel.to_owned(),
            info: Bytes::from_static(info),
            data: Bytes::from_static(data),
            overrides,
        };
    let overrides = Overrides {
        presence: Some(true),
        join_leave: Some(false),
        force_recovery: Some(false),
        ..Overrides::default()
    };
    assert_eq!(
        identity.subscriptions,
        [
            sub("a", &[0, 1], &[2, 3], Overrides::default()),
            sub("b", b"[1]", b"", overrides),
            sub("c", b"", b"", Overrides::default()),
            sub("d", b"", br#"{"x":1}"#, Overrides::default()),
        ]
    );
    let claims = json!({"channels": ["b", "a", "b"], "subs": {}, "b64info": "AAE=", "info": 5, "channel": ""});
    let identity = hmac()
        .connection(&hmac_token("HS256", SECRET, &claims), NOW)
        .await
        .unwrap();
    let channels: Vec<_> = identity
        .subscriptions
        .iter()
        .map(|sub| sub.channel.as_str())
        .collect();
    assert_eq!(
        (channels, &identity.info[..], &*identity.user),
        (vec!["b", "a"], &[0, 1][..], "")
    );
    let nulls = json!({"sub": null, "info": null, "b64info": null, "channels": null, "subs": null, "aud": null});
    let identity = hmac()
        .connection(&hmac_token("HS256", SECRET, &nulls), NOW)
        .await
        .unwrap();
    assert_eq!(identity, Identity::default());
}

#[tokio::test]
async fn subscription_claims() {
    let claims = json!({
        "sub": "42", "channel": "$news", "client": "c1", "info": {"a": 1},
        "override": {"force_push_join_leave": {"value": true}, "force_positioning": {"value": false}},
    });
    let found = hmac()
        .subscription(&hmac_token("HS256", SECRET, &claims), NOW)
        .await
        .unwrap();
    let wanted = SubscriptionIdentity {
        user: "42".into(),
        channel: "$news".to_owned(),
        client: "c1".to_owned(),
        info: Bytes::from_static(br#"{"a":1}"#),
        overrides: Overrides {
            force_push_join_leave: Some(true),
            force_positioning: Some(false),
            ..Overrides::default()
        },
        ..SubscriptionIdentity::default()
    };
    assert_eq!(found, wanted);
    for claims in [
        json!({"sub": "42"}),
        json!({"channel": ""}),
        json!({"channel": 1}),
        json!({"channel": null}),
    ] {
        let token = hmac_token("HS256", SECRET, &claims);
        assert!(
            is_invalid(&hmac().subscription(&token, NOW).await),
            "{claims}"
        );
    }
}
