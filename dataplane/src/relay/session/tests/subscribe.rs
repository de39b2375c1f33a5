use super::*;
use crate::relay::protocol::{FLAG_REJECT_UNRECOVERED, SubscribeResult};

fn subscribe_result(step: &Step) -> &SubscribeResult {
    match result(step) {
        ResultBody::Subscribe(result) => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reply_then_release_then_join() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let step = client.subscribe("a");
    assert!(
        matches!(
            &step.effects[..],
            [
                Effect::Reply(_),
                Effect::Release { .. },
                Effect::Join { .. }
            ]
        ),
        "{step:?}"
    );
    let again = client.command(Request::Subscribe(to("a")));
    assert_eq!(outcome(&again), Outcome::Error(105));
    let step = client.command(Request::Unsubscribe {
        channel: "a".to_owned(),
    });
    assert!(matches!(&step.effects[..], [Effect::Leave(left), Effect::Reply(_)] if left.announce));
    assert_eq!(client.outcome(Request::Subscribe(to("a"))), Outcome::Asks);
}

#[test]
fn no_more_channels_than_allowed() {
    let mut client = Client::connected(relay(&[]), user("42"));
    for channel in 0..8 {
        client.subscribe(&channel.to_string());
    }
    let step = client.command(Request::Subscribe(to("9")));
    assert_eq!(outcome(&step), Outcome::Error(106));
}

#[test]
fn impossible_requests() {
    let filter = FilterNode {
        op: "xor".to_owned(),
        ..FilterNode::default()
    };
    let cases = [
        (
            SubscribeRequest {
                filter: Some(filter),
                ..to("a")
            },
            Outcome::Error(107),
        ),
        (
            SubscribeRequest {
                delta: "bsdiff".to_owned(),
                ..to("a")
            },
            Outcome::Close(3501),
        ),
        (
            SubscribeRequest {
                subscription_type: 1,
                ..to("a")
            },
            Outcome::Error(103),
        ),
    ];
    for (request, want) in cases {
        let mut client = Client::connected(relay(&[]), user("42"));
        assert_eq!(client.outcome(Request::Subscribe(request)), want);
    }
}

#[test]
fn failed_joins() {
    let cases = [
        (SubscribeError::Unavailable, Outcome::Error(100)),
        (SubscribeError::Unrecoverable, Outcome::Error(112)),
        (SubscribeError::Inappropriate, Outcome::Close(3506)),
    ];
    for (error, want) in cases {
        let mut client = Client::connected(relay(&[]), user("42"));
        let step = client.command(Request::Subscribe(to("a")));
        let step = client.make_with(step, |_, _| Err(error));
        assert_eq!(outcome(&step), want);
        assert!(client.session.end().is_empty());
    }
}

#[test]
fn what_a_client_gets_of_what_it_asks() {
    let all = |channel: &str| SubscribeRequest {
        recover: true,
        offset: 3,
        epoch: "e".to_owned(),
        positioned: true,
        recoverable: true,
        join_leave: true,
        delta: "fossil".to_owned(),
        flag: FLAG_REJECT_UNRECOVERED,
        ..to(channel)
    };
    let mut client = Client::connected(relay(&[("bare", bare())]), user("42"));
    let plan = client.plan(all("a"));
    assert!(plan.recoverable && plan.positioned && plan.receive_join_leave && plan.delta);
    assert_eq!(plan.recover, Some((3, "e".to_owned())));
    assert!(plan.reject_unrecovered && plan.stream.is_some());
    let plan = client.plan(all("bare:a"));
    assert!(!plan.recoverable && !plan.positioned && !plan.receive_join_leave && !plan.delta);
    assert_eq!((plan.recover, plan.stream), (None, None));
    let plan = client.plan(SubscribeRequest {
        positioned: true,
        ..to("a")
    });
    assert!(plan.positioned && !plan.recoverable && plan.stream.is_some());
    let plan = client.plan(SubscribeRequest {
        recover: true,
        ..to("a")
    });
    assert_eq!(plan.recover, None, "not recoverable, nothing to recover");
}

#[test]
fn the_result_of_a_recovery() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let step = client.command(Request::Subscribe(SubscribeRequest {
        recover: true,
        recoverable: true,
        ..to("a")
    }));
    let position = Position {
        offset: 4,
        epoch: "e".into(),
    };
    let step = client.make_with(step, |member, _| {
        Ok(Subscribed {
            recovered: true,
            position: position.clone(),
            ..made(member)
        })
    });
    let result = subscribe_result(&step);
    assert!(result.was_recovering && result.recovered && result.recoverable);
    assert_eq!(result.position, position);
}

#[test]
fn refused_subscription_tokens() {
    let cases = [
        (AuthError::Expired, Outcome::Error(109)),
        (AuthError::Invalid("x".to_owned()), Outcome::Error(103)),
        (AuthError::Unavailable("x".to_owned()), Outcome::Error(100)),
    ];
    for (error, want) in cases {
        let mut client = Client::connected(relay(&[]), user("42"));
        let step = client.subscribe_with_token("$a", Err(error));
        assert_eq!(outcome(&step), want);
    }
}

#[test]
fn a_subscription_token_is_for_one_client_and_channel() {
    let good = || token_for("$a");
    let cases = [
        (good(), Outcome::Asks),
        (
            SubscriptionIdentity {
                client: "client-1".to_owned(),
                ..good()
            },
            Outcome::Asks,
        ),
        (
            SubscriptionIdentity {
                client: "client-2".to_owned(),
                ..good()
            },
            Outcome::Close(3500),
        ),
        (token_for("$b"), Outcome::Close(3500)),
        (
            SubscriptionIdentity {
                user: "43".into(),
                ..good()
            },
            Outcome::Close(3500),
        ),
        (
            SubscriptionIdentity {
                user: "".into(),
                ..good()
            },
            Outcome::Close(3500),
        ),
        (
            SubscriptionIdentity {
                account: "other".into(),
                ..good()
            },
            Outcome::Close(3500),
        ),
        (
            SubscriptionIdentity {
                account: "".into(),
                ..good()
            },
            Outcome::Close(3500),
        ),
    ];
    for (token, want) in cases {
        let mut client = Client::connected(relay(&[]), user("42"));
        let case = format!("{token:?}");
        let step = client.subscribe_with_token("$a", Ok(token));
        assert_eq!(outcome(&step), want, "{case}");
    }
}

#[test]
fn a_token_opens_what_needs_one_but_not_a_closed_namespace() {
    for (allowed, want) in [
        (Allowed::Subscriber, Outcome::Asks),
        (Allowed::Nobody, Outcome::Error(103)),
    ] {
        let namespace = Namespace {
            subscribe: allowed,
            ..namespace()
        };
        let mut client = Client::connected(relay(&[("ns", namespace)]), user("42"));
        let step = client.command(Request::Subscribe(SubscribeRequest {
            token: "token".to_owned(),
            ..to("ns:a")
        }));
        assert_eq!(outcome(&step), want);
    }
}

#[test]
fn what_a_subscription_token_says_is_used() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let token = SubscriptionIdentity {
        info: "{\"x\":1}".into(),
        expires_at: Some(NOW_SECONDS + 60),
        overrides: Overrides {
            presence: Some(false),
            ..Overrides::default()
        },
        ..token_for("$a")
    };
    let step = client.subscribe_with_token("$a", Ok(token));
    let step = client.make(step);
    let result = subscribe_result(&step);
    assert_eq!((result.expires, result.ttl), (true, 60));
    let step = client.command(publish("$a"));
    let Some(Ask::Publish(ask)) = step.ask else {
        panic!("{step:?}");
    };
    let info = ask.publication.info.unwrap();
    assert_eq!((&*info.user, &*info.client), ("42", "client-1"));
    assert_eq!(info.chan_info, "{\"x\":1}");
    let left = client.session.end();
    assert!(!left[0].presence && left[0].announce);
}
