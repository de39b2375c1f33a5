use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Anonymous,
    User,
    /// Anonymous, but in the channel by its token.
    Subscribed,
}

/// Whether `who` may, for operations other than subscribe.
fn may(allowed: Allowed, who: Who) -> bool {
    match allowed {
        Allowed::Nobody => false,
        Allowed::Subscriber => who == Who::Subscribed,
        Allowed::Authenticated => who == Who::User,
        Allowed::Anyone => true,
    }
}

fn client(who: Who, namespace: Namespace) -> Client {
    let name = if who == Who::User { "42" } else { "" };
    let subscriptions = (who == Who::Subscribed).then(|| ServerSubscription {
        channel: "ns:a".to_owned(),
        ..ServerSubscription::default()
    });
    let identity = Identity {
        subscriptions: subscriptions.into_iter().collect(),
        ..user(name)
    };
    Client::connected(relay(&[("ns", namespace)]), identity)
}

#[test]
fn who_may_do_what() {
    use Allowed::{Anyone, Authenticated, Nobody, Subscriber};
    for allowed in [Nobody, Subscriber, Authenticated, Anyone] {
        for who in [Who::Anonymous, Who::User, Who::Subscribed] {
            let expected = |may: bool| {
                if may {
                    Outcome::Asks
                } else {
                    Outcome::Error(103)
                }
            };
            let want = expected(may(allowed, who));
            let case = format!("{allowed:?} {who:?}");
            let publish_to = Namespace {
                publish: allowed,
                ..namespace()
            };
            assert_eq!(
                client(who, publish_to).outcome(publish("ns:a")),
                want,
                "{case}"
            );
            let ask_presence = Namespace {
                ask_presence: allowed,
                ..namespace()
            };
            let mut asker = client(who, ask_presence);
            assert_eq!(asker.outcome(presence("ns:a")), want, "{case}");
            let stats = Request::PresenceStats {
                channel: "ns:a".to_owned(),
            };
            assert_eq!(asker.outcome(stats), want, "{case}");
            let ask_history = Namespace {
                ask_history: allowed,
                ..namespace()
            };
            assert_eq!(
                client(who, ask_history).outcome(history("ns:a")),
                want,
                "{case}"
            );

            let subscribe = Namespace {
                subscribe: allowed,
                ..namespace()
            };
            // `Subscriber` here means: with a token only.
            let want = expected(allowed != Subscriber && may(allowed, who));
            let got = client(who, subscribe).outcome(Request::Subscribe(to("ns:b")));
            assert_eq!(got, want, "{case}");
        }
    }
}

#[test]
fn names_that_need_more_than_the_namespace() {
    let cases = [
        ("$a", "42", Outcome::Error(103)),
        ("$ns:a", "42", Outcome::Error(103)),
        ("ns:x#42", "42", Outcome::Asks),
        ("ns:x#42,43", "43", Outcome::Asks),
        ("ns:x#42,43", "44", Outcome::Error(103)),
        ("ns:x#42,43", "4", Outcome::Error(103)),
        ("ns:x#42,43", "42,43", Outcome::Error(103)),
        ("ns:x#", "", Outcome::Error(103)),
        ("ns:x#,42", "", Outcome::Error(103)),
        ("#42", "42", Outcome::Asks),
        ("nowhere:a", "42", Outcome::Error(102)),
        ("$nowhere:a", "42", Outcome::Error(102)),
    ];
    for (channel, name, want) in cases {
        let mut client = Client::connected(relay(&[("ns", namespace())]), user(name));
        let got = client.outcome(Request::Subscribe(to(channel)));
        assert_eq!(got, want, "{channel} {name}");
    }
}

#[test]
fn bad_names_for_every_command() {
    let long = "x".repeat(33);
    let cases = [
        ("", Outcome::Close(3501)),
        (long.as_str(), Outcome::Error(107)),
        ("a\u{1f}b", Outcome::Error(107)),
        ("straße", Outcome::Error(107)),
        ("nowhere:a", Outcome::Error(102)),
    ];
    for (channel, want) in cases {
        let name = channel.to_owned();
        let requests = [
            Request::Subscribe(to(channel)),
            publish(channel),
            presence(channel),
            Request::PresenceStats {
                channel: name.clone(),
            },
            history(channel),
            Request::SubRefresh {
                channel: name.clone(),
                token: "token".to_owned(),
            },
        ];
        for request in requests {
            let mut client = Client::connected(relay(&[]), user("42"));
            let case = format!("{request:?}");
            assert_eq!(client.outcome(request), want, "{case}");
        }
        // One is not in an impossible channel, which is what was asked for.
        let mut client = Client::connected(relay(&[]), user("42"));
        let want = if name.is_empty() {
            want
        } else {
            Outcome::Replies
        };
        assert_eq!(client.outcome(Request::Unsubscribe { channel: name }), want);
    }
}

#[test]
fn what_the_namespace_does_not_keep_is_not_available() {
    let mut client = Client::connected(relay(&[("bare", bare())]), user("42"));
    let stats = Request::PresenceStats {
        channel: "bare:a".to_owned(),
    };
    for request in [presence("bare:a"), stats, history("bare:a")] {
        assert_eq!(client.outcome(request), Outcome::Error(108));
    }
}

#[test]
fn other_commands_without_a_handler() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let rpc = Request::Rpc {
        method: "m".to_owned(),
        data: Payload::new(),
    };
    assert_eq!(client.outcome(rpc), Outcome::Error(108));
    let send = Request::Send {
        data: Payload::new(),
    };
    assert_eq!(outcome(&client.command_id(0, send)), Outcome::Close(3508));
    let nothing = Request::Publish {
        channel: "a".to_owned(),
        data: Payload::new(),
    };
    assert_eq!(client.outcome(nothing), Outcome::Close(3501));
}
