use super::*;

fn order(channel: Channel) -> Control {
    Control::Subscribe(Box::new(ServerSubscribe {
        channel,
        info: Payload::new(),
        data: "{\"d\":1}".into(),
        expires_at: None,
        recover: Some((3, "e".to_owned())),
        overrides: Overrides::default(),
    }))
}

#[test]
fn a_gap_ends_a_subscription_or_the_connection() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let gap = |name| Control::InsufficientState {
        channel: scoped(name),
    };
    client.subscribe("a");
    let step = client.control(gap("a"));
    assert!(
        matches!(
            &step.effects[..],
            [Effect::PushUnsubscribe { code: 2500, .. }, Effect::Leave(_)]
        ),
        "{step:?}"
    );
    assert_eq!(outcome(&client.control(gap("a"))), Outcome::Nothing);
    let step = client.control(order(scoped("s")));
    client.make(step);
    assert_eq!(outcome(&client.control(gap("s"))), Outcome::Close(3010));
}

#[test]
fn the_server_subscribes() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let step = client.control(order(scoped("s")));
    let step = client.make(step);
    assert!(
        matches!(&step.effects[..], [
            Effect::PushSubscribe { channel, data, .. },
            Effect::Release { .. },
            Effect::Join { .. },
        ] if *channel == scoped("s") && data == "{\"d\":1}"),
        "{step:?}"
    );
    assert_eq!(
        outcome(&client.control(order(scoped("s")))),
        Outcome::Nothing,
        "once"
    );
    assert_eq!(
        outcome(&client.control(order(scoped("nowhere:a")))),
        Outcome::Nothing
    );
    let foreign = Channel::new("other", "s2");
    assert_eq!(outcome(&client.control(order(foreign))), Outcome::Nothing);
    for channel in 0..7 {
        client.subscribe(&channel.to_string());
    }
    assert_eq!(
        outcome(&client.control(order(scoped("full")))),
        Outcome::Nothing
    );
}

#[test]
fn a_failed_server_subscribe_shows_the_client_nothing() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let step = client.control(order(scoped("s")));
    let step = client.make_with(step, |_, _| Err(SubscribeError::Unavailable));
    assert_eq!(outcome(&step), Outcome::Nothing);
    assert!(step.effects.is_empty() && client.session.end().is_empty());
}

#[test]
fn server_recovery_needs_a_recoverable_channel() {
    let always = Namespace {
        recovery: Feature::Always,
        ..namespace()
    };
    let mut client = Client::connected(relay(&[("on", always)]), user("42"));
    let (plans, _) = asked(client.control(order(scoped("on:a"))));
    assert_eq!(plans[0].recover, Some((3, "e".to_owned())));
    assert!(plans[0].server_side);
    let (plans, _) = asked(client.control(order(scoped("a"))));
    assert_eq!(plans[0].recover, None);
}

#[test]
fn the_server_unsubscribes_one_or_all() {
    let mut client = Client::connected(relay(&[]), user("42"));
    for channel in ["a", "b", "c"] {
        client.subscribe(channel);
    }
    let pushes = |step: &Step| {
        let codes = step.effects.iter().filter_map(|effect| match effect {
            Effect::PushUnsubscribe { code, .. } => Some(*code),
            _ => None,
        });
        codes.collect::<Vec<_>>()
    };
    let one = client.control(Control::Unsubscribe {
        channel: Some(scoped("b")),
    });
    assert_eq!(pushes(&one), [2000]);
    let again = client.control(Control::Unsubscribe {
        channel: Some(scoped("b")),
    });
    assert!(pushes(&again).is_empty());
    let all = client.control(Control::Unsubscribe { channel: None });
    assert_eq!(pushes(&all), [2000, 2000]);
    assert!(client.session.end().is_empty());
}

#[test]
fn the_server_refreshes_and_disconnects() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let step = client.control(Control::Refresh {
        expires_at: Some(NOW_SECONDS + 9),
        info: "{}".into(),
    });
    assert!(matches!(
        &step.effects[..],
        [Effect::PushRefresh {
            expires: true,
            ttl: 9
        }]
    ));
    let step = client.command(publish("a"));
    let Some(Ask::Publish(ask)) = step.ask else {
        panic!("{step:?}");
    };
    assert_eq!(ask.publication.info.unwrap().conn_info, "{}");
    let step = client.control(Control::Refresh {
        expires_at: None,
        info: Payload::new(),
    });
    assert!(matches!(
        &step.effects[..],
        [Effect::PushRefresh {
            expires: false,
            ttl: 0
        }]
    ));
    let step = client.control(Control::Disconnect(codes::DISCONNECT_FORCE));
    assert_eq!(outcome(&step), Outcome::Close(3503));

    let mut fresh = Client::fresh(relay(&[]), Encoding::Json);
    assert_eq!(
        outcome(&fresh.control(order(scoped("a")))),
        Outcome::Nothing
    );
    let step = fresh.control(Control::Disconnect(codes::DISCONNECT_FORCE));
    assert_eq!(outcome(&step), Outcome::Close(3503));
}
