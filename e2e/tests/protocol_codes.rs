//! Every error and disconnect code is used where the protocol says, over the JSON protocol on a real socket.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::client::{Client, Close};
use sluice_e2e::manifest::{Manifest, Namespace};
use sluice_e2e::sluice::Sluice;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::token;

const SOON: Duration = Duration::from_secs(20);

fn manifest() -> Manifest {
    Manifest {
        namespaces: vec![
            ("closed", Namespace::closed()),
            (
                "token",
                Namespace {
                    subscribe: "Token",
                    ..Namespace::full()
                },
            ),
            (
                "bare",
                Namespace {
                    ask_presence: "Subscriber",
                    ask_history: "Subscriber",
                    ..Namespace::plain()
                },
            ),
            (
                "deaf",
                Namespace {
                    publish: "Nobody",
                    ask_presence: "Nobody",
                    ask_history: "Nobody",
                    ..Namespace::full()
                },
            ),
            (
                "asked",
                Namespace {
                    recovery: "OnRequest",
                    join_leave: "OnRequest",
                    ..Namespace::full()
                },
            ),
        ],
        ..Manifest::full()
    }
}

/// Sends raw frames after the upgrade and returns how the server closed.
async fn closed_after(sluice: &Sluice, frames: &[&str]) -> Result<u16> {
    let mut client = Client::open(sluice.address).await?;
    for frame in frames {
        client.send_text(*frame).await?;
    }
    Ok(client.closed(SOON).await?.code)
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_is_closed_with_bad_request() -> Result<()> {
    let sluice = Sluice::start(&manifest()).await?;
    let connect = json!({ "id": 1, "connect": { "token": token::user("u") } }).to_string();
    let cases: [(&str, Vec<&str>); 10] = [
        (
            "first command is no connect",
            vec![r#"{"id":1,"subscribe":{"channel":"a"}}"#],
        ),
        ("second connect", vec![&connect, &connect]),
        ("empty frame", vec![""]),
        ("empty frame later", vec![&connect, ""]),
        ("no JSON", vec!["hello"]),
        ("JSON of another shape", vec!["[1]"]),
        ("no token", vec![r#"{"id":1,"connect":{}}"#]),
        ("pong nobody asked for", vec![&connect, "{}"]),
        (
            "command without id",
            vec![&connect, r#"{"subscribe":{"channel":"a"}}"#],
        ),
        ("cut JSON", vec![&connect, r#"{"id":2,"subscribe":{"#]),
    ];
    for (case, frames) in cases {
        let code = closed_after(&sluice, &frames).await?;
        ensure!(code == 3501, "{case}: {code}");
    }
    Ok(())
}

#[tokio::test]
async fn bad_tokens_are_terminal_and_expired_ones_are_not() -> Result<()> {
    let sluice = Sluice::start(&manifest()).await?;
    let connect = |token: &str| json!({ "id": 1, "connect": { "token": token } }).to_string();
    for (case, bad) in [
        (
            "other secret",
            token::sign_with(&json!({ "sub": "u" }), "other"),
        ),
        ("no token at all", "abc".to_owned()),
        (
            "unsigned",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.".to_owned(),
        ),
        ("claims of another type", token::sign(&json!({ "sub": 5 }))),
    ] {
        let code = closed_after(&sluice, &[&connect(&bad)]).await?;
        ensure!(code == 3500, "{case}: {code}");
    }
    let mut client = Client::open(sluice.address).await?;
    let expired = token::sign(&json!({ "sub": "u", "exp": token::unix_s(-10) }));
    assert_eq!(
        client.error("connect", json!({ "token": expired })).await?,
        109
    );
    // The SDK asks for a fresh token and tries again on a new socket.
    let a_while = Duration::from_secs(5);
    assert!(client.closed(a_while).await.is_err() || client.closed(SOON).await?.code < 3500);
    Ok(())
}

#[tokio::test]
async fn a_silent_client_is_stale_after_ten_seconds() -> Result<()> {
    kept_in_one_run(silence).await
}

async fn silence() -> Result<Promises> {
    let sluice = Sluice::start(&manifest()).await?;
    let began = Instant::now();
    let mut client = Client::open(sluice.address).await?;
    assert_eq!(client.closed(SOON * 2).await?.code, 3502);
    let closed = began.elapsed();
    ensure!(closed > Duration::from_secs(7), "closed after {closed:?}");
    Ok(Promises::new().expect(
        closed < Duration::from_secs(14),
        format!("closed after {closed:?}"),
    ))
}

#[tokio::test]
async fn a_client_that_owes_a_pong_is_closed() -> Result<()> {
    kept_in_one_run(an_owed_pong).await
}

async fn an_owed_pong() -> Result<Promises> {
    let sluice = Sluice::start(&Manifest {
        heartbeat_s: (2, 1),
        ..manifest()
    })
    .await?;
    let (mut mute, result) = Client::connect(sluice.address, &token::user("u")).await?;
    assert_eq!(
        (&result["ping"], &result["pong"]),
        (&json!(2), &json!(true))
    );
    mute.pongs = false;
    let (mut polite, _) = Client::connect(sluice.address, &token::user("v")).await?;
    let began = Instant::now();
    let mute = async {
        let close = mute.closed(SOON).await?;
        Ok::<_, anyhow::Error>((close, began.elapsed()))
    };
    let (close, pushes) = tokio::join!(mute, polite.pushes(Duration::from_secs(6)));
    let (close, closed) = close?;
    assert_eq!(close.code, 3012);
    // Whoever stands still for a second owes one as well.
    let stays = pushes.is_ok();
    assert_eq!(pushes.unwrap_or_default(), Vec::<Value>::new());
    let promises = Promises::new()
        .expect(
            closed < Duration::from_secs(8),
            format!("closed after {closed:?}"),
        )
        .expect(
            stays && polite.pings >= 2,
            format!("the other one stays, after {} pings", polite.pings),
        );
    Ok(promises)
}

#[tokio::test]
async fn subscribe_errors() -> Result<()> {
    let sluice = Sluice::start(&manifest().limit("channelsPerClient", json!(4))).await?;
    let mut client = sluice.client(&token::user("u")).await?;
    client.call("subscribe", json!({ "channel": "a" })).await?;
    let expired =
        token::sign(&json!({ "sub": "u", "channel": "token:a", "exp": token::unix_s(-10) }));
    let cases = [
        (102, json!({ "channel": "unknown:a" })),
        (103, json!({ "channel": "closed:a" })),
        (103, json!({ "channel": "token:a" })),
        (103, json!({ "channel": "token:a", "token": "nonsense" })),
        (103, json!({ "channel": "#other" })),
        (103, json!({ "channel": "talk#x,y" })),
        (105, json!({ "channel": "a" })),
        (107, json!({ "channel": "x".repeat(256) })),
        (107, json!({ "channel": "gr\u{fc}n" })),
        (109, json!({ "channel": "token:a", "token": expired })),
        (
            112,
            json!({ "channel": "b", "recover": true, "offset": 3, "epoch": "old", "flag": 2 }),
        ),
    ];
    for (code, request) in cases {
        let got = client.error("subscribe", request.clone()).await?;
        ensure!(got == code, "{request}: {got} instead of {code}");
    }
    for channel in ["b", "talk#t,u", "#u"] {
        client
            .call("subscribe", json!({ "channel": channel }))
            .await?;
    }
    assert_eq!(
        client
            .error("subscribe", json!({ "channel": "one-too-many" }))
            .await?,
        106
    );
    Ok(())
}

#[tokio::test]
async fn subscription_tokens_open_channels_and_foreign_ones_close_the_client() -> Result<()> {
    let sluice = Sluice::start(&manifest()).await?;
    let mut client = sluice.client(&token::user("u")).await?;
    let own = token::subscription("u", "token:a");
    client
        .call("subscribe", json!({ "channel": "token:a", "token": own }))
        .await?;
    let foreign = [
        token::subscription("u", "token:b"),
        token::subscription("v", "token:c"),
    ];
    for token in foreign {
        let mut client = sluice.client(&token::user("u")).await?;
        client
            .send("subscribe", json!({ "channel": "token:c", "token": token }))
            .await?;
        assert_eq!(client.closed(SOON).await?.code, 3500);
    }
    Ok(())
}

#[tokio::test]
async fn errors_of_other_commands() -> Result<()> {
    let sluice = Sluice::start(&manifest()).await?;
    let mut client = sluice.client(&token::user("u")).await?;
    for channel in ["a", "bare:a", "deaf:a"] {
        client
            .call("subscribe", json!({ "channel": channel }))
            .await?;
    }
    let publish = |channel: &str| json!({ "channel": channel, "data": {} });
    let about = |channel: &str| json!({ "channel": channel });
    let cases = [
        ("publish", 102, publish("unknown:a")),
        ("publish", 103, publish("not-subscribed")),
        ("publish", 103, publish("deaf:a")),
        ("publish", 103, publish("closed:a")),
        ("presence", 102, about("unknown:a")),
        ("presence", 103, about("not-subscribed")),
        ("presence", 103, about("deaf:a")),
        ("presence", 108, about("bare:a")),
        ("presence_stats", 103, about("deaf:a")),
        ("presence_stats", 108, about("bare:a")),
        ("history", 102, about("unknown:a")),
        ("history", 103, about("not-subscribed")),
        ("history", 103, about("deaf:a")),
        ("history", 108, about("bare:a")),
        (
            "history",
            112,
            json!({ "channel": "a", "limit": 5, "since": { "offset": 1, "epoch": "old" } }),
        ),
        ("rpc", 108, json!({ "method": "anything", "data": {} })),
    ];
    for (method, code, request) in cases {
        let got = client.error(method, request.clone()).await?;
        ensure!(got == code, "{method} {request}: {got} instead of {code}");
    }
    client.call("publish", publish("a")).await?;
    client
        .call("unsubscribe", about("never-subscribed"))
        .await?;
    // Nobody handles it, and there is no reply to say so in.
    client.send_text(r#"{"send":{"data":{}}}"#).await?;
    assert_eq!(client.closed(SOON).await?.code, 3508);
    Ok(())
}

#[tokio::test]
async fn connections_expire_unless_refreshed() -> Result<()> {
    let sluice = Sluice::start(&Manifest {
        expiry_grace_s: 1,
        ..manifest()
    })
    .await?;
    let short = |user: &str| token::sign(&json!({ "sub": user, "exp": token::unix_s(3) }));
    let (mut left, result) = Client::connect(sluice.address, &short("u")).await?;
    assert_eq!(result["expires"], true);
    assert!(
        (1..=3).contains(&result["ttl"].as_u64().unwrap()),
        "{result}"
    );
    let (mut kept, _) = Client::connect(sluice.address, &short("u")).await?;
    let (mut other, _) = Client::connect(sluice.address, &short("u")).await?;
    let later = token::sign(&json!({ "sub": "u", "exp": token::unix_s(600) }));
    let refreshed = kept.call("refresh", json!({ "token": later })).await?;
    assert_eq!(refreshed["expires"], true, "{refreshed}");
    assert!(refreshed["ttl"].as_u64().unwrap() > 500, "{refreshed}");
    other
        .send("refresh", json!({ "token": token::user("v") }))
        .await?;
    assert_eq!(other.closed(SOON).await?.code, 3500);
    assert_eq!(left.closed(SOON).await?.code, 3005);
    kept.call("subscribe", json!({ "channel": "still-here" }))
        .await?;
    Ok(())
}

#[tokio::test]
async fn refresh_tokens_are_checked_like_others() -> Result<()> {
    let sluice = Sluice::start(&manifest()).await?;
    let until = |seconds: i64| token::sign(&json!({ "sub": "u", "exp": token::unix_s(seconds) }));
    for (token, code) in [(until(-5), 3005), ("nonsense".to_owned(), 3500)] {
        let mut client = sluice.client(&until(60)).await?;
        client.send("refresh", json!({ "token": token })).await?;
        assert_eq!(client.closed(SOON).await?.code, code);
    }
    let of_channel = |channel: &str, seconds: i64| {
        token::sign(&json!({ "sub": "u", "channel": channel, "exp": token::unix_s(seconds) }))
    };
    let mut client = sluice.client(&token::user("u")).await?;
    let request = json!({ "channel": "token:a", "token": of_channel("token:a", 60) });
    client.call("subscribe", request).await?;
    let expired = json!({ "channel": "token:a", "token": of_channel("token:a", -5) });
    let reply = client.command("sub_refresh", expired).await?;
    assert_eq!(reply["sub_refresh"].get("ttl"), None, "{reply}");
    let foreign = json!({ "channel": "token:a", "token": of_channel("token:b", 60) });
    client.send("sub_refresh", foreign).await?;
    assert_eq!(client.closed(SOON).await?.code, 3500);
    Ok(())
}

#[tokio::test]
async fn subscriptions_expire_unless_refreshed() -> Result<()> {
    let sluice = Sluice::start(&Manifest {
        expiry_grace_s: 1,
        ..manifest()
    })
    .await?;
    let mut client = sluice.client(&token::user("u")).await?;
    let token_until = |channel: &str, seconds: i64| {
        token::sign(&json!({ "sub": "u", "channel": channel, "exp": token::unix_s(seconds) }))
    };
    for channel in ["token:left", "token:kept"] {
        let request = json!({ "channel": channel, "token": token_until(channel, 3) });
        let result = client.call("subscribe", request).await?;
        assert_eq!(result["expires"], true, "{result}");
        assert!(
            (1..=3).contains(&result["ttl"].as_u64().unwrap()),
            "{result}"
        );
    }
    let request = json!({ "channel": "token:kept", "token": token_until("token:kept", 600) });
    let refreshed = client.call("sub_refresh", request).await?;
    assert!(refreshed["ttl"].as_u64().unwrap() > 500, "{refreshed}");
    let push = client.push_of("unsubscribe").await?;
    assert_eq!(
        (&push["channel"], &push["unsubscribe"]["code"]),
        (&json!("token:left"), &json!(2501))
    );
    client
        .call("publish", json!({ "channel": "token:kept", "data": 1 }))
        .await?;
    assert_eq!(
        client
            .error("publish", json!({ "channel": "token:left", "data": 1 }))
            .await?,
        103
    );
    Ok(())
}

#[tokio::test]
async fn many_commands_fit_in_one_frame() -> Result<()> {
    let sluice = Sluice::start(&manifest()).await?;
    let mut client = Client::open(sluice.address).await?;
    let connect = json!({ "id": 71, "connect": { "token": token::user("u") } });
    let subscribe = json!({ "id": 72, "subscribe": { "channel": "a" } });
    let publish = json!({ "id": 73, "publish": { "channel": "a", "data": { "n": 1 } } });
    client
        .send_text(format!("{connect}\n{subscribe}\n{publish}\n"))
        .await?;
    assert!(client.reply(71).await?["connect"]["client"].is_string());
    assert!(client.reply(72).await?["subscribe"].is_object());
    let push = client.push_of("pub").await?;
    assert_eq!(push["pub"]["data"], json!({ "n": 1 }));
    assert_eq!(push["pub"]["info"]["user"], "u");
    assert!(client.reply(73).await?["publish"].is_object());
    Ok(())
}

#[tokio::test]
async fn a_message_above_the_limit_closes_with_1009() -> Result<()> {
    let sluice = Sluice::start(&manifest().limit("messageBytes", json!(2048))).await?;
    let mut client = sluice.client(&token::user("u")).await?;
    client.call("subscribe", json!({ "channel": "a" })).await?;
    let fits = "x".repeat(1800);
    client
        .call("publish", json!({ "channel": "a", "data": fits }))
        .await?;
    client
        .send(
            "publish",
            json!({ "channel": "a", "data": "x".repeat(4000) }),
        )
        .await?;
    let Close { code, .. } = client.closed(SOON).await?;
    assert_eq!(code, 1009);
    Ok(())
}

#[tokio::test]
async fn features_on_request_need_the_request() -> Result<()> {
    let sluice = Sluice::start(&manifest()).await?;
    let mut plain = sluice.client(&token::user("u")).await?;
    let mut wants = sluice.client(&token::user("v")).await?;
    let result = plain
        .call("subscribe", json!({ "channel": "asked:a" }))
        .await?;
    assert_eq!(result.get("recoverable"), None, "{result}");
    let request = json!({ "channel": "asked:a", "recoverable": true, "join_leave": true });
    let result = wants.call("subscribe", request).await?;
    assert_eq!(result["recoverable"], true, "{result}");
    assert!(
        result["epoch"].as_str().is_some_and(|e| !e.is_empty()),
        "{result}"
    );
    let mut third = sluice.client(&token::user("w")).await?;
    third
        .call("subscribe", json!({ "channel": "asked:a" }))
        .await?;
    third.cut();
    while wants.push_of("join").await?["join"]["info"]["user"] != "w" {}
    while wants.push_of("leave").await?["leave"]["info"]["user"] != "w" {}
    assert_eq!(
        plain.pushes(Duration::from_millis(100)).await?,
        Vec::<Value>::new()
    );
    Ok(())
}
