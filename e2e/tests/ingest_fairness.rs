//! One application's flood does not delay another's requests.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, OnFailure, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, event};
use sluice_e2e::load::clock::now_ns;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::analysis::{done_per_second, first_done};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::record::Record;
use sluice_e2e::upstream::settings::Settings;
use tokio::time::{Instant, sleep_until};

const QUIET: &str = "quietkey";
/// Of the quiet application; the other one sends a hundred times as many.
const PER_SECOND: u64 = 4;
/// For what was sent last to be delivered.
const PATIENCE: Duration = Duration::from_secs(20);

/// 10 workers of 100 ms.
async fn upstream() -> Result<Upstream> {
    Upstream::start(Settings {
        workers: 10,
        service_ms: 100.0,
        ..Settings::default()
    })
    .await
}

/// Sends requests of the quiet application for some seconds; their delays in milliseconds, sorted.
async fn delays_ms(
    gateway: &Gateway,
    upstream: &Upstream,
    run: &str,
    seconds: u64,
) -> Result<Vec<f64>> {
    let began = Instant::now();
    let mut sent = Vec::new();
    for n in 0..seconds * PER_SECOND {
        sleep_until(began + Duration::from_millis(n * 1000 / PER_SECOND)).await;
        let device = format!("{run}{n}");
        let at = now_ns();
        assert_eq!(gateway.get(&event(QUIET, &device, 1)).await?.status, 200);
        sent.push((device, at));
    }
    let mut delays = delivered_after(upstream, &sent).await?;
    while delays.len() < sent.len() {
        ensure!(
            began.elapsed() < Duration::from_secs(seconds) + PATIENCE,
            "{} of {} were not delivered",
            sent.len() - delays.len(),
            sent.len()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        delays = delivered_after(upstream, &sent).await?;
    }
    delays.sort_by(f64::total_cmp);
    Ok(delays)
}

/// The delays of those that have been delivered, in milliseconds.
async fn delivered_after(upstream: &Upstream, sent: &[(String, u64)]) -> Result<Vec<f64>> {
    let records = upstream.records().await?;
    let done = first_done(&records);
    let delays = sent.iter().filter_map(|(device, at)| {
        let done = done.get(&(QUIET, device.as_str(), 1))?;
        Some(done.saturating_sub(*at) as f64 / 1e6)
    });
    Ok(delays.collect())
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

#[tokio::test]
async fn a_flood_of_a_hundred_times_at_most_doubles_anothers_delay() -> Result<()> {
    kept_in_one_run(beside_a_flood).await
}

async fn beside_a_flood() -> Result<Promises> {
    let upstream = upstream().await?;
    let ingest = Ingest::new(&upstream.url()).application("quiet", QUIET, json!({}));
    let gateway = Gateway::start(&ingest).await?;
    let alone = delays_ms(&gateway, &upstream, "alone", 5).await?;

    let mut plan = Plan::new(
        gateway.address(),
        KEY,
        vec![Phase::rate((100 * PER_SECOND) as f64, 14.0)],
    );
    plan.on_failure = OnFailure::GoOn;
    let flood = Load::start(plan)?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let beside = delays_ms(&gateway, &upstream, "beside", 8).await?;
    flood.stop();
    ensure!(gateway.waiting().await? > 500.0, "there was no flood");
    let mut promises = Promises::new();
    for q in [0.5, 0.9] {
        let (alone, beside) = (quantile(&alone, q), quantile(&beside, q));
        let figure = format!("at {q}: {alone:.0} ms alone, {beside:.0} ms beside a flood");
        promises = promises.expect(beside <= alone * 2.0, figure);
    }
    Ok(promises)
}

#[tokio::test]
async fn floods_share_by_weight() -> Result<()> {
    kept_in_one_run(two_floods).await
}

async fn two_floods() -> Result<Promises> {
    let upstream = upstream().await?;
    let weight = |weight: u32| json!({ "throttle": { "weight": weight } });
    let ingest = Ingest::new(&upstream.url())
        .application("shop", KEY, weight(3))
        .application("quiet", QUIET, weight(1));
    let gateway = Gateway::start(&ingest).await?;
    let load = |key, first_device| {
        let mut plan = Plan::new(gateway.address(), key, vec![Phase::rate(250.0, 4.0)]);
        plan.first_device = first_device;
        Load::start(plan)
    };
    let (one, two) = (load(KEY, 0)?, load(QUIET, 10_000)?);
    one.outcome().await?;
    two.outcome().await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let records = upstream.records().await?;
    let until = now_ns();
    let rate = |app: &str| {
        let own: Vec<Record> = records.iter().filter(|r| &*r.app == app).cloned().collect();
        done_per_second(&own, until - 5_000_000_000, until)
    };
    let (heavy, light) = (rate(KEY), rate(QUIET));
    let figure = format!("{heavy}/s and {light}/s for weights 3 and 1");
    Ok(Promises::new().expect((2.6..=3.4).contains(&(heavy / light)), figure))
}
