//! Requests are kept for their time after they are settled, each application's for its own, and no longer; what waits stays.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_e2e::http::{self, Answer};
use sluice_e2e::ingest::{APP, Gateway, Ingest, KEY, event};
use sluice_e2e::redis::{Options, RedisServer};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, Settings};
use tokio::time::{Instant, sleep};

/// The shortest that may be configured.
const TIME: Duration = Duration::from_secs(60);
/// To seal what is written to, to look for what is old, and for a busy machine.
const LATE: Duration = Duration::from_secs(40);
const SHOP: usize = 100;
const OTHERS: usize = 20;

/// One application of which requests are kept for the gateway's time, one with a time of its own, and one that may be paused.
fn ingest(upstream: &str, processing: &str) -> Ingest {
    Ingest::new(upstream)
        .set("retention", json!({ "time": "1m" }))
        .application(
            "archive",
            "archivekey",
            json!({ "retention": { "time": "1h" } }),
        )
        .application("held", "heldkey", json!({ "processing": processing }))
}

async fn send(gateway: &Gateway, key: &str, device: &str, count: usize) -> Result<()> {
    for seq in 1..=count {
        let target = event(key, device, seq.try_into()?);
        let Answer { status, .. } = http::get(gateway.address(), &target).await?;
        ensure!(status == 200, "{target}: {status}");
    }
    Ok(())
}

/// How many there are of what is asked for, in the order of the filters.
async fn counts(gateway: &Gateway, filters: &[&str]) -> Result<Vec<usize>> {
    let mut counts = Vec::new();
    for filter in filters {
        counts.push(gateway.find(filter).await?.len());
    }
    Ok(counts)
}

async fn until_counts(
    gateway: &Gateway,
    filters: &[&str],
    wanted: &[usize],
    deadline: Instant,
) -> Result<()> {
    loop {
        let found = counts(gateway, filters).await?;
        if found == wanted {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{filters:?}: {found:?} instead of {wanted:?}"
        );
        sleep(Duration::from_millis(250)).await;
    }
}

async fn settled_ones_go_in_time(upstream: &Upstream, plan: impl Fn(&str) -> Ingest) -> Result<()> {
    let refused = Fault {
        device: Some("bad".to_owned()),
        ..Fault::reply(400, "no")
    };
    upstream.fail(&[refused]).await?;
    let mut gateway = Gateway::start(&plan("Paused")).await?;
    let began = Instant::now();
    send(&gateway, "heldkey", "held", OTHERS).await?;
    send(&gateway, "archivekey", "archived", OTHERS).await?;
    send(&gateway, KEY, "bad", 1).await?;
    send(&gateway, KEY, "good", SHOP).await?;
    let sent = Instant::now();

    let delivered = format!("application={APP}&state=delivered");
    let filters = [
        delivered.as_str(),
        "state=parked",
        "application=archive&state=delivered",
        "state=waiting",
    ];
    let all = [SHOP, 1, OTHERS, OTHERS];
    until_counts(&gateway, &filters, &all, sent + TIME / 2).await?;

    // As long as they are young nobody looks in vain.
    tokio::time::sleep_until(began + TIME - Duration::from_secs(5)).await;
    assert_eq!(counts(&gateway, &filters).await?, all);

    let rest = [0, 0, OTHERS, OTHERS];
    until_counts(&gateway, &filters, &rest, sent + TIME + LATE).await?;

    // What waited is older than the time, and is delivered all the same.
    gateway.rewrite(&plan("Active"))?;
    upstream
        .until(TIME, |stats| stats.applied == (SHOP + 2 * OTHERS) as u64)
        .await?;
    let stats = upstream.stats().await?;
    assert_eq!((stats.missing, stats.out_of_order), (0, 0));
    Ok(())
}

#[tokio::test]
async fn on_disk() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let url = upstream.url();
    settled_ones_go_in_time(&upstream, |processing| ingest(&url, processing)).await
}

#[tokio::test]
async fn in_redis() -> Result<()> {
    let redis = RedisServer::start(Options::default()).await?;
    let upstream = Upstream::start(Settings::default()).await?;
    let url = upstream.url();
    let plan = |processing: &str| ingest(&url, processing).redis(redis.url());
    settled_ones_go_in_time(&upstream, plan).await
}
