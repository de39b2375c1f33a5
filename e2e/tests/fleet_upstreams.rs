//! Several data planes with a manager send to two upstreams; one of them slows to a tenth: it is relieved, the other takes over, and its
//! return is no collapse.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use sluice_e2e::fleet::managed::Managed;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Ingest, done_by_both, done_in_order};
use sluice_e2e::load::clock::now_ns;
use sluice_e2e::redis::{Options, RedisCluster};
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::analysis::{done_per_second, is_done};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::record::Record;
use sluice_e2e::upstream::settings::Settings;
use tokio::time::sleep;

const PLANES: usize = 3;
/// One application is delivered by one data plane at a time.
const APPLICATIONS: usize = 6;
/// Requests per second of each.
const RATE: f64 = 60.0;
/// So each takes 400 per second; slowed to a tenth, both together still take what comes.
const WORKERS: u32 = 10;
const SERVICE_MS: f64 = 25.0;
const SLOW_MS: f64 = 250.0;
const SETTLES: Duration = Duration::from_secs(10);
const RELIEVED_WITHIN: Duration = Duration::from_secs(5);
const SLOW_FOR: Duration = Duration::from_secs(15);
const BACK_FOR: Duration = Duration::from_secs(20);
const DONE_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn one_of_two_slows_to_a_tenth_and_comes_back() -> Result<()> {
    kept_in_one_run(one_of_two_slows).await
}

async fn upstream() -> Result<Upstream> {
    Upstream::start(Settings {
        workers: WORKERS,
        service_ms: SERVICE_MS,
        ..Settings::default()
    })
    .await
}

fn manifest(first: &Upstream, second: &Upstream, redis: &RedisCluster) -> Ingest {
    let upstreams = json!([
        { "name": "one", "url": first.url() },
        { "name": "other", "url": second.url() },
    ]);
    let ingest = Ingest::new(&first.url()).without_applications();
    let ingest = ingest.set("upstreams", upstreams).redis(redis.url());
    let applications = 0..APPLICATIONS;
    applications.fold(ingest, |ingest, n| {
        ingest.application(&format!("app{n}"), &format!("key{n}"), json!({}))
    })
}

fn loads(fleet: &Managed) -> Result<Vec<Load>> {
    let addresses = fleet.addresses();
    let length = SETTLES + SLOW_FOR + BACK_FOR;
    let load = |n: usize| {
        let phase = Phase::rate(RATE, length.as_secs_f64());
        Load::start(Plan {
            connections: 10,
            devices: 100,
            first_device: n * 1_000,
            ..Plan::new(
                addresses[n % addresses.len()],
                &format!("key{n}"),
                vec![phase],
            )
        })
    };
    (0..APPLICATIONS).map(load).collect()
}

/// From when they came to when they were done, milliseconds, of 95 in 100.
fn time_at(records: &[Record], (from_ns, until_ns): (u64, u64)) -> f64 {
    let within = records
        .iter()
        .filter(|record| (from_ns..until_ns).contains(&record.arrived_ns));
    let mut times: Vec<u64> = within
        .map(|record| record.done_ns - record.arrived_ns)
        .collect();
    times.sort_unstable();
    let place = times.len() * 95 / 100;
    times.get(place).map_or(0.0, |time| *time as f64 / 1e6)
}

async fn one_of_two_slows() -> Result<Promises> {
    let redis = RedisCluster::start(3, 0, Options::default()).await?;
    let (first, second) = (upstream().await?, upstream().await?);
    let ingest = manifest(&first, &second, &redis);
    let mut fleet = Managed::start(PLANES, &[], move |port| ingest.render(port)).await?;
    for _ in 0..PLANES {
        fleet.add().await?;
    }
    fleet.attended(DONE_WITHIN).await?;
    let loads = loads(&fleet)?;
    sleep(SETTLES).await;
    first.set(json!({ "service_ms": SLOW_MS })).await?;
    let slow_ns = now_ns();
    sleep(SLOW_FOR).await;
    first.set(json!({ "service_ms": SERVICE_MS })).await?;
    let back_ns = now_ns();
    let mut outcomes = Vec::new();
    for load in loads {
        outcomes.push(load.outcome().await?);
    }
    let end_ns = now_ns();
    let acked: u64 = outcomes.iter().map(|outcome| outcome.acked).sum();
    let deadline = tokio::time::Instant::now() + DONE_WITHIN;
    let mut done = done_by_both(&first, &second).await?;
    while (done.len() as u64) < acked && tokio::time::Instant::now() < deadline {
        sleep(Duration::from_millis(200)).await;
        done = done_by_both(&first, &second).await?;
    }
    let mut again = 0;
    for outcome in &outcomes {
        again += done_in_order(&done, outcome)?;
    }
    let mut of_first = first.records().await?;
    of_first.retain(is_done);

    let second_ns = |seconds: u64| seconds * 1_000_000_000;
    let relieved = (slow_ns + RELIEVED_WITHIN.as_nanos() as u64, back_ns);
    let returned = (back_ns, back_ns + second_ns(10));
    let settled = (returned.1, end_ns);
    let rate = |records: &[Record], span: (u64, u64)| done_per_second(records, span.0, span.1);
    let wanted = RATE * APPLICATIONS as f64;
    let slow = (rate(&of_first, relieved), time_at(&of_first, relieved));
    let (during, after) = (rate(&done, relieved), rate(&done, returned));
    let share = rate(&of_first, settled) / rate(&done, settled).max(1.0);
    let figure = format!(
        "{acked} requests, {again} again; while slow {during:.0}/s in all, {:.0}/s of them by the slow one in {:.0} ms; \
         on its return {after:.0}/s, then {share:.2} of all by it",
        slow.0, slow.1
    );
    eprintln!("{figure}");
    // It works on ten at a time, and may have as many again in line.
    let kept = during >= 0.95 * wanted
        && slow.1 <= 2.5 * SLOW_MS
        && after >= 0.95 * wanted
        && share >= 0.15;
    Ok(Promises::new().expect(kept, figure))
}
