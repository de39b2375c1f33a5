//! Every method of the HTTP server API, and how it reports errors.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::api::Api;
use sluice_e2e::client::Client;
use sluice_e2e::http;
use sluice_e2e::manifest::{API_KEY, Manifest, Namespace};
use sluice_e2e::sluice::Sluice;
use sluice_e2e::token;
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_millis(500);

async fn start() -> Result<(Sluice, Api)> {
    let manifest = Manifest {
        namespaces: vec![
            ("bare", Namespace::plain()),
            (
                "small",
                Namespace {
                    history: Some((2, 300)),
                    ..Namespace::full()
                },
            ),
        ],
        ..Manifest::full()
    };
    let sluice = Sluice::start(&manifest).await?;
    let api = Api(sluice.address);
    Ok((sluice, api))
}

async fn subscribed(sluice: &Sluice, user: &str, channel: &str) -> Result<(Client, String)> {
    let (mut client, connected) = Client::connect(sluice.address, &token::user(user)).await?;
    client
        .call("subscribe", json!({ "channel": channel }))
        .await?;
    Ok((
        client,
        connected["client"].as_str().unwrap_or_default().to_owned(),
    ))
}

#[tokio::test]
async fn the_key_is_required_as_header_or_parameter() -> Result<()> {
    let (sluice, api) = start().await?;
    for headers in [
        vec![],
        vec![("X-API-Key", "wrong")],
        vec![("Authorization", "Bearer x")],
    ] {
        assert_eq!(
            api.post("info", &headers, "{}").await?.status,
            401,
            "{headers:?}"
        );
    }
    assert_eq!(
        api.post("info", &[("X-API-Key", API_KEY)], "{}")
            .await?
            .status,
        200
    );
    let path = format!("/api/info?api_key={API_KEY}");
    let headers = [("Content-Type", "application/json")];
    assert_eq!(
        http::request(sluice.address, "POST", &path, &headers, b"{}")
            .await?
            .status,
        200
    );
    let key = [("X-API-Key", API_KEY)];
    assert_eq!(api.post("no_such_method", &key, "{}").await?.status, 404);
    assert_eq!(api.post("publish", &key, "{not json").await?.status, 400);
    Ok(())
}

#[tokio::test]
async fn without_a_key_in_the_manifest_the_api_is_closed() -> Result<()> {
    if std::env::var_os("ORACLE").is_some() {
        return Ok(()); // Centrifugo's key cannot be absent and safe.
    }
    let sluice = Sluice::start(&Manifest {
        server_api: false,
        ..Manifest::full()
    })
    .await?;
    for key in ["", API_KEY] {
        let answer = Api(sluice.address)
            .post("info", &[("X-API-Key", key)], "{}")
            .await?;
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    Ok(())
}

#[tokio::test]
async fn publish_reaches_subscribers_and_tells_the_position() -> Result<()> {
    let (sluice, api) = start().await?;
    let (mut client, _) = subscribed(&sluice, "u", "a").await?;
    let request = json!({ "channel": "a", "data": { "n": 1 }, "tags": { "kind": "x" } });
    let first = api.call("publish", request).await?;
    assert_eq!(first["offset"], 1, "{first}");
    assert!(
        first["epoch"].as_str().is_some_and(|e| !e.is_empty()),
        "{first}"
    );
    let push = client.push_of("pub").await?;
    assert_eq!(
        (&push["channel"], &push["pub"]["data"]),
        (&json!("a"), &json!({ "n": 1 }))
    );
    assert_eq!(
        (&push["pub"]["offset"], &push["pub"]["tags"]),
        (&json!(1), &json!({ "kind": "x" }))
    );
    assert_eq!(
        push["pub"].get("info"),
        None,
        "the server has no client info"
    );

    let second = api
        .call(
            "publish",
            json!({ "channel": "a", "b64data": "eyJuIjoyfQ==" }),
        )
        .await?;
    assert_eq!(
        (&second["offset"], &second["epoch"]),
        (&json!(2), &first["epoch"])
    );
    assert_eq!(
        client.push_of("pub").await?["pub"]["data"],
        json!({ "n": 2 })
    );

    let skipped = api
        .call(
            "publish",
            json!({ "channel": "a", "data": 3, "skip_history": true }),
        )
        .await?;
    assert_eq!(skipped.get("offset"), None, "{skipped}");
    assert_eq!(client.push_of("pub").await?["pub"]["data"], 3);
    assert_eq!(
        api.call("history", json!({ "channel": "a", "limit": 10 }))
            .await?["publications"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let bare = api
        .call("publish", json!({ "channel": "bare:a", "data": {} }))
        .await?;
    assert_eq!(bare.get("offset"), None, "{bare}");
    Ok(())
}

#[tokio::test]
async fn a_key_makes_a_publish_happen_once_and_a_version_keeps_old_ones_out() -> Result<()> {
    let (sluice, api) = start().await?;
    let (mut client, _) = subscribed(&sluice, "u", "a").await?;
    let request = json!({ "channel": "a", "data": "once", "idempotency_key": "k1" });
    let first = api.call("publish", request.clone()).await?;
    assert_eq!(api.call("publish", request).await?, first);
    for (version, data) in [(5, "v5"), (4, "v4"), (5, "v5 again"), (6, "v6")] {
        api.call(
            "publish",
            json!({ "channel": "a", "data": data, "version": version }),
        )
        .await?;
    }
    let request =
        json!({ "channel": "a", "data": "new epoch", "version": 1, "version_epoch": "e2" });
    api.call("publish", request).await?;
    for data in ["once", "v5", "v6", "new epoch"] {
        assert_eq!(client.push_of("pub").await?["pub"]["data"], data);
    }
    let more = client.pushes(QUIET).await?;
    assert!(more.iter().all(|p| p.get("pub").is_none()), "{more:?}");
    Ok(())
}

#[tokio::test]
async fn broadcast_answers_for_each_channel() -> Result<()> {
    let (sluice, api) = start().await?;
    let (mut a, _) = subscribed(&sluice, "u", "a").await?;
    let (mut b, _) = subscribed(&sluice, "u", "b").await?;
    let request = json!({ "channels": ["a", "unknown:x", "b"], "data": "all" });
    let responses = api.call("broadcast", request).await?["responses"].clone();
    assert_eq!(responses[0]["result"]["offset"], 1, "{responses}");
    assert_eq!(responses[1]["error"]["code"], 102, "{responses}");
    assert_eq!(responses[2]["result"]["offset"], 1, "{responses}");
    for client in [&mut a, &mut b] {
        assert_eq!(client.push_of("pub").await?["pub"]["data"], "all");
    }
    Ok(())
}

#[tokio::test]
async fn subscribe_and_unsubscribe_move_clients() -> Result<()> {
    let (sluice, api) = start().await?;
    let (mut client, connected) = Client::connect(sluice.address, &token::user("u")).await?;
    let (mut bystander, _) = Client::connect(sluice.address, &token::user("v")).await?;
    api.call("publish", json!({ "channel": "news", "data": 0 }))
        .await?;
    api.call(
        "subscribe",
        json!({ "user": "u", "channel": "news", "data": { "why": "api" } }),
    )
    .await?;
    let push = client.push_of("subscribe").await?;
    assert_eq!(push["channel"], "news");
    assert_eq!(push["subscribe"]["data"], json!({ "why": "api" }), "{push}");
    assert_eq!(push["subscribe"]["recoverable"], true, "{push}");
    assert_eq!(push["subscribe"]["offset"], 1, "{push}");
    api.call("publish", json!({ "channel": "news", "data": 1 }))
        .await?;
    assert_eq!(client.push_of("pub").await?["pub"]["data"], 1);
    let presence = api
        .call("presence_stats", json!({ "channel": "news" }))
        .await?;
    assert_eq!(
        (&presence["num_clients"], &presence["num_users"]),
        (&json!(1), &json!(1))
    );

    let id = &connected["client"];
    api.call(
        "unsubscribe",
        json!({ "user": "u", "channel": "news", "client": id }),
    )
    .await?;
    let push = client.push_of("unsubscribe").await?;
    assert_eq!(
        (&push["channel"], &push["unsubscribe"]["code"]),
        (&json!("news"), &json!(2000))
    );
    api.call("publish", json!({ "channel": "news", "data": 2 }))
        .await?;
    assert_eq!(
        client
            .pushes(QUIET)
            .await?
            .iter()
            .filter(|p| p.get("pub").is_some())
            .count(),
        0
    );
    assert_eq!(bystander.pushes(QUIET).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn unsubscribe_ends_what_the_client_asked_for_too() -> Result<()> {
    let (sluice, api) = start().await?;
    let (mut client, _) = subscribed(&sluice, "u", "a").await?;
    api.call("unsubscribe", json!({ "user": "u", "channel": "a" }))
        .await?;
    assert_eq!(
        client.push_of("unsubscribe").await?["unsubscribe"]["code"],
        2000
    );
    assert_eq!(
        client
            .error("publish", json!({ "channel": "a", "data": 1 }))
            .await?,
        103
    );
    client.call("subscribe", json!({ "channel": "a" })).await?;
    Ok(())
}

#[tokio::test]
async fn disconnect_closes_the_clients_named() -> Result<()> {
    let (sluice, api) = start().await?;
    let (mut all, _) = subscribed(&sluice, "u", "a").await?;
    let (mut spared, id) = subscribed(&sluice, "u", "a").await?;
    let (mut other, _) = subscribed(&sluice, "v", "a").await?;
    api.call("disconnect", json!({ "user": "u", "whitelist": [id] }))
        .await?;
    assert_eq!(all.closed(SOON).await?.code, 3503);
    let request =
        json!({ "user": "u", "client": id, "disconnect": { "code": 4321, "reason": "go away" } });
    spared.call("presence", json!({ "channel": "a" })).await?;
    api.call("disconnect", request).await?;
    let close = spared.closed(SOON).await?;
    assert_eq!((close.code, close.reason.as_str()), (4321, "go away"));
    other.call("presence", json!({ "channel": "a" })).await?;
    Ok(())
}

#[tokio::test]
async fn refresh_prolongs_or_ends_a_connection() -> Result<()> {
    let (sluice, api) = start().await?;
    let short = token::sign(&json!({ "sub": "u", "exp": token::unix_s(60) }));
    let (mut client, _) = Client::connect(sluice.address, &short).await?;
    api.call(
        "refresh",
        json!({ "user": "u", "expire_at": token::unix_s(900) }),
    )
    .await?;
    let push = client.push_of("refresh").await?;
    assert_eq!(push["refresh"]["expires"], true, "{push}");
    assert!(push["refresh"]["ttl"].as_u64().unwrap_or(0) > 800, "{push}");
    api.call("refresh", json!({ "user": "u", "expired": true }))
        .await?;
    assert_eq!(client.closed(SOON).await?.code, 3005);
    Ok(())
}

#[tokio::test]
async fn presence_names_every_client() -> Result<()> {
    let (sluice, api) = start().await?;
    let (_one, first) = subscribed(&sluice, "u", "a").await?;
    let (_two, _) = subscribed(&sluice, "u", "a").await?;
    let (_three, _) = subscribed(&sluice, "v", "a").await?;
    let presence = api.call("presence", json!({ "channel": "a" })).await?["presence"].clone();
    assert_eq!(presence.as_object().unwrap().len(), 3, "{presence}");
    assert_eq!(presence[&first], json!({ "user": "u", "client": first }));
    let stats = api
        .call("presence_stats", json!({ "channel": "a" }))
        .await?;
    assert_eq!(stats, json!({ "num_clients": 3, "num_users": 2 }));
    assert_eq!(
        api.error("presence", json!({ "channel": "bare:a" }))
            .await?,
        108
    );
    Ok(())
}

#[tokio::test]
async fn history_is_read_in_parts_and_removed() -> Result<()> {
    let (_sluice, api) = start().await?;
    for n in 1..=5 {
        api.call("publish", json!({ "channel": "a", "data": n }))
            .await?;
        api.call("publish", json!({ "channel": "small:a", "data": n }))
            .await?;
    }
    let data = |result: &Value| -> Vec<u64> {
        let list = result["publications"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.iter().filter_map(|p| p["data"].as_u64()).collect()
    };
    let top = api.call("history", json!({ "channel": "a" })).await?;
    assert_eq!((data(&top), &top["offset"]), (vec![], &json!(5)));
    let epoch = &top["epoch"];
    let cases = [
        (json!({ "channel": "a", "limit": -1 }), vec![1, 2, 3, 4, 5]),
        (json!({ "channel": "a", "limit": 2 }), vec![1, 2]),
        (
            json!({ "channel": "a", "limit": 2, "reverse": true }),
            vec![5, 4],
        ),
        (
            json!({ "channel": "a", "limit": -1, "since": { "offset": 3, "epoch": epoch } }),
            vec![4, 5],
        ),
        (
            json!({ "channel": "a", "limit": 2, "reverse": true, "since": { "offset": 4, "epoch": epoch } }),
            vec![3, 2],
        ),
        (json!({ "channel": "small:a", "limit": -1 }), vec![4, 5]),
    ];
    for (request, wanted) in cases {
        let result = api.call("history", request.clone()).await?;
        ensure!(data(&result) == wanted, "{request}: {result}");
    }
    let stale = json!({ "channel": "a", "limit": 1, "since": { "offset": 1, "epoch": "old" } });
    assert_eq!(api.error("history", stale).await?, 112);
    assert_eq!(
        api.error("history", json!({ "channel": "bare:a", "limit": 1 }))
            .await?,
        108
    );
    api.call("history_remove", json!({ "channel": "a" }))
        .await?;
    let after = api
        .call("history", json!({ "channel": "a", "limit": -1 }))
        .await?;
    assert_eq!(
        (data(&after), &after["offset"], &after["epoch"]),
        (vec![], &json!(5), epoch)
    );
    Ok(())
}

#[tokio::test]
async fn channels_and_info_tell_what_is_there() -> Result<()> {
    let (sluice, api) = start().await?;
    let (_a, _) = subscribed(&sluice, "u", "room-1").await?;
    let (mut b, _) = subscribed(&sluice, "v", "room-1").await?;
    b.call("subscribe", json!({ "channel": "other" })).await?;
    let channels = api.call("channels", json!({})).await?["channels"].clone();
    assert_eq!(
        channels,
        json!({ "room-1": { "num_clients": 2 }, "other": { "num_clients": 1 } })
    );
    let rooms = api.call("channels", json!({ "pattern": "room-*" })).await?["channels"].clone();
    assert_eq!(rooms, json!({ "room-1": { "num_clients": 2 } }));
    // Counts may be a few seconds old.
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut info = api.call("info", json!({})).await?;
    while info["nodes"][0]["num_subs"] != 3 && Instant::now() < deadline {
        sleep(Duration::from_millis(200)).await;
        info = api.call("info", json!({})).await?;
    }
    let node = &info["nodes"][0];
    assert_eq!(
        (&node["num_clients"], &node["num_users"]),
        (&json!(2), &json!(2)),
        "{info}"
    );
    assert_eq!(
        (&node["num_channels"], &node["num_subs"]),
        (&json!(2), &json!(3)),
        "{info}"
    );
    assert!(
        node["uid"].is_string() && node["name"].is_string() && node["version"].is_string(),
        "{info}"
    );
    Ok(())
}

#[tokio::test]
async fn batch_does_several_at_once() -> Result<()> {
    let (sluice, api) = start().await?;
    let (mut client, _) = subscribed(&sluice, "u", "a").await?;
    for parallel in [false, true] {
        let request = json!({ "parallel": parallel, "commands": [
            { "publish": { "channel": "a", "data": 1 } },
            { "publish": { "channel": "unknown:a", "data": 1 } },
            { "presence_stats": { "channel": "a" } },
        ]});
        let reply = api.reply("batch", request).await?;
        let replies = &reply["replies"];
        assert!(replies[0]["publish"]["offset"].is_u64(), "{reply}");
        assert_eq!(replies[1]["error"]["code"], 102, "{reply}");
        assert_eq!(replies[2]["presence_stats"]["num_clients"], 1, "{reply}");
    }
    assert_eq!(client.push_of("pub").await?["pub"]["offset"], 1);
    Ok(())
}

#[tokio::test]
async fn errors_are_codes_in_a_good_answer_or_statuses_on_request() -> Result<()> {
    let (_sluice, api) = start().await?;
    let cases = [
        (
            "publish",
            json!({ "channel": "unknown:a", "data": 1 }),
            102,
            404,
        ),
        ("publish", json!({ "channel": "", "data": 1 }), 107, 400),
        ("publish", json!({ "channel": "a" }), 107, 400),
        ("broadcast", json!({ "channels": [], "data": 1 }), 107, 400),
        ("presence", json!({ "channel": "bare:a" }), 108, 400),
        (
            "history",
            json!({ "channel": "a", "limit": 1, "since": { "offset": 1, "epoch": "x" } }),
            112,
            416,
        ),
        ("subscribe", json!({ "user": "u", "channel": "" }), 107, 400),
        (
            "unsubscribe",
            json!({ "user": "u", "channel": "unknown:a" }),
            102,
            404,
        ),
    ];
    for (method, request, code, status) in cases {
        let got = api.error(method, request.clone()).await?;
        ensure!(got == code, "{method} {request}: {got} instead of {code}");
        let headers = [
            ("X-API-Key", API_KEY),
            ("X-Centrifugo-Error-Mode", "transport"),
        ];
        let answer = api.post(method, &headers, &request.to_string()).await?;
        ensure!(
            answer.status == status,
            "{method} {request}: HTTP {} instead of {status}",
            answer.status
        );
    }
    Ok(())
}
