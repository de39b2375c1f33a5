//! The Countly SDK for Node, unchanged: its events arrive in order and once, through refusals and restarts too.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::ingest::{Gateway, Ingest, KEY};
use sluice_e2e::sdk::{Script, Sdks};
use sluice_e2e::sluice::Scratch;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;
use sluice_e2e::upstream::steps;
use tokio::time::{Instant, sleep};

const SCENARIO: Duration = Duration::from_secs(40);

async fn upstream(settings: Settings) -> Result<Upstream> {
    Upstream::start(Settings {
        keep_requests: 10_000,
        ..settings
    })
    .await
}

fn start(mode: &str, gateway: &Gateway, device: &str, options: &Value) -> Result<Script> {
    let url = format!("http://{}", gateway.address());
    Sdks::prepare()?.start_node(
        "e2e/sdk/countly.mjs",
        &[mode, &url, KEY, device, &options.to_string()],
    )
}

/// Waits until so many events have arrived.
async fn arrived(upstream: &Upstream, count: usize) -> Result<BTreeMap<String, Vec<u64>>> {
    let deadline = Instant::now() + SCENARIO;
    loop {
        let numbers = steps::numbers(&upstream.copies().await?)?;
        let sum: usize = numbers.values().map(Vec::len).sum();
        if sum >= count {
            return Ok(numbers);
        }
        ensure!(Instant::now() < deadline, "{sum} of {count}: {numbers:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn events_arrive_in_order_and_once() -> Result<()> {
    let upstream = upstream(Settings::default()).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let script = start("single", &gateway, "anna", &json!({ "events": 90 }))?;
    let numbers = arrived(&upstream, 90).await?;
    sleep(Duration::from_secs(1)).await;
    script.succeed(SCENARIO)?;
    assert_eq!(numbers["anna"], (1..=90).collect::<Vec<u64>>());
    gateway.drained(SCENARIO).await?;
    let stats = upstream.stats().await?;
    assert_eq!(
        (
            stats.duplicates_ignored,
            stats.session_orphans,
            stats.rejected
        ),
        (0, 0, 0)
    );
    // begin_session, 30 batches of three, end_session.
    ensure!(stats.applied >= 32, "{stats:?}");
    Ok(())
}

#[tokio::test]
async fn checksums_forms_pictures_and_merges_survive() -> Result<()> {
    let salts = BTreeMap::from([(KEY.to_owned(), "pepper".to_owned())]);
    let upstream = upstream(Settings {
        salts,
        ..Settings::default()
    })
    .await?;
    let salted = json!({ "salt": { "value": "pepper" } });
    let ingest = Ingest::new(&upstream.url()).application("shop", KEY, salted);
    let gateway = Gateway::start(&ingest).await?;
    let scratch = Scratch::new()?;
    let picture = scratch.path().join("anna.png");
    let bytes: Vec<u8> = (0..40_000).map(|_| fastrand::u8(..)).collect();
    std::fs::write(&picture, &bytes)?;
    let options = json!({
        "events": 40, "salt": "pepper", "post": true, "merge": "known", "picture": picture,
    });
    let script = start("single", &gateway, "unknown", &options)?;
    let numbers = arrived(&upstream, 40).await?;
    sleep(Duration::from_secs(2)).await;
    script.succeed(SCENARIO)?;
    let all: Vec<u64> = [numbers["unknown"].clone(), numbers["known"].clone()].concat();
    assert_eq!(all, (1..=40).collect::<Vec<u64>>());
    gateway.drained(SCENARIO).await?;
    let stats = upstream.stats().await?;
    assert_eq!(
        (stats.merges, stats.merges_early, stats.after_merge),
        (1, 0, 0),
        "{stats:?}"
    );
    assert_eq!(
        (stats.rejected, stats.malformed, stats.duplicates_ignored),
        (0, 0, 0),
        "{stats:?}"
    );
    // The picture is there to the byte.
    let copies = upstream.copies().await?;
    let found = copies
        .iter()
        .any(|copy| memchr::memmem::find(&copy.body(), &bytes).is_some());
    ensure!(found, "no request holds the picture");
    assert_eq!(
        gateway.metric("sluice_ingest_rejected_total", "").await?,
        0.0
    );
    Ok(())
}

#[tokio::test]
async fn a_wrong_salt_is_answered_as_the_server_would() -> Result<()> {
    let upstream = upstream(Settings::default()).await?;
    let salted = json!({ "salt": { "value": "pepper" } });
    let ingest = Ingest::new(&upstream.url()).application("shop", KEY, salted);
    let gateway = Gateway::start(&ingest).await?;
    let options = json!({ "events": 6, "salt": "sugar" });
    let script = start("single", &gateway, "eve", &options)?;
    let deadline = Instant::now() + SCENARIO;
    // begin_session, two batches, end_session: dropped by the SDK, because the answer is 200.
    while gateway.metric("sluice_ingest_rejected_total", "").await? < 4.0 {
        ensure!(
            Instant::now() < deadline,
            "rejected too few: {}",
            gateway.sluice.metrics().await?
        );
        sleep(Duration::from_millis(100)).await;
    }
    script.succeed(SCENARIO)?;
    assert_eq!(upstream.stats().await?.requests, 0);
    Ok(())
}

#[tokio::test]
async fn the_bulk_client_s_events_arrive_in_order_and_once() -> Result<()> {
    let upstream = upstream(Settings {
        service_ms: 20.0,
        ..Settings::default()
    })
    .await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let mut script = start("bulk", &gateway, "bert", &json!({ "events": 200 }))?;
    script.event("empty", SCENARIO)?;
    let numbers = arrived(&upstream, 400).await?;
    script.succeed(SCENARIO)?;
    for device in ["bert-a", "bert-b"] {
        assert_eq!(numbers[device], (1..=200).collect::<Vec<u64>>(), "{device}");
    }
    gateway.drained(SCENARIO).await?;
    let stats = upstream.stats().await?;
    assert_eq!((stats.duplicates_ignored, stats.rejected), (0, 0));
    Ok(())
}

#[tokio::test]
async fn it_waits_out_refusals_and_a_restart() -> Result<()> {
    let upstream = upstream(Settings::default()).await?;
    // One request at a time, and one that never ends: all others get 503.
    let ingest = Ingest::new(&upstream.url()).set("accept", json!({ "concurrentRequests": 1 }));
    let mut gateway = Gateway::start(&ingest).await?;
    let mut slow = TcpStream::connect(gateway.address())?;
    slow.write_all(b"POST /i HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\napp_key=")?;
    sleep(Duration::from_millis(300)).await;
    let script = start("single", &gateway, "carl", &json!({ "events": 60 }))?;
    let deadline = Instant::now() + SCENARIO;
    while gateway.metric("sluice_ingest_rejected_total", "").await? < 1.0 {
        ensure!(Instant::now() < deadline, "the SDK was not refused");
        sleep(Duration::from_millis(100)).await;
    }
    drop(slow);
    arrived(&upstream, 9).await?;
    gateway.kill()?;
    sleep(Duration::from_millis(500)).await;
    gateway.restart().await?;
    let numbers = arrived(&upstream, 60).await?;
    script.succeed(SCENARIO)?;
    // A request whose answer was lost in the kill is sent again by the SDK; the upstream knows it by its timestamp.
    let mut once = numbers["carl"].clone();
    once.dedup();
    let stats = upstream.stats().await?;
    ensure!(
        once == (1..=60).collect::<Vec<u64>>() || stats.duplicates_ignored > 0,
        "{numbers:?}"
    );
    ensure!(stats.duplicates_ignored <= 1, "{stats:?}");
    Ok(())
}
