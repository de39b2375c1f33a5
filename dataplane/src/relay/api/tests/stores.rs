//! Publishing, history, presence, channels and info.

use super::*;
use crate::relay::channel::Channel;
use crate::relay::mailbox::Item;
use crate::relay::protocol::ClientInfo;
use crate::relay::worker::Order;

#[tokio::test]
async fn publish_checks_before_it_publishes() {
    let shared = shared();
    let cases = [
        (json!({"data": 1}), bad_request()),
        (json!({"channel": "", "data": 1}), bad_request()),
        (json!({"channel": "a"}), bad_request()),
        (json!({"channel": "a", "b64data": "%"}), bad_request()),
        (json!({"channel": "a b\u{7f}", "data": 1}), bad_request()),
        (
            json!({"channel": "x".repeat(256), "data": 1}),
            bad_request(),
        ),
        (
            json!({"channel": "no:a", "data": 1}),
            error(102, "unknown channel"),
        ),
        (
            json!({"channel": "a", "data": 1, "idempotency_key": "k".repeat(129)}),
            bad_request(),
        ),
        (
            json!({"channel": "a", "data": 1, "version_epoch": "k".repeat(129)}),
            bad_request(),
        ),
        (
            json!({"channel": "a", "data": 1, "account": "x\u{1f}y"}),
            bad_request(),
        ),
        (
            json!({"channel": "a", "data": 1, "account": null, "tags": null, "delta": true}),
            json!({"result": {}}),
        ),
        (json!({"channel": "a", "data": null}), json!({"result": {}})),
        (
            json!({"channel": "a", "b64data": "AAE="}),
            json!({"result": {}}),
        ),
    ];
    for (request, answer) in cases {
        assert_eq!(
            call(&shared, "publish", request.clone()).await,
            answer,
            "{request}"
        );
    }
}

#[tokio::test]
async fn history_gives_back_what_was_published() {
    let shared = shared();
    let first = r#"{"channel":"full:a","data":{ "b" : 1.0,"a":"\u00e9" },"tags":{"t":"1"}}"#;
    let published: Value =
        serde_json::from_str(&call_text(&shared, "publish", first).await).expect("JSON");
    let epoch = published["result"]["epoch"]
        .as_str()
        .expect("an epoch")
        .to_owned();
    assert_eq!(published["result"]["offset"], 1);
    call_text(&shared, "publish", r#"{"channel":"full:a","data":null}"#).await;
    call_text(
        &shared,
        "publish",
        r#"{"channel":"full:a","b64data":"AP8="}"#,
    )
    .await;
    let skipped = call(
        &shared,
        "publish",
        json!({"channel": "full:a", "data": 4, "skip_history": true}),
    )
    .await;
    assert_eq!(skipped, json!({"result": {}}));

    let all = call_text(&shared, "history", r#"{"channel":"full:a","limit":-1}"#).await;
    let publications = r#"{"data":{ "b" : 1.0,"a":"\u00e9" },"offset":1,"tags":{"t":"1"}},{"data":null,"offset":2},{"b64data":"AP8=","offset":3}"#;
    assert_eq!(
        all,
        format!(r#"{{"result":{{"publications":[{publications}],"epoch":"{epoch}","offset":3}}}}"#)
    );

    let position = call(&shared, "history", json!({"channel": "full:a"})).await;
    assert_eq!(
        position,
        json!({"result": {"publications": [], "epoch": epoch, "offset": 3}})
    );
    let offsets = async |request: Value| {
        let history = call(&shared, "history", request).await;
        let publications = history["result"]["publications"]
            .as_array()
            .expect("an array")
            .clone();
        publications
            .iter()
            .map(|publication| publication["offset"].as_u64().expect("an offset"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        offsets(json!({"channel": "full:a", "limit": 2, "reverse": true})).await,
        [3, 2]
    );
    assert_eq!(
        offsets(json!({"channel": "full:a", "limit": -1, "since": {"offset": 1, "epoch": epoch}}))
            .await,
        [2, 3]
    );
    let other = json!({"channel": "full:a", "limit": 1, "since": {"offset": 1, "epoch": "other"}});
    assert_eq!(
        call(&shared, "history", other).await,
        error(112, "unrecoverable position")
    );
    let before_all = json!({"channel": "full:a", "limit": 1, "reverse": true, "since": {"offset": 0, "epoch": epoch}});
    assert_eq!(call(&shared, "history", before_all).await, bad_request());

    assert_eq!(
        call(&shared, "history_remove", json!({"channel": "full:a"})).await,
        json!({"result": {}})
    );
    assert_eq!(
        offsets(json!({"channel": "full:a", "limit": -1})).await,
        [0; 0]
    );
}

#[tokio::test]
async fn line_breaks_between_tokens_become_blanks() {
    let shared = shared();
    call_text(
        &shared,
        "publish",
        "{\"channel\":\"full:a\",\"data\":{\r\n\"a\":\"\\n\"\n}}",
    )
    .await;
    let history = call_text(&shared, "history", r#"{"channel":"full:a","limit":1}"#).await;
    assert!(history.contains(r#""data":{  "a":"\n" }"#), "{history}");
}

#[tokio::test]
async fn idempotency_and_versions_suppress() {
    let shared = shared();
    let keyed = json!({"channel": "full:a", "data": 1, "idempotency_key": "k"});
    let first = call(&shared, "publish", keyed.clone()).await;
    assert_eq!(call(&shared, "publish", keyed).await, first);
    let version = |version: u64| json!({"channel": "full:v", "data": version, "version": version, "version_epoch": "e"});
    assert_eq!(
        call(&shared, "publish", version(5)).await["result"]["offset"],
        1
    );
    assert_eq!(
        call(&shared, "publish", version(4)).await["result"]["offset"],
        1
    );
    assert_eq!(
        call(&shared, "publish", version(6)).await["result"]["offset"],
        2
    );
}

#[tokio::test]
async fn accounts_do_not_meet() {
    let shared = shared();
    call(
        &shared,
        "publish",
        json!({"channel": "full:a", "data": 1, "account": "acme"}),
    )
    .await;
    let top =
        async |request: Value| call(&shared, "history", request).await["result"]["offset"].clone();
    assert_eq!(
        top(json!({"channel": "full:a", "account": "acme"})).await,
        1
    );
    assert_eq!(top(json!({"channel": "full:a", "account": ""})).await, 0);
    assert_eq!(
        top(json!({"channel": "full:a", "account": "other"})).await,
        0
    );

    for (account, name) in [("acme", "full:a"), ("acme", "chat"), ("", "full:a")] {
        shared
            .router()
            .join(0, &Channel::new(account, name), shared.broker())
            .await
            .expect("joined");
    }
    shared
        .router()
        .join(1, &Channel::new("acme", "full:a"), shared.broker())
        .await
        .expect("joined");
    let channels = call(&shared, "channels", json!({"account": "acme"})).await;
    let both =
        json!({"result": {"channels": {"full:a": {"num_clients": 2}, "chat": {"num_clients": 1}}}});
    assert_eq!(channels, both);
    let channels = call(&shared, "channels", json!({"pattern": "f*"})).await;
    assert_eq!(
        channels,
        json!({"result": {"channels": {"full:a": {"num_clients": 1}}}})
    );
    assert_eq!(
        call(&shared, "channels", json!({"pattern": "["})).await,
        bad_request()
    );
}

#[tokio::test]
async fn broadcast_answers_channel_by_channel() {
    let shared = shared();
    assert_eq!(
        call(&shared, "broadcast", json!({"data": 1})).await,
        bad_request()
    );
    assert_eq!(
        call(&shared, "broadcast", json!({"channels": [], "data": 1})).await,
        bad_request()
    );
    assert_eq!(
        call(
            &shared,
            "broadcast",
            json!({"channels": ["a"], "b64data": "%"})
        )
        .await,
        bad_request()
    );
    let answer = call(
        &shared,
        "broadcast",
        json!({"channels": ["a", "", "no:a", "full:a"], "data": 1}),
    )
    .await;
    let responses = answer["result"]["responses"].as_array().expect("an array");
    assert_eq!(
        responses[..3],
        [
            json!({"result": {}}),
            bad_request(),
            error(102, "unknown channel")
        ]
    );
    assert_eq!(responses[3]["result"]["offset"], 1);
    let empty = call(&shared, "broadcast", json!({"channels": ["a"]})).await;
    assert_eq!(empty, json!({"result": {"responses": [bad_request()]}}));
}

#[tokio::test]
async fn presence_is_keyed_by_client() {
    let shared = shared();
    for method in ["presence", "presence_stats", "history", "history_remove"] {
        assert_eq!(
            call(&shared, method, json!({})).await,
            bad_request(),
            "{method}"
        );
        assert_eq!(
            call(&shared, method, json!({"channel": "a"})).await,
            error(108, "not available"),
            "{method}"
        );
        assert_eq!(
            call(&shared, method, json!({"channel": "no:a"})).await,
            error(102, "unknown channel"),
            "{method}"
        );
    }
    let presence: &dyn Presence = shared.presence();
    presence
        .renew(shared.holder(), Duration::from_secs(60))
        .await
        .expect("a lease");
    let channel = Channel::new("", "full:p");
    let info = |client: &str, conn_info: &'static [u8]| {
        let conn_info = Bytes::from_static(conn_info);
        Arc::new(ClientInfo {
            user: "u".into(),
            client: client.into(),
            conn_info,
            chan_info: Bytes::new(),
        })
    };
    presence
        .join(shared.holder(), &channel, info("c1", br#"{"n":1}"#))
        .await
        .expect("joined");
    presence
        .join(shared.holder(), &channel, info("c2", b"\x00"))
        .await
        .expect("joined");
    let clients = json!({
        "c1": {"user": "u", "client": "c1", "conn_info": {"n": 1}},
        "c2": {"user": "u", "client": "c2", "b64conn_info": "AA=="},
    });
    let answer = call(&shared, "presence", json!({"channel": "full:p"})).await;
    assert_eq!(answer, json!({"result": {"presence": clients}}));
    let stats = call(&shared, "presence_stats", json!({"channel": "full:p"})).await;
    assert_eq!(stats, json!({"result": {"num_clients": 2, "num_users": 1}}));
    let empty = call(&shared, "presence", json!({"channel": "full:q"})).await;
    assert_eq!(empty, json!({"result": {"presence": {}}}));
}

#[tokio::test]
async fn info_counts_users_over_workers() {
    let shared = shared();
    shared
        .router()
        .join(0, &Channel::new("", "a"), shared.broker())
        .await
        .expect("joined");
    let workers = async {
        for (worker, users) in [
            (0, vec![("", "u1"), ("", "u2")]),
            (1, vec![("", "u2"), ("acme", "u2")]),
        ] {
            for item in shared.router().mailboxes()[worker].take().await {
                if let Item::Order(Order::Users(answer)) = item {
                    let users = users
                        .iter()
                        .map(|(account, user)| (Arc::from(*account), Arc::from(*user)))
                        .collect();
                    answer
                        .try_send(users)
                        .expect("room for every worker's answer");
                }
            }
        }
    };
    let (answer, ()) = tokio::join!(call(&shared, "info", json!({})), workers);
    let node = &answer["result"]["nodes"][0];
    assert_eq!(node["uid"], "node-1");
    assert_eq!(node["name"], "edge");
    assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&node["num_users"], &node["num_clients"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(
        (&node["num_channels"], &node["num_subs"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(answer["result"]["nodes"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(start_paused = true)]
async fn silent_workers_do_not_hold_up_info() {
    assert_eq!(
        call(&shared(), "info", json!({})).await["result"]["nodes"][0]["num_users"],
        0
    );
}
