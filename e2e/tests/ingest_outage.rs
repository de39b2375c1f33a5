//! An upstream that fails is left alone, and gets its full rate again soon after it is back, without a second collapse.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, nothing_lost};
use sluice_e2e::load::clock::now_ns;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::analysis::done_per_second;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::record::Outcome;
use sluice_e2e::upstream::settings::{Fault, FaultKind, Settings};
use tokio::time::sleep;

const SECOND_NS: u64 = 1_000_000_000;

async fn upstream() -> Result<Upstream> {
    Upstream::start(Settings {
        workers: 10,
        service_ms: 50.0,
        line: 40,
        ..Settings::default()
    })
    .await
}

#[tokio::test]
async fn after_an_outage_the_full_rate_is_back_and_stays() -> Result<()> {
    kept_in_one_run(an_outage).await
}

async fn an_outage() -> Result<Promises> {
    const CAPACITY: f64 = 200.0;
    let upstream = upstream().await?;
    // Two attempts: what fails because all fails must not use them up.
    let ingest = Ingest::new(&upstream.url()).set("delivery", json!({ "attempts": 2 }));
    let gateway = Gateway::start(&ingest).await?;
    let load = Load::start(Plan::new(
        gateway.address(),
        KEY,
        vec![Phase::rate(160.0, 24.0)],
    ))?;
    sleep(Duration::from_secs(4)).await;
    upstream
        .fail(&[Fault::reply(503, r#"{"result":"Down"}"#)])
        .await?;
    let failed_ns = now_ns();
    sleep(Duration::from_secs(8)).await;
    upstream.heal().await?;
    let healed_ns = now_ns();
    let outcome = load.outcome().await?;
    assert_eq!((outcome.acked, outcome.refused()), (3840, 0));
    gateway.drained(Duration::from_secs(120)).await?;
    assert_eq!(nothing_lost(&upstream, &outcome).await?, 0);
    assert_eq!(gateway.metric("sluice_ingest_parked_total", "").await?, 0.0);

    let records = upstream.records().await?;
    // Once the outage is known, only probes go out.
    let probes = records
        .iter()
        .filter(|r| (failed_ns + 2 * SECOND_NS..healed_ns).contains(&r.arrived_ns))
        .count();
    let rates: Vec<f64> = (0..)
        .map(|second| healed_ns + second * SECOND_NS)
        .take_while(|from| from + SECOND_NS < records.iter().map(|r| r.done_ns).max().unwrap_or(0))
        .map(|from| done_per_second(&records, from, from + SECOND_NS))
        .collect();
    let full = rates.iter().position(|rate| *rate >= CAPACITY * 0.9);
    // From then on until the queue is nearly empty it does not fall again.
    let busy = &rates[full.unwrap_or(0)..rates.len().saturating_sub(2)];
    let is_busy = busy.iter().all(|rate| *rate >= CAPACITY * 0.8);
    let after: Vec<_> = records
        .iter()
        .filter(|r| r.arrived_ns > healed_ns)
        .collect();
    let refused = after
        .iter()
        .filter(|r| r.outcome == Outcome::Refused)
        .count();
    Ok(Promises::new()
        .expect(
            probes <= 20,
            format!("{probes} requests to an upstream that is down"),
        )
        .expect(
            full.is_some_and(|second| second <= 15) && is_busy,
            format!("full rate after {full:?} s: {rates:?}"),
        )
        .expect(
            refused * 50 <= after.len(),
            format!("{refused} of {} refused after the outage", after.len()),
        ))
}

#[tokio::test]
async fn retry_after_is_honoured_for_the_whole_upstream() -> Result<()> {
    kept_in_one_run(a_pause_asked_for).await
}

async fn a_pause_asked_for() -> Result<Promises> {
    let upstream = upstream().await?;
    let ingest = Ingest::new(&upstream.url()).set("delivery", json!({ "attempts": 1 }));
    let gateway = Gateway::start(&ingest).await?;
    let load = Load::start(Plan::new(
        gateway.address(),
        KEY,
        vec![Phase::rate(100.0, 8.0)],
    ))?;
    sleep(Duration::from_secs(2)).await;
    let kind = FaultKind::Reply {
        status: 429,
        body: r#"{"result":"Too many requests"}"#.to_owned(),
        retry_after_s: Some(3),
    };
    upstream
        .fail(&[Fault {
            for_ms: Some(500),
            ..Fault::of(kind)
        }])
        .await?;
    let outcome = load.outcome().await?;
    gateway.drained(Duration::from_secs(80)).await?;
    assert_eq!(nothing_lost(&upstream, &outcome).await?, 0);
    // A 429 uses up no attempt, not even the only one.
    assert_eq!(gateway.metric("sluice_ingest_parked_total", "").await?, 0.0);
    let records = upstream.records().await?;
    let first = records
        .iter()
        .filter(|r| r.status == 429)
        .map(|r| r.arrived_ns)
        .min();
    let first = first.ok_or_else(|| anyhow::anyhow!("there was no 429"))?;
    // What was under way at the time may still arrive.
    let quiet = first + SECOND_NS / 10..first + 3 * SECOND_NS - SECOND_NS / 10;
    let early = records
        .iter()
        .filter(|r| quiet.contains(&r.arrived_ns))
        .count();
    let resumed = records
        .iter()
        .map(|r| r.arrived_ns)
        .find(|at| *at > quiet.end);
    let pause = resumed.map(|at| (at - first) as f64 / 1e9);
    // An upstream that gets no time takes late what was sent early.
    Ok(Promises::new()
        .expect(
            early == 0,
            format!("{early} requests within the three seconds that were asked for"),
        )
        .expect(
            pause.is_some_and(|s| s < 6.0),
            format!("resumed after {pause:?} s"),
        ))
}

#[tokio::test]
async fn refused_connections_and_silence_lose_nothing() -> Result<()> {
    let upstream = upstream().await?;
    let ingest =
        Ingest::new(&upstream.url()).set("delivery", json!({ "attempts": 2, "timeout": "2s" }));
    let gateway = Gateway::start(&ingest).await?;
    let load = Load::start(Plan::new(
        gateway.address(),
        KEY,
        vec![Phase::rate(100.0, 12.0)],
    ))?;
    sleep(Duration::from_secs(2)).await;
    upstream.fail(&[Fault::of(FaultKind::Down)]).await?;
    sleep(Duration::from_secs(3)).await;
    upstream.heal().await?;
    sleep(Duration::from_secs(3)).await;
    upstream.fail(&[Fault::of(FaultKind::BlackHole)]).await?;
    sleep(Duration::from_secs(4)).await;
    upstream.heal().await?;
    let outcome = load.outcome().await?;
    assert_eq!((outcome.acked, outcome.refused()), (1200, 0));
    gateway.drained(Duration::from_secs(120)).await?;
    assert_eq!(nothing_lost(&upstream, &outcome).await?, 0);
    assert_eq!(gateway.metric("sluice_ingest_parked_total", "").await?, 0.0);
    Ok(())
}
