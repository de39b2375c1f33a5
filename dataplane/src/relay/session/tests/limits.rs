use super::*;
use crate::store::{Published, StoreError};

fn rpc() -> Request {
    Request::Rpc {
        method: "m".to_owned(),
        data: Payload::new(),
    }
}

#[test]
fn messages_of_one_client() {
    let mut config = relay(&[]);
    config.limits.messages_per_second_per_client = Some(2);
    let mut client = Client::connected(config, user("42"));
    assert_eq!(client.outcome(publish("a")), Outcome::Asks);
    assert_eq!(client.outcome(rpc()), Outcome::Error(108));
    assert_eq!(client.outcome(publish("a")), Outcome::Error(111));
    assert_eq!(client.outcome(rpc()), Outcome::Error(111));
    assert_eq!(client.outcome(history("a")), Outcome::Asks, "not a message");
    client.now_ms += 500;
    assert_eq!(client.outcome(publish("a")), Outcome::Asks);
    assert_eq!(client.outcome(publish("a")), Outcome::Error(111));
}

#[test]
fn messages_of_one_account() {
    let mut config = relay(&[]);
    config.limits.messages_per_second_per_account = Some(2);
    let accounts = Arc::new(Accounts::default());
    let mut clients = ["acme", "acme", "other"].map(|account| {
        let mut client = Client::connected(config.clone(), user("42"));
        client.seat = accounts.enter(&account.into(), None);
        client
    });
    assert_eq!(clients[0].outcome(publish("a")), Outcome::Asks);
    assert_eq!(clients[1].outcome(publish("a")), Outcome::Asks);
    assert_eq!(clients[0].outcome(publish("a")), Outcome::Error(111));
    assert_eq!(clients[1].outcome(rpc()), Outcome::Error(111));
    assert_eq!(clients[2].outcome(publish("a")), Outcome::Asks);
}

#[test]
fn commands_of_one_client() {
    let mut config = relay(&[]);
    config.limits.commands_per_second_per_client = Some(3);
    let mut client = Client::connected(config, user("42"));
    assert_eq!(client.outcome(Request::Ping), Outcome::Replies);
    assert_eq!(client.outcome(Request::Ping), Outcome::Replies);
    let pong = client.command_id(0, Request::Empty);
    assert_eq!(outcome(&pong), Outcome::Nothing, "pongs are free");
    assert_eq!(client.outcome(Request::Ping), Outcome::Close(3013));
}

#[test]
fn overload_refuses_lists_and_nothing_else() {
    let mut client = Client::connected(relay(&[]), user("42"));
    client.shed_queries = true;
    let stats = Request::PresenceStats {
        channel: "a".to_owned(),
    };
    for request in [presence("a"), stats] {
        assert_eq!(client.outcome(request), Outcome::Error(111));
    }
    for request in [publish("a"), history("a"), Request::Subscribe(to("a"))] {
        assert_eq!(client.outcome(request), Outcome::Asks);
    }
}

#[test]
fn answers_of_stores() {
    let mut client = Client::connected(relay(&[]), user("42"));
    let unavailable = || StoreError::Unavailable("x".to_owned());
    let session = &mut client.session;
    let published = session.published(3, &Err(unavailable()));
    assert_eq!(outcome(&published), Outcome::Error(100));
    let ok = Ok(Published {
        position: None,
        suppressed: false,
    });
    assert_eq!(outcome(&session.published(3, &ok)), Outcome::Replies);
    let cases = [
        (StoreError::UnrecoverablePosition, 112),
        (unavailable(), 100),
    ];
    for (error, code) in cases {
        let step = session.queried(3, Err(error.into()));
        assert_eq!(outcome(&step), Outcome::Error(code));
    }
}

#[test]
fn a_history_read_is_capped() {
    for (limit, want) in [(0, 0), (5, 5), (-1, 300), (i32::MIN, 300), (i32::MAX, 300)] {
        let mut client = Client::connected(relay(&[]), user("42"));
        let step = client.command(Request::History(HistoryRequest {
            channel: "a".to_owned(),
            limit,
            ..HistoryRequest::default()
        }));
        let Some(Ask::Query {
            query: Query::History { options, .. },
            ..
        }) = step.ask
        else {
            panic!("{step:?}");
        };
        assert_eq!(options.limit, Some(want), "{limit}");
    }
}
