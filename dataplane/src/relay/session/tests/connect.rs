use super::*;
use crate::relay::protocol::FLAG_CHANNEL_COMPACTION;

fn server_side(channels: &[&str]) -> Vec<ServerSubscription> {
    let subscription = |channel: &&str| ServerSubscription {
        channel: (*channel).to_owned(),
        ..ServerSubscription::default()
    };
    channels.iter().map(subscription).collect()
}

fn connect_result(step: &Step) -> &ConnectResult {
    match result(step) {
        ResultBody::Connect(result) => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_command_is_connect_and_there_is_one() {
    for request in [Request::Ping, Request::Empty, publish("a"), history("a")] {
        let mut client = Client::fresh(relay(&[]), Encoding::Json);
        assert_eq!(client.outcome(request), Outcome::Close(3501));
    }
    let connect = || Request::Connect(ConnectRequest::default());
    let mut client = Client::fresh(relay(&[]), Encoding::Json);
    assert_eq!(
        outcome(&client.command_id(0, connect())),
        Outcome::Close(3501)
    );
    let mut client = Client::connected(relay(&[]), user("42"));
    assert_eq!(client.outcome(connect()), Outcome::Close(3501));
    assert_eq!(
        outcome(&client.command_id(0, publish("a"))),
        Outcome::Close(3501)
    );
    assert_eq!(
        outcome(&client.command_id(0, Request::Empty)),
        Outcome::Nothing
    );
    assert_eq!(client.outcome(Request::Empty), Outcome::Close(3501));
    assert_eq!(client.outcome(Request::Ping), Outcome::Replies);
}

#[test]
fn without_a_token_only_where_anonymous_clients_are_wanted() {
    let mut client = Client::fresh(relay(&[]), Encoding::Json);
    let step = client.command(Request::Connect(ConnectRequest::default()));
    let step = client.admit(step, true);
    assert_eq!(outcome(&step), Outcome::Replies);
    assert_eq!(client.session.identity(), Some(("".into(), "".into())));

    let mut closed = relay(&[]);
    closed.authentication.anonymous = false;
    let mut client = Client::fresh(closed, Encoding::Json);
    let step = client.command(Request::Connect(ConnectRequest::default()));
    assert_eq!(outcome(&step), Outcome::Close(3501));
}

#[test]
fn refused_tokens() {
    let cases = [
        (AuthError::Expired, Outcome::Error(109)),
        (AuthError::Invalid("x".to_owned()), Outcome::Close(3500)),
        (AuthError::Unavailable("x".to_owned()), Outcome::Error(100)),
    ];
    for (error, want) in cases {
        let mut client = Client::fresh(relay(&[]), Encoding::Json);
        let step = client.command(Request::Connect(ConnectRequest {
            token: "token".to_owned(),
            ..ConnectRequest::default()
        }));
        let Some(Ask::Identify { context, .. }) = step.ask else {
            panic!("{step:?}");
        };
        let step = client.session.identified(context, Err(error));
        assert_eq!(outcome(&step), want);
        if let Outcome::Error(_) = want {
            let step = client.connect(ConnectRequest::default(), user("42"));
            assert_eq!(outcome(&step), Outcome::Replies, "a second try is allowed");
        }
    }
}

#[test]
fn a_full_account_refuses_with_an_error_and_a_reconnectable_close() {
    let mut client = Client::fresh(relay(&[]), Encoding::Json);
    let step = client.command(Request::Connect(ConnectRequest::default()));
    let step = client.admit(step, false);
    assert!(
        matches!(&step.effects[..], [
            Effect::Reply(Reply { result: Err(error), .. }),
            Effect::Close(disconnect),
        ] if error.code == 111 && error.temporary && disconnect.code == 3013),
        "{step:?}"
    );
    assert!(!client.session.is_connected());
}

#[test]
fn the_result_says_what_the_client_needs() {
    let mut client = Client::fresh(relay(&[]), Encoding::Json);
    let identity = Identity {
        expires_at: Some(NOW_SECONDS + 90),
        ..user("42")
    };
    let step = client.connect(ConnectRequest::default(), identity);
    let result = connect_result(&step);
    assert_eq!(&*result.client, "client-1");
    assert_eq!((result.expires, result.ttl), (true, 90));
    assert_eq!((result.ping, result.pong), (25, true));
    assert!(result.subs.is_empty());
}

#[test]
fn token_channels_and_the_personal_channel_come_once_each() {
    let mut config = relay(&[]);
    config.personal_channel = true;
    let identity = Identity {
        subscriptions: server_side(&["a", "b", "a", "#42"]),
        ..user("42")
    };
    let mut client = Client::fresh(config.clone(), Encoding::Json);
    let step = client.connect(ConnectRequest::default(), identity);
    let step = client.make(step);
    let names: Vec<_> = connect_result(&step)
        .subs
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "#42"]);
    let released = step
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Release { .. }));
    assert_eq!(released.count(), 3);

    let mut anonymous = Client::fresh(config, Encoding::Json);
    let step = anonymous.connect(ConnectRequest::default(), user(""));
    assert!(connect_result(&step).subs.is_empty());
}

#[test]
fn bad_token_channels_fail_the_connect() {
    let cases: [(&[&str], u32); 3] = [
        (&["nowhere:a"], 102),
        (&["é"], 107),
        (&["1", "2", "3", "4", "5", "6", "7", "8", "9"], 106),
    ];
    for (channels, code) in cases {
        let mut client = Client::fresh(relay(&[]), Encoding::Json);
        let identity = Identity {
            subscriptions: server_side(channels),
            ..user("42")
        };
        let step = client.connect(ConnectRequest::default(), identity);
        assert_eq!(outcome(&step), Outcome::Error(code), "{channels:?}");
        assert!(!client.session.is_connected());
    }
}

#[test]
fn one_failed_subscription_fails_the_connect_and_leaves_the_others_silently() {
    let mut client = Client::fresh(relay(&[]), Encoding::Json);
    let identity = Identity {
        subscriptions: server_side(&["a", "b", "c"]),
        ..user("42")
    };
    let step = client.connect(ConnectRequest::default(), identity);
    let step = client.make_with(step, |key, plan| match plan.channel.name() {
        "b" => Err(SubscribeError::Unavailable),
        _ => Ok(made(key)),
    });
    assert_eq!(outcome(&step), Outcome::Error(100));
    let left: Vec<_> = step
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Leave(left) => Some((left.channel.name(), left.announce)),
            _ => None,
        })
        .collect();
    // Their joins were never announced.
    assert_eq!(left, [("a", false), ("c", false)]);
    assert!(!client.session.is_connected());
    let step = client.connect(ConnectRequest::default(), user("42"));
    assert_eq!(outcome(&step), Outcome::Replies);
}

#[test]
fn positions_are_taken_over_only_where_recovery_is_on() {
    let always = Namespace {
        recovery: Feature::Always,
        ..namespace()
    };
    for (channel, recover, want) in [
        ("on:a", true, true),
        ("on:a", false, false),
        ("a", true, false),
    ] {
        let mut client = Client::fresh(relay(&[("on", always.clone())]), Encoding::Json);
        let identity = Identity {
            subscriptions: server_side(&[channel]),
            ..user("42")
        };
        let known = SubscribeRequest {
            recover,
            offset: 5,
            epoch: "e".to_owned(),
            ..SubscribeRequest::default()
        };
        let request = ConnectRequest {
            subs: vec![(channel.to_owned(), known), ("x".to_owned(), to("x"))],
            ..ConnectRequest::default()
        };
        let (plans, _) = asked(client.connect(request, identity));
        assert_eq!(plans.len(), 1, "clients cannot add channels");
        let want = want.then(|| (5, "e".to_owned()));
        assert_eq!(plans[0].recover, want, "{channel} {recover}");
    }
}

#[test]
fn overrides_of_the_token_win() {
    let overrides = Overrides {
        presence: Some(false),
        join_leave: Some(false),
        force_push_join_leave: Some(true),
        force_recovery: Some(true),
        force_positioning: Some(false),
    };
    let plan = Plan::new(scoped("a"), &namespace(), &overrides);
    assert_eq!((plan.presence, plan.announce), (false, false));
    assert!(plan.receive_join_leave && plan.recoverable && plan.positioned);
    assert!(plan.stream.is_some());
    let plan = Plan::new(scoped("a"), &bare(), &overrides);
    assert!(
        !plan.recoverable && plan.stream.is_none(),
        "no history, no stream"
    );
    let plan = Plan::new(scoped("a"), &namespace(), &Overrides::default());
    assert!(plan.presence && plan.announce);
    assert!(!plan.receive_join_leave && !plan.recoverable && plan.stream.is_none());
}

#[test]
fn compact_ids_by_encoding_and_client_name() {
    let cases = [
        (Encoding::Json, "js", true),
        (Encoding::Json, "", true),
        (Encoding::Protobuf, "js", false),
        (Encoding::Protobuf, "dart", false),
        (Encoding::Protobuf, "go", true),
        (Encoding::Protobuf, "python", true),
        (Encoding::Protobuf, "", true),
    ];
    for (encoding, name, want) in cases {
        let mut client = Client::fresh(relay(&[]), encoding);
        let request = ConnectRequest {
            name: name.to_owned(),
            ..ConnectRequest::default()
        };
        client.connect(request, user("42"));
        assert!(!client.plan(to("a")).compaction, "only who asks");
        let asks = SubscribeRequest {
            flag: FLAG_CHANNEL_COMPACTION,
            ..to("a")
        };
        assert_eq!(client.plan(asks).compaction, want, "{encoding:?} {name}");
    }
}
