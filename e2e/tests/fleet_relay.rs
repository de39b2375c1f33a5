//! Three data planes on one Redis Cluster behave as one gateway.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::client::Client;
use sluice_e2e::fleet::Fleet;
use sluice_e2e::manifest::Manifest;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::token;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// One fleet at a time: an overloaded data plane refuses presence.
static TURN: Mutex<()> = Mutex::const_new(());

const SOON: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_millis(500);

async fn subscribed(fleet: &Fleet, plane: usize, user: &str, channel: &str) -> Result<Client> {
    let mut client = fleet.client(plane, &token::user(user)).await?;
    client
        .call("subscribe", json!({ "channel": channel }))
        .await?;
    // Its own join.
    client.push_of("join").await?;
    Ok(client)
}

fn users(presence: &Value) -> Vec<String> {
    let clients = presence["presence"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let mut users: Vec<String> = clients
        .values()
        .filter_map(|info| info["user"].as_str().map(str::to_owned))
        .collect();
    users.sort();
    users
}

#[tokio::test]
async fn clients_reach_each_other_on_any_pod() -> Result<()> {
    let _turn = TURN.lock().await;
    let fleet = Fleet::start(&Manifest::full(), 3).await?;
    // Some channels, so that every shard has its part.
    for number in 0..12 {
        let channel = format!("room-{number}");
        let mut reader = subscribed(&fleet, 0, "reader", &channel).await?;
        let mut writer = subscribed(&fleet, 1, "writer", &channel).await?;
        assert_eq!(
            reader.push_of("join").await?["join"]["info"]["user"],
            "writer"
        );
        for n in 1..=3 {
            writer
                .call("publish", json!({ "channel": channel, "data": { "n": n } }))
                .await?;
        }
        for n in 1..=3 {
            let publication = reader.push_of("pub").await?["pub"].clone();
            assert_eq!(
                (&publication["data"]["n"], &publication["offset"]),
                (&json!(n), &json!(n))
            );
            assert_eq!(publication["info"]["user"], "writer");
        }
        let mut third = subscribed(&fleet, 2, "third", &channel).await?;
        let presence = third
            .call("presence", json!({ "channel": channel }))
            .await?;
        assert_eq!(users(&presence), ["reader", "third", "writer"]);
        let stats = third
            .call("presence_stats", json!({ "channel": channel }))
            .await?;
        assert_eq!(
            (&stats["num_clients"], &stats["num_users"]),
            (&json!(3), &json!(3))
        );
        writer.cut();
        assert_eq!(
            reader.push_of("leave").await?["leave"]["info"]["user"],
            "writer"
        );
        let history = third
            .call("history", json!({ "channel": channel, "limit": 10 }))
            .await?;
        assert_eq!(history["publications"].as_array().map(Vec::len), Some(3));
        assert_eq!(
            reader.push_of("join").await?["join"]["info"]["user"],
            "third"
        );
        assert!(reader.pushes(QUIET).await?.is_empty(), "nothing twice");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_recovers_on_another_pod() -> Result<()> {
    let _turn = TURN.lock().await;
    let fleet = Fleet::start(&Manifest::full(), 3).await?;
    let mut client = fleet.client(0, &token::user("mover")).await?;
    let beginning = client.call("subscribe", json!({ "channel": "x" })).await?;
    client.cut();
    for n in 1..=5 {
        let publish = json!({ "channel": "x", "data": { "n": n } });
        fleet.api(1).call("publish", publish).await?;
    }
    let mut client = fleet.client(2, &token::user("mover")).await?;
    let request = json!({ "channel": "x", "recover": true, "offset": beginning["offset"], "epoch": beginning["epoch"] });
    let result = client.call("subscribe", request).await?;
    assert_eq!(result["recovered"], true, "{result}");
    let numbers: Vec<u64> = result["publications"]
        .as_array()
        .context("publications")?
        .iter()
        .filter_map(|publication| publication["data"]["n"].as_u64())
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    Ok(())
}

#[tokio::test]
async fn the_server_api_reaches_clients_from_any_pod() -> Result<()> {
    let _turn = TURN.lock().await;
    let fleet = Fleet::start(&Manifest::full(), 3).await?;
    let mut clients = Vec::new();
    for plane in 0..3 {
        clients.push(subscribed(&fleet, plane, "u", "x").await?);
    }
    let channels = fleet.api(1).call("channels", json!({})).await?;
    assert_eq!(channels["channels"], json!({ "x": { "num_clients": 3 } }));
    fleet
        .api(2)
        .call("subscribe", json!({ "user": "u", "channel": "y" }))
        .await?;
    for client in &mut clients {
        assert_eq!(client.push_of("subscribe").await?["channel"], "y");
    }
    fleet
        .api(0)
        .call("unsubscribe", json!({ "user": "u", "channel": "x" }))
        .await?;
    for client in &mut clients {
        let push = client.push_of("unsubscribe").await?;
        assert_eq!(
            (&push["channel"], &push["unsubscribe"]["code"]),
            (&json!("x"), &json!(2000))
        );
    }
    let refresh = json!({ "user": "u", "expire_at": token::unix_s(100) });
    fleet.api(1).call("refresh", refresh).await?;
    for client in &mut clients {
        assert_eq!(client.push_of("refresh").await?["refresh"]["expires"], true);
    }
    let info = fleet.api(0).call("info", json!({})).await?;
    let connected: u64 = info["nodes"]
        .as_array()
        .context("nodes")?
        .iter()
        .filter_map(|node| node["num_clients"].as_u64())
        .sum();
    assert_eq!(connected, 3);
    let disconnect = json!({ "user": "u", "disconnect": { "code": 4000, "reason": "bye" } });
    fleet.api(2).call("disconnect", disconnect).await?;
    for client in &mut clients {
        assert_eq!(client.closed(SOON).await?.code, 4000);
    }
    Ok(())
}

#[tokio::test]
async fn an_accounts_connections_are_counted_over_all_pods() -> Result<()> {
    let _turn = TURN.lock().await;
    let manifest = Manifest {
        accounts: true,
        ..Manifest::full()
    };
    let fleet = Fleet::start(&manifest.limit("connectionsPerAccount", json!(3)), 3).await?;
    let token = token::of_account("u", "acc");
    let mut clients = Vec::new();
    for plane in 0..3 {
        clients.push(fleet.client(plane, &token).await?);
    }
    for plane in 0..3 {
        assert!(
            fleet.client(plane, &token).await.is_err(),
            "a fourth on {plane}"
        );
    }
    fleet.client(0, &token::of_account("u", "other")).await?;
    clients.pop().context("three")?.cut();
    let deadline = Instant::now() + SOON;
    while fleet.client(0, &token).await.is_err() {
        ensure!(Instant::now() < deadline, "the place was not given back");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_pods_clients_are_hidden_and_announced_as_gone() -> Result<()> {
    let _turn = TURN.lock().await;
    kept_in_one_run(a_killed_pod).await
}

async fn a_killed_pod() -> Result<Promises> {
    const HIDDEN: Duration = Duration::from_secs(10);
    let mut fleet = Fleet::start(&Manifest::full(), 3).await?;
    let mut doomed = Vec::new();
    for n in 0..20 {
        doomed.push(subscribed(&fleet, 2, &format!("doomed-{n}"), "x").await?);
    }
    let mut reader = subscribed(&fleet, 0, "reader", "x").await?;
    let about = json!({ "channel": "x" });
    assert_eq!(
        users(&reader.call("presence", about.clone()).await?).len(),
        21
    );
    let mut plane = fleet.planes.pop().context("three")?;
    plane.kill()?;
    let killed = Instant::now();
    loop {
        let present = users(&reader.call("presence", about.clone()).await?);
        if present == ["reader"] {
            break;
        }
        ensure!(killed.elapsed() < HIDDEN * 4, "still there: {present:?}");
        sleep(Duration::from_millis(50)).await;
    }
    let hidden = killed.elapsed();
    for _ in 0..20 {
        let push = reader.push_of("leave").await.context("leaves")?;
        assert!(
            push["leave"]["info"]["user"]
                .as_str()
                .is_some_and(|user| user.starts_with("doomed"))
        );
    }
    eprintln!("announced after {:?}", killed.elapsed());
    // Of those who came just before the reader, it may hear late.
    let more = reader.pushes(QUIET).await?;
    let is_leave = |push: &Value| !push["leave"].is_null();
    assert!(!more.iter().any(is_leave), "each once: {more:?}");
    fleet.wait_for_nodes(2).await?;
    let figure = format!("hidden after {hidden:?} of {HIDDEN:?}");
    Ok(Promises::new().expect(hidden < HIDDEN, figure))
}
