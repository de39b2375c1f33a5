//! Whatever clients, tokens and the server API say: a session touches channels of its own account only.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Input {
    Command(u32, Box<Request>),
    Control(Control),
    Expire,
    Pass(u64),
}

/// How the outside answers.
#[derive(Debug, Clone)]
struct Answers {
    account: Arc<str>,
    user: Arc<str>,
    channel: String,
    expires_at: Option<u64>,
    refused: Option<AuthError>,
    admitted: bool,
    failed: bool,
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "a",
        "b",
        "ns:a",
        "$a",
        "#42",
        "x#42,43",
        "nowhere:a",
        "é",
        "other\u{1f}a",
        "\u{1f}a",
        "../other/a",
        "123456789012345678901234567890123",
    ])
    .prop_map(str::to_owned)
}

fn account() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(vec!["", "acme", "other"]).prop_map(Arc::from)
}

fn time() -> impl Strategy<Value = Option<u64>> {
    prop::sample::select(vec![None, Some(0), Some(NOW_SECONDS + 1), Some(u64::MAX)])
}

fn subscribe_request() -> impl Strategy<Value = SubscribeRequest> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0_i64..4);
    let delta = prop::sample::select(vec!["", "fossil"]);
    (name(), any::<bool>(), flags, delta).prop_map(
        |(channel, token, (recover, on, join, flag), delta)| SubscribeRequest {
            channel,
            token: if token {
                "token".to_owned()
            } else {
                String::new()
            },
            recover,
            positioned: on,
            recoverable: on,
            join_leave: join,
            delta: delta.to_owned(),
            flag,
            ..SubscribeRequest::default()
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let connect = (any::<bool>(), subscribe_request()).prop_map(|(token, subscribe)| {
        Request::Connect(ConnectRequest {
            token: if token {
                "token".to_owned()
            } else {
                String::new()
            },
            subs: vec![(subscribe.channel.clone(), subscribe)],
            ..ConnectRequest::default()
        })
    });
    let token = || prop::sample::select(vec!["", "token"]).prop_map(str::to_owned);
    prop_oneof![
        1 => Just(Request::Empty),
        2 => connect,
        6 => subscribe_request().prop_map(Request::Subscribe),
        2 => name().prop_map(|channel| Request::Unsubscribe { channel }),
        3 => name().prop_map(|channel| publish(&channel)),
        2 => name().prop_map(|channel| presence(&channel)),
        2 => name().prop_map(|channel| Request::PresenceStats { channel }),
        2 => name().prop_map(|channel| history(&channel)),
        1 => token().prop_map(|token| Request::Refresh { token }),
        2 => (name(), token()).prop_map(|(channel, token)| Request::SubRefresh { channel, token }),
    ]
}

fn control() -> impl Strategy<Value = Control> {
    let channel = || {
        let plain = prop::sample::select(vec!["a", "b", "ns:a", "#42"]);
        (account(), plain).prop_map(|(account, name)| Channel::new(&account, name))
    };
    prop_oneof![
        Just(Control::Unsubscribe { channel: None }),
        channel().prop_map(|channel| Control::InsufficientState { channel }),
        time().prop_map(|expires_at| Control::Refresh {
            expires_at,
            info: "{}".into()
        }),
        (channel(), time()).prop_map(|(channel, expires_at)| {
            Control::Subscribe(Box::new(ServerSubscribe {
                channel,
                info: Payload::new(),
                data: Payload::new(),
                expires_at,
                recover: None,
                overrides: Overrides::default(),
            }))
        }),
    ]
}

fn input() -> impl Strategy<Value = (Input, Answers)> {
    let input = prop_oneof![
        10 => (0_u32..3, request()).prop_map(|(id, request)| Input::Command(id, Box::new(request))),
        2 => control().prop_map(Input::Control),
        1 => Just(Input::Expire),
        1 => (0_u64..200_000).prop_map(Input::Pass),
    ];
    let refused = prop::option::weighted(0.1, Just(AuthError::Expired));
    let user = prop::sample::select(vec!["", "42"]).prop_map(Arc::from);
    let answers = (
        account(),
        user,
        name(),
        time(),
        refused,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.1),
    );
    (input, answers).prop_map(
        |(input, (account, user, channel, expires_at, refused, admitted, failed))| {
            (
                input,
                Answers {
                    account,
                    user,
                    channel,
                    expires_at,
                    refused,
                    admitted,
                    failed,
                },
            )
        },
    )
}

/// What the relay is about to touch, for the account that it has verified.
fn check(session: &Session, step: &Step) {
    let account = session.identity().map(|(account, _)| account);
    let own = |channel: &Channel| {
        assert_eq!(Some(channel.account()), account.as_deref(), "{channel:?}");
    };
    match &step.ask {
        Some(Ask::Subscribe { plans, .. }) => plans.iter().for_each(|plan| own(&plan.channel)),
        Some(Ask::Publish(ask)) => own(&ask.channel),
        Some(Ask::Query { query, .. }) => match query {
            Query::Presence(channel)
            | Query::PresenceStats(channel)
            | Query::History { channel, .. } => own(channel),
        },
        Some(
            Ask::Admit { .. }
            | Ask::Identify { .. }
            | Ask::Refresh { .. }
            | Ask::VerifySubscription { .. },
        )
        | None => {}
    }
    for effect in &step.effects {
        match effect {
            Effect::Release { channel, .. } | Effect::Join { channel, .. } => own(channel),
            _ => {}
        }
    }
}

fn answer(client: &mut Client, ask: Ask, answers: &Answers) -> Step {
    let identity = || match &answers.refused {
        Some(error) => Err(error.clone()),
        None => Ok(Identity {
            account: Arc::clone(&answers.account),
            user: Arc::clone(&answers.user),
            expires_at: answers.expires_at,
            subscriptions: vec![ServerSubscription {
                channel: answers.channel.clone(),
                ..ServerSubscription::default()
            }],
            ..Identity::default()
        }),
    };
    let refused = answers.refused.clone();
    client.enter(|session, env| match ask {
        Ask::Identify { context, .. } => session.identified(context, identity()),
        Ask::Admit { context, .. } => session.admitted(*context, answers.admitted, env),
        Ask::Refresh { context, .. } => session.refreshed(context, identity(), env),
        Ask::VerifySubscription { context, .. } => {
            let token = SubscriptionIdentity {
                account: Arc::clone(&answers.account),
                user: Arc::clone(&answers.user),
                channel: answers.channel.clone(),
                expires_at: answers.expires_at,
                ..SubscriptionIdentity::default()
            };
            session.subscription_verified(context, refused.map_or(Ok(token), Err), env)
        }
        Ask::Subscribe { plans, context } => {
            let join = |_: &Plan| {
                if answers.failed {
                    Err(SubscribeError::Unavailable)
                } else {
                    Ok(made(0))
                }
            };
            let outcomes = plans.iter().map(join).collect();
            session.subscribed(context, plans, outcomes, env)
        }
        Ask::Publish(ask) => session.published(
            ask.id,
            &Err(crate::store::StoreError::UnrecoverablePosition),
        ),
        Ask::Query { id, .. } => session.queried(id, Ok(ResultBody::Ping)),
    })
}

proptest! {
    #[test]
    fn accounts_stay_apart(first in any::<bool>(), inputs in prop::collection::vec(input(), 1..60)) {
        let config = relay(&[("ns", namespace())]);
        let mut client = if first {
            Client::connected(config, user("42"))
        } else {
            Client::fresh(config, Encoding::Protobuf)
        };
        let before = client.session.identity();
        for (input, answers) in inputs {
            let mut step = match input {
                Input::Command(id, request) => client.command_id(id, *request),
                Input::Control(control) => client.control(control),
                Input::Expire => client.enter(|session, env| session.expire(env)),
                Input::Pass(ms) => {
                    client.now_ms += ms;
                    client.enter(|session, env| session.expiry_due_ms(env));
                    Step::none()
                }
            };
            check(&client.session, &step);
            while let Some(ask) = step.ask.take() {
                step = answer(&mut client, ask, &answers);
                check(&client.session, &step);
            }
        }
        if before.is_some() {
            prop_assert_eq!(client.session.identity(), before, "a connection never changes hands");
        }
        let account = client.session.identity().map(|(account, _)| account);
        for left in client.session.end() {
            prop_assert_eq!(Some(left.channel.account()), account.as_deref());
        }
    }
}
