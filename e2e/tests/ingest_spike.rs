//! A spike of ten times the usual load is taken at once and delivered at the rate the upstream can take.
//!
//! `just bench-ingest spike` does the same at full size.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_e2e::bench::process;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::shape::Shape;
use sluice_e2e::http_load::{Load, OnFailure, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, nothing_lost};
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::analysis::{done_per_second, refused_share};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;

const USUAL: f64 = 60.0;
const SPIKE: f64 = 600.0;
/// 12 workers of 50 ms.
const CAPACITY: f64 = 240.0;
const SPIKE_BEGINS: f64 = 3.0;
const SPIKE_SECONDS: f64 = 10.0;

fn phases() -> Vec<Phase> {
    vec![
        Phase::rate(USUAL, SPIKE_BEGINS),
        Phase::rate(SPIKE, SPIKE_SECONDS),
        Phase::rate(USUAL, 3.0),
    ]
}

#[tokio::test]
async fn a_spike_is_answered_at_once_and_delivered_in_order_at_full_rate() -> Result<()> {
    kept_in_one_run(a_spike).await
}

async fn a_spike() -> Result<Promises> {
    let settings = Settings {
        workers: 12,
        service_ms: 50.0,
        line: 40,
        ..Settings::default()
    };
    let upstream = Upstream::start(settings).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let mut plan = Plan::new(gateway.address(), KEY, phases());
    plan.shape = Shape::post(KEY, 400);
    plan.on_failure = OnFailure::GoOn;
    let before_kb = process::private_kb(gateway.sluice.pid())?;
    let outcome = Load::start(plan)?.outcome().await?;
    let after_kb = process::private_kb(gateway.sluice.pid())?;
    let sent = (USUAL * 6.0 + SPIKE * SPIKE_SECONDS) as u64;
    assert_eq!((outcome.acked, outcome.refused()), (sent, 0), "{outcome:?}");
    ensure!(
        after_kb < before_kb + 64 * 1024,
        "memory grew from {before_kb} to {after_kb} KB"
    );

    gateway.drained(Duration::from_secs(120)).await?;
    let more = nothing_lost(&upstream, &outcome).await?;
    let stats = upstream.stats().await?;
    assert_eq!((more, stats.applied, stats.repeated), (0, sent, 0));

    let records = upstream.records().await?;
    let last = records
        .iter()
        .map(|record| record.done_ns)
        .max()
        .unwrap_or(0);
    // The first second of the spike is for learning what the upstream can take, the last one may be half empty.
    let from = outcome.began_ns + ((SPIKE_BEGINS + 1.0) * 1e9) as u64;
    let used = done_per_second(&records, from, last - 1_000_000_000) / CAPACITY;
    assert_eq!(
        gateway.metric("sluice_ingest_accepted_total", "").await?,
        sent as f64
    );
    assert_eq!(
        gateway.metric("sluice_ingest_delivered_total", "").await?,
        sent as f64
    );
    assert_eq!(gateway.metric("sluice_ingest_parked_total", "").await?, 0.0);
    let (refused, p99_ms) = (refused_share(&records), outcome.latency_ms(0.99));
    Ok(Promises::new()
        .expect(p99_ms < 250.0, format!("p99 of answers {p99_ms} ms"))
        .expect(
            used >= 0.95,
            format!("{:.1} % of the upstream's capacity used", used * 100.0),
        )
        .expect(
            refused < 0.01,
            format!("{:.2} % refused by the upstream", refused * 100.0),
        ))
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_back() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    // The application takes nothing, and the smallest queue there is.
    let ingest = Ingest::new(&upstream.url())
        .application("shop", KEY, json!({ "processing": "Paused" }))
        .set("retention", json!({ "time": "1h", "bytes": 64 << 20 }))
        .set("durability", json!("Memory"));
    let gateway = Gateway::start(&ingest).await?;
    // Bodies that do not compress, a quarter of a megabyte each.
    let body = format!(
        "app_key={KEY}&device_id=d&user_details={}",
        (0..256 * 1024)
            .map(|_| fastrand::alphanumeric())
            .collect::<String>()
    );
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let mut taken = 0;
    let refusal = loop {
        let answer =
            sluice_e2e::http::request(gateway.address(), "POST", "/i", &form, body.as_bytes())
                .await?;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        ensure!(taken < 1_000, "a queue of 64 MiB took 250 MB");
    };
    assert_eq!(refusal.status, 503);
    let seconds: u32 = refusal.header("Retry-After").unwrap_or_default().parse()?;
    ensure!(seconds >= 1, "Retry-After {seconds}");
    ensure!(
        refusal.json()?.get("result").is_some(),
        "{}",
        refusal.text()
    );
    ensure!(taken > 100, "full after {taken} of 256 KiB");
    // All of them wait. With `Memory` the last ones are answered before they are in their lane.
    let deadline = Instant::now() + Duration::from_secs(20);
    while gateway.waiting().await? < f64::from(taken) {
        ensure!(
            Instant::now() < deadline,
            "fewer wait than the {taken} taken"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gateway.waiting().await?, f64::from(taken));
    Ok(())
}
