use super::*;

fn refreshed(client: &mut Client, identity: Result<Identity, AuthError>) -> Step {
    let step = client.command(Request::Refresh {
        token: "token".to_owned(),
    });
    let Some(Ask::Refresh { context, .. }) = step.ask else {
        panic!("{step:?}");
    };
    client.enter(|session, env| session.refreshed(context, identity, env))
}

fn expire_at(client: &mut Client, now_ms: u64) -> Step {
    client.now_ms = now_ms;
    client.enter(|session, env| session.expire(env))
}

const OVER_MS: u64 = (NOW_SECONDS + 60 + GRACE_SECONDS) * 1_000;

fn expiring() -> Identity {
    Identity {
        expires_at: Some(NOW_SECONDS + 60),
        ..user("42")
    }
}

#[test]
fn a_connection_ends_after_its_grace_and_not_before() {
    let mut client = Client::connected(relay(&[]), expiring());
    assert_eq!(
        client.enter(|session, env| session.expiry_due_ms(env)),
        Some(OVER_MS)
    );
    assert_eq!(
        outcome(&expire_at(&mut client, OVER_MS - 1)),
        Outcome::Nothing
    );
    assert_eq!(
        outcome(&expire_at(&mut client, OVER_MS)),
        Outcome::Close(3005)
    );
}

#[test]
fn a_refresh_prolongs() {
    let mut client = Client::connected(relay(&[]), expiring());
    let later = Identity {
        expires_at: Some(NOW_SECONDS + 600),
        ..user("42")
    };
    let step = refreshed(&mut client, Ok(later));
    assert!(
        matches!(result(&step), ResultBody::Refresh(refresh) if refresh.expires && refresh.ttl == 600)
    );
    assert_eq!(outcome(&expire_at(&mut client, OVER_MS)), Outcome::Nothing);
    let step = refreshed(&mut client, Ok(user("42")));
    assert!(
        matches!(result(&step), ResultBody::Refresh(refresh) if !refresh.expires && refresh.ttl == 0)
    );
    assert_eq!(
        client.enter(|session, env| session.expiry_due_ms(env)),
        None
    );
}

#[test]
fn refused_refreshes() {
    let other_account = Identity {
        account: "other".into(),
        ..user("42")
    };
    let cases = [
        (Err(AuthError::Expired), Outcome::Close(3005)),
        (
            Err(AuthError::Invalid("x".to_owned())),
            Outcome::Close(3500),
        ),
        (
            Err(AuthError::Unavailable("x".to_owned())),
            Outcome::Error(100),
        ),
        (Ok(user("43")), Outcome::Close(3500)),
        (Ok(user("")), Outcome::Close(3500)),
        (Ok(other_account), Outcome::Close(3500)),
    ];
    for (identity, want) in cases {
        let mut client = Client::connected(relay(&[]), expiring());
        let case = format!("{identity:?}");
        assert_eq!(outcome(&refreshed(&mut client, identity)), want, "{case}");
    }
    let mut client = Client::connected(relay(&[]), expiring());
    assert_eq!(
        client.outcome(Request::Refresh {
            token: String::new()
        }),
        Outcome::Close(3501)
    );
}

fn subscribed_with_token() -> Client {
    let mut client = Client::connected(relay(&[]), user("42"));
    let token = SubscriptionIdentity {
        expires_at: Some(NOW_SECONDS + 60),
        ..token_for("$a")
    };
    let step = client.subscribe_with_token("$a", Ok(token));
    client.make(step);
    client
}

#[test]
fn a_subscription_ends_after_its_grace_and_not_before() {
    let mut client = subscribed_with_token();
    client.subscribe("b");
    assert_eq!(
        outcome(&expire_at(&mut client, OVER_MS - 1)),
        Outcome::Nothing
    );
    let step = expire_at(&mut client, OVER_MS);
    assert!(
        matches!(&step.effects[..], [
            Effect::PushUnsubscribe { channel, code: 2501, .. },
            Effect::Leave(left),
        ] if *channel == scoped("$a") && left.channel == *channel),
        "{step:?}"
    );
    assert_eq!(
        client.session.end().len(),
        1,
        "the other subscription stays"
    );
}

#[test]
fn an_expired_server_side_subscription_closes() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let step = client.control(Control::Subscribe(Box::new(ServerSubscribe {
        channel: scoped("a"),
        info: Payload::new(),
        data: Payload::new(),
        expires_at: Some(NOW_SECONDS + 60),
        recover: None,
        overrides: Overrides::default(),
    })));
    client.make(step);
    assert_eq!(
        outcome(&expire_at(&mut client, OVER_MS - 1)),
        Outcome::Nothing
    );
    assert_eq!(
        outcome(&expire_at(&mut client, OVER_MS)),
        Outcome::Close(3006)
    );
    assert_eq!(
        client.session.end().len(),
        1,
        "it is left with the connection"
    );
}

#[test]
fn refreshing_a_subscription() {
    let later = || SubscriptionIdentity {
        expires_at: Some(NOW_SECONDS + 600),
        ..token_for("$a")
    };
    let cases = [
        (Ok(later()), Outcome::Replies),
        // Nothing changes; it ends after its grace.
        (Err(AuthError::Expired), Outcome::Replies),
        (
            Err(AuthError::Invalid("x".to_owned())),
            Outcome::Close(3500),
        ),
        (
            Err(AuthError::Unavailable("x".to_owned())),
            Outcome::Error(100),
        ),
        (Ok(token_for("$b")), Outcome::Close(3500)),
        (
            Ok(SubscriptionIdentity {
                user: "43".into(),
                ..later()
            }),
            Outcome::Close(3500),
        ),
        (
            Ok(SubscriptionIdentity {
                account: "other".into(),
                ..later()
            }),
            Outcome::Close(3500),
        ),
    ];
    for (verified, want) in cases {
        let mut client = subscribed_with_token();
        let prolongs = verified.is_ok() && want == Outcome::Replies;
        let case = format!("{verified:?}");
        let step = client.command(Request::SubRefresh {
            channel: "$a".to_owned(),
            token: "token".to_owned(),
        });
        let step = client.verify(step, verified);
        assert_eq!(outcome(&step), want, "{case}");
        let over = !expire_at(&mut client, OVER_MS).effects.is_empty();
        assert_eq!(over, !prolongs, "{case}");
    }
}

#[test]
fn what_cannot_be_refreshed() {
    let mut client = subscribed_with_token();
    let refresh = |channel: &str, token: &str| Request::SubRefresh {
        channel: channel.to_owned(),
        token: token.to_owned(),
    };
    assert_eq!(client.outcome(refresh("$b", "token")), Outcome::Error(103));
    assert_eq!(client.outcome(refresh("$a", "")), Outcome::Error(107));
    let step = client.control(Control::Subscribe(Box::new(ServerSubscribe {
        channel: scoped("s"),
        info: Payload::new(),
        data: Payload::new(),
        expires_at: None,
        recover: None,
        overrides: Overrides::default(),
    })));
    client.make(step);
    assert_eq!(client.outcome(refresh("s", "token")), Outcome::Error(107));
}

/// Tokens may name any time; none of them may wrap around into the past.
#[test]
fn the_end_of_time() {
    let identity = Identity {
        expires_at: Some(u64::MAX),
        ..user("42")
    };
    let mut client = Client::connected(relay(&[]), identity);
    assert_eq!(
        client.enter(|session, env| session.expiry_due_ms(env)),
        Some(u64::MAX)
    );
    assert_eq!(outcome(&expire_at(&mut client, OVER_MS)), Outcome::Nothing);
}
