//! Nothing crosses accounts: two accounts use the same names, and every command tries to reach the other.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::api::Api;
use sluice_e2e::client::Client;
use sluice_e2e::manifest::Manifest;
use sluice_e2e::sluice::Sluice;
use sluice_e2e::token;

const SOON: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_millis(500);

async fn start() -> Result<Sluice> {
    Sluice::start(&Manifest {
        accounts: true,
        personal_channel: true,
        ..Manifest::full()
    })
    .await
}

async fn join(sluice: &Sluice, user: &str, account: &str) -> Result<(Client, String)> {
    let (mut client, connected) =
        Client::connect(sluice.address, &token::of_account(user, account)).await?;
    client
        .call("subscribe", json!({ "channel": "lobby" }))
        .await?;
    // Its own joins: of its personal channel, then this one.
    while client.push_of("join").await?["channel"] != "lobby" {}
    Ok((
        client,
        connected["client"].as_str().unwrap_or_default().to_owned(),
    ))
}

fn publications(pushes: &[Value]) -> Vec<&Value> {
    pushes.iter().filter(|p| p.get("pub").is_some()).collect()
}

#[tokio::test]
async fn a_token_without_an_account_is_refused() -> Result<()> {
    let sluice = start().await?;
    for claims in [
        json!({ "sub": "u" }),
        json!({ "sub": "u", "account": "" }),
        json!({ "sub": "u", "account": ["red"] }),
        json!({ "sub": "u", "account": "a\u{1f}b" }),
    ] {
        let mut client = Client::open(sluice.address).await?;
        client
            .send("connect", json!({ "token": token::sign(&claims) }))
            .await?;
        assert_eq!(client.closed(SOON).await?.code, 3500, "{claims}");
    }
    Ok(())
}

#[tokio::test]
async fn messages_joins_and_leaves_stay_inside() -> Result<()> {
    let sluice = start().await?;
    let (mut red, _) = join(&sluice, "u", "red").await?;
    let (mut blue, _) = join(&sluice, "u", "blue").await?;
    let (mut red_two, _) = join(&sluice, "v", "red").await?;
    let joined = red.push_of("join").await?;
    assert_eq!(joined["join"]["info"]["user"], "v");
    assert_eq!(red.pushes(QUIET).await?, Vec::<Value>::new());
    red_two
        .call("publish", json!({ "channel": "lobby", "data": "for red" }))
        .await?;
    assert_eq!(red.push_of("pub").await?["pub"]["data"], "for red");
    // Names the account's scope could be written with reach nobody either.
    let (mut mole, _) = Client::connect(sluice.address, &token::of_account("m", "blue")).await?;
    for name in [
        "red\u{1f}lobby",
        "red/lobby",
        "red:lobby",
        "../red/lobby",
        "\u{1f}lobby",
    ] {
        let reply = mole
            .command("subscribe", json!({ "channel": name }))
            .await?;
        assert!(
            reply.get("error").is_some() || name.is_ascii(),
            "{name:?}: {reply}"
        );
        mole.command("publish", json!({ "channel": name, "data": "crossing" }))
            .await?;
    }
    red_two.cut();
    assert_eq!(red.push_of("leave").await?["leave"]["info"]["user"], "v");
    let seen = red.pushes(QUIET).await?;
    assert_eq!(publications(&seen).len(), 0, "{seen:?}");
    assert_eq!(blue.pushes(QUIET).await?, Vec::<Value>::new());
    Ok(())
}

#[tokio::test]
async fn presence_and_history_show_the_own_account_only() -> Result<()> {
    let sluice = start().await?;
    let (mut red, red_id) = join(&sluice, "u", "red").await?;
    let (mut blue, blue_id) = join(&sluice, "u", "blue").await?;
    red.call("publish", json!({ "channel": "lobby", "data": "red 1" }))
        .await?;
    red.call("publish", json!({ "channel": "lobby", "data": "red 2" }))
        .await?;
    let about = json!({ "channel": "lobby" });
    for (client, id) in [(&mut red, &red_id), (&mut blue, &blue_id)] {
        let presence = client.call("presence", about.clone()).await?["presence"].clone();
        let ids: Vec<&String> = presence.as_object().unwrap().keys().collect();
        assert_eq!(ids, [id]);
        let stats = client.call("presence_stats", about.clone()).await?;
        assert_eq!(stats["num_clients"], 1);
    }
    let history = |limit: i32| json!({ "channel": "lobby", "limit": limit });
    let of_red = red.call("history", history(-1)).await?;
    assert_eq!(of_red["publications"].as_array().unwrap().len(), 2);
    let of_blue = blue.call("history", history(-1)).await?;
    assert_eq!(
        of_blue["publications"].as_array().map_or(0, Vec::len),
        0,
        "{of_blue}"
    );
    assert_eq!(of_blue["offset"].as_u64().unwrap_or(0), 0, "{of_blue}");
    // A position of red's stream is none of blue's.
    let since = json!({ "channel": "lobby", "limit": -1, "since": { "offset": 0, "epoch": of_red["epoch"] } });
    assert_eq!(blue.error("history", since).await?, 112);
    let (mut thief, _) = Client::connect(sluice.address, &token::of_account("t", "blue")).await?;
    let request =
        json!({ "channel": "lobby", "recover": true, "offset": 0, "epoch": of_red["epoch"] });
    let result = thief.call("subscribe", request).await?;
    assert_ne!(result["recovered"], true, "{result}");
    assert_eq!(result.get("publications"), None, "{result}");
    Ok(())
}

#[tokio::test]
async fn personal_channels_of_equal_users_are_apart() -> Result<()> {
    let sluice = start().await?;
    let (mut red, connected) =
        Client::connect(sluice.address, &token::of_account("u", "red")).await?;
    assert!(connected["subs"]["#u"].is_object(), "{connected}");
    let (mut blue, _) = Client::connect(sluice.address, &token::of_account("u", "blue")).await?;
    let (mut second, _) = Client::connect(sluice.address, &token::of_account("u", "red")).await?;
    second.pushes(QUIET).await?;
    red.call("publish", json!({ "channel": "#u", "data": "mine" }))
        .await?;
    assert_eq!(second.push_of("pub").await?["pub"]["data"], "mine");
    let seen = blue.pushes(QUIET).await?;
    assert_eq!(publications(&seen).len(), 0, "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn subscription_tokens_hold_in_their_account() -> Result<()> {
    let sluice = start().await?;
    let sign =
        |account: &str| token::sign(&json!({ "sub": "u", "account": account, "channel": "vault" }));
    let (mut red, _) = Client::connect(sluice.address, &token::of_account("u", "red")).await?;
    red.call(
        "subscribe",
        json!({ "channel": "vault", "token": sign("red") }),
    )
    .await?;
    let (mut blue, _) = Client::connect(sluice.address, &token::of_account("u", "blue")).await?;
    blue.send(
        "subscribe",
        json!({ "channel": "vault", "token": sign("red") }),
    )
    .await?;
    assert_eq!(blue.closed(SOON).await?.code, 3500);
    Ok(())
}

#[tokio::test]
async fn refresh_cannot_change_the_account() -> Result<()> {
    let sluice = start().await?;
    let claims = |account: &str, seconds: i64| {
        token::sign(&json!({ "sub": "u", "account": account, "exp": token::unix_s(seconds) }))
    };
    let (mut red, _) = Client::connect(sluice.address, &claims("red", 60)).await?;
    red.call("refresh", json!({ "token": claims("red", 90) }))
        .await?;
    red.send("refresh", json!({ "token": claims("blue", 90) }))
        .await?;
    assert_eq!(red.closed(SOON).await?.code, 3500);
    Ok(())
}

/// Calls of the default account leave both accounts alone.
async fn call_without_account(api: Api) -> Result<()> {
    api.call("publish", json!({ "channel": "lobby", "data": "default" }))
        .await?;
    api.call(
        "broadcast",
        json!({ "channels": ["lobby"], "data": "default" }),
    )
    .await?;
    for method in ["disconnect", "refresh"] {
        api.call(method, json!({ "user": "u", "expired": true }))
            .await?;
    }
    for method in ["subscribe", "unsubscribe"] {
        api.call(method, json!({ "user": "u", "channel": "lobby" }))
            .await?;
    }
    api.call("history_remove", json!({ "channel": "lobby" }))
        .await?;
    let empty = |value: &Value| value.as_object().is_none_or(serde_json::Map::is_empty);
    let presence = api.call("presence", json!({ "channel": "lobby" })).await?;
    ensure!(empty(&presence["presence"]), "{presence}");
    let channels = api.call("channels", json!({})).await?;
    ensure!(empty(&channels["channels"]), "{channels}");
    Ok(())
}

#[tokio::test]
async fn the_server_api_means_the_default_account_unless_it_names_one() -> Result<()> {
    let sluice = start().await?;
    let api = Api(sluice.address);
    let (mut red, red_id) = join(&sluice, "u", "red").await?;
    let (mut blue, _) = join(&sluice, "u", "blue").await?;
    call_without_account(api).await?;
    assert_eq!(red.pushes(QUIET).await?, Vec::<Value>::new());

    let of_red = |extra: Value| {
        let mut request = json!({ "account": "red", "channel": "lobby" });
        request
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        request
    };
    api.call("publish", of_red(json!({ "data": "red" })))
        .await?;
    assert_eq!(red.push_of("pub").await?["pub"]["data"], "red");
    let presence = api.call("presence", of_red(json!({}))).await?["presence"].clone();
    let ids: Vec<&String> = presence.as_object().unwrap().keys().collect();
    assert_eq!(ids, [&red_id]);
    let stats = api.call("presence_stats", of_red(json!({}))).await?;
    assert_eq!(stats["num_clients"], 1);
    for _ in 0..2 {
        let history = api.call("history", of_red(json!({ "limit": -1 }))).await?;
        assert_eq!(history["publications"].as_array().unwrap().len(), 1);
        // What one account removes, the other keeps.
        api.call(
            "history_remove",
            json!({ "account": "blue", "channel": "lobby" }),
        )
        .await?;
    }
    let channels = api.call("channels", json!({ "account": "red" })).await?["channels"].clone();
    assert_eq!(channels["lobby"], json!({ "num_clients": 1 }), "{channels}");
    let request = json!({ "account": "red", "channels": ["lobby"], "data": "red too" });
    api.call("broadcast", request).await?;
    assert_eq!(red.push_of("pub").await?["pub"]["data"], "red too");
    assert_eq!(blue.pushes(QUIET).await?, Vec::<Value>::new());
    Ok(())
}

#[tokio::test]
async fn the_server_api_moves_clients_of_the_named_account_only() -> Result<()> {
    let sluice = start().await?;
    let api = Api(sluice.address);
    let (mut red, _) = join(&sluice, "u", "red").await?;
    let (mut blue, blue_id) = join(&sluice, "u", "blue").await?;
    // Another account's client id reaches nobody.
    api.call(
        "disconnect",
        json!({ "account": "red", "user": "u", "client": blue_id }),
    )
    .await?;
    let extra = json!({ "account": "red", "user": "u", "channel": "extra" });
    api.call("subscribe", extra.clone()).await?;
    assert_eq!(red.push_of("subscribe").await?["channel"], "extra");
    api.call("unsubscribe", extra).await?;
    assert_eq!(red.push_of("unsubscribe").await?["channel"], "extra");
    let expire_at = token::unix_s(900);
    api.call(
        "refresh",
        json!({ "account": "red", "user": "u", "expire_at": expire_at }),
    )
    .await?;
    assert_eq!(red.push_of("refresh").await?["refresh"]["expires"], true);
    api.call("disconnect", json!({ "account": "red", "user": "u" }))
        .await?;
    assert_eq!(red.closed(SOON).await?.code, 3503);
    assert_eq!(blue.pushes(QUIET).await?, Vec::<Value>::new());
    blue.call("presence", json!({ "channel": "lobby" })).await?;
    Ok(())
}
