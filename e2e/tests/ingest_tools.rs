//! The tools of the ingest tests, tried on each other: load generator straight to the oracle.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::shape::Shape;
use sluice_e2e::http_load::{Load, OnFailure, Plan};
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::analysis::{done_per_second, max_in_window};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, FaultKind, Settings};

#[tokio::test]
async fn what_is_sent_arrives_in_order_and_once() -> Result<()> {
    kept_in_one_run(at_a_rate).await
}

async fn at_a_rate() -> Result<Promises> {
    let upstream = Upstream::start(Settings::default()).await?;
    let plan = Plan::new(upstream.address, "k", vec![Phase::rate(300.0, 2.0)]);
    let outcome = Load::start(plan)?.outcome().await?;
    let stats = upstream.stats().await?;
    assert_eq!((outcome.acked, stats.applied), (600, 600));
    assert_eq!(
        (
            stats.missing,
            stats.out_of_order,
            stats.repeated,
            stats.overlaps
        ),
        (0, 0, 0, 0)
    );
    let users = upstream.users().await?;
    ensure!(outcome.devices().map(|(_, acked)| acked).sum::<u64>() == 600);
    ensure!(users.values().map(|user| user.applied).sum::<u64>() == 600);
    // The rate is kept, and answers are quick, in a debug build too.
    let most = max_in_window(&upstream.records().await?, Duration::from_secs(1));
    let figure = format!("{most} of 300 in a second");
    Ok(Promises::new().expect((290..=345).contains(&most), figure))
}

#[tokio::test]
async fn capacity_is_what_was_set_and_retries_get_all_through() -> Result<()> {
    kept_in_one_run(at_capacity).await
}

async fn at_capacity() -> Result<Promises> {
    let settings = Settings {
        workers: 5,
        service_ms: 50.0,
        line: 10,
        ..Settings::default()
    };
    let upstream = Upstream::start(settings).await?;
    let mut plan = Plan::new(upstream.address, "k", vec![Phase::rate(200.0, 3.0)]);
    plan.shape = Shape::post("k", 500);
    plan.on_failure = OnFailure::Retry(Duration::from_millis(50));
    let outcome = Load::start(plan)?.outcome().await?;
    let stats = upstream.stats().await?;
    assert_eq!((outcome.acked, stats.applied, stats.missing), (600, 600, 0));
    ensure!(
        stats.refused > 100 && outcome.refused() == stats.refused,
        "{stats:?}"
    );
    let records = upstream.records().await?;
    let second = outcome.began_ns + 1_000_000_000;
    let rate = done_per_second(&records, second, second + 3_000_000_000);
    let figure = format!("{rate}/s of 100/s");
    Ok(Promises::new().expect((95.0..=102.0).contains(&rate), figure))
}

#[tokio::test]
async fn failures_are_what_was_asked_for() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let plan = Plan::new(upstream.address, "k", vec![Phase::rate(200.0, 3.0)]);
    let load = Load::start(plan)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    upstream
        .set(json!({ "faults": [{ "kind": "down", "for_ms": 500 }] }))
        .await?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    upstream
        .fail(&[Fault {
            share: 0.2,
            ..Fault::of(FaultKind::CloseAfter)
        }])
        .await?;
    tokio::time::sleep(Duration::from_millis(600)).await;
    upstream.fail(&[Fault::reply(503, "no")]).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    upstream.heal().await?;
    let outcome = load.outcome().await?;
    let stats = upstream.stats().await?;
    assert_eq!((outcome.acked, stats.applied, stats.missing), (600, 600, 0));
    ensure!(outcome.unreachable > 20, "{outcome:?}");
    // Carried out and not answered: sent again, and recognised.
    ensure!(
        stats.duplicates_ignored >= 5 && stats.repeated == 0,
        "{stats:?}"
    );
    ensure!(outcome.statuses.contains_key(&503), "{outcome:?}");
    Ok(())
}
