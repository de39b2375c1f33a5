//! Caps hold in every window of a second, and what is allowed is used.
//!
//! The upstream counts arrivals. A process that did not get to run for a moment hands over what it let through
//! meanwhile at once, so that a busy machine moves requests from one second into the next: that no second has too many is
//! a promise about time, and what must hold on any machine is the sum over longer windows.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY};
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::analysis::{done_per_second, is_done, max_in_window};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::record::Record;
use sluice_e2e::upstream::settings::Settings;

const SECOND: Duration = Duration::from_secs(1);

/// A window in which a moment's standstill counts for little.
const LONG: Duration = Duration::from_secs(4);

/// The longest standstill of a busy machine.
const STANDSTILL_S: f64 = 0.5;

/// What a cap allows in any second: its rate with 5 %, and one that began just before.
fn allowed(per_second: f64) -> usize {
    (per_second * 1.05) as usize + 1
}

/// The most that arrived in a second, which is for the caller to judge; too many in a long window is an error.
fn most_in_a_second(records: &[Record], per_second: f64, at_once: usize) -> Result<usize> {
    let most = max_in_window(records, LONG);
    let bound = per_second * (LONG.as_secs_f64() * 1.05 + STANDSTILL_S);
    ensure!(
        most <= bound as usize + at_once,
        "{most} of {bound} in {LONG:?}"
    );
    Ok(max_in_window(records, SECOND))
}

fn cap(per_second: f64) -> Value {
    json!({ "requestsPerMinute": (per_second * 60.0) as u32 })
}

fn of_app(records: &[Record], app: &str) -> Vec<Record> {
    records.iter().filter(|r| &*r.app == app).cloned().collect()
}

#[tokio::test]
async fn an_application_s_and_the_gateway_s_cap_hold_in_every_second() -> Result<()> {
    kept_in_one_run(two_caps).await
}

async fn two_caps() -> Result<Promises> {
    let (app, all) = (40.0, 80.0);
    let upstream = Upstream::start(Settings {
        service_ms: 5.0,
        ..Settings::default()
    })
    .await?;
    let ingest = Ingest::new(&upstream.url())
        .set("throttle", cap(all))
        .application("shop", KEY, json!({ "throttle": cap(app) }))
        .application("game", "gamekey", json!({}));
    let gateway = Gateway::start(&ingest).await?;
    let load = |key, first_device| {
        let mut plan = Plan::new(gateway.address(), key, vec![Phase::rate(300.0, 2.0)]);
        plan.first_device = first_device;
        Load::start(plan)
    };
    let (shop, game) = (load(KEY, 0)?, load("gamekey", 10_000)?);
    let outcomes = (shop.outcome().await?, game.outcome().await?);
    assert_eq!((outcomes.0.acked, outcomes.1.acked), (600, 600));
    // A lane that the cap holds says so.
    let held = gateway
        .metric("sluice_ingest_lane_held", "application=\"shop\"")
        .await?;
    ensure!(held > 0.0, "{}", gateway.admin("/lanes").await?);
    tokio::time::sleep(Duration::from_secs(8)).await;

    let records = upstream.records().await?;
    let first = records.iter().map(|r| r.arrived_ns).min().unwrap_or(0);
    let of_shop = of_app(&records, KEY);
    let most = (
        most_in_a_second(&of_shop, app, 1)?,
        most_in_a_second(&records, all, 1)?,
    );
    let second = |n: u64| first + n * 1_000_000_000;
    // And all of it is used while there is something to send.
    let used = (
        done_per_second(&of_shop, second(1), second(8)),
        done_per_second(&records, second(1), second(8)),
    );
    Ok(Promises::new()
        .expect(
            most.0 <= allowed(app) && most.1 <= allowed(all),
            format!("{most:?} of ({app}, {all}) in any second"),
        )
        .expect(
            used.0 >= app * 0.95 && used.1 >= all * 0.95,
            format!("{used:?} of ({app}, {all}) per second"),
        ))
}

#[tokio::test]
async fn a_bulk_request_counts_for_what_is_in_it() -> Result<()> {
    kept_in_one_run(a_cap_on_items).await
}

async fn a_cap_on_items() -> Result<Promises> {
    let per_second = 100.0;
    let upstream = Upstream::start(Settings {
        service_ms: 5.0,
        ..Settings::default()
    })
    .await?;
    let ingest = Ingest::new(&upstream.url()).application(
        "shop",
        KEY,
        json!({ "throttle": cap(per_second) }),
    );
    let gateway = Gateway::start(&ingest).await?;
    const ITEMS: u64 = 10;
    for bulk in 0..80 {
        let items: Vec<Value> = (0..ITEMS)
            .map(|item| json!({ "device_id": format!("d{bulk}"), "timestamp": 1, "seq": item + 1, "begin_session": 1 }))
            .collect();
        let target = format!("/i/bulk?app_key={KEY}");
        let body = format!("requests={}", encode(&json!(items).to_string()));
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer =
            sluice_e2e::http::request(gateway.address(), "POST", &target, &form, body.as_bytes())
                .await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    gateway.drained(Duration::from_secs(60)).await?;
    let records: Vec<Record> = upstream
        .records()
        .await?
        .into_iter()
        .filter(is_done)
        .collect();
    assert_eq!(records.len(), 800);
    let most = most_in_a_second(&records, per_second, ITEMS as usize)?;
    // And not less than that: 800 items take eight seconds.
    let times = records.iter().map(|r| r.arrived_ns);
    let took = times.clone().max().unwrap_or(0) - times.min().unwrap_or(0);
    let took_s = took as f64 / 1e9;
    ensure!(took_s >= 7.0, "{took_s} s");
    Ok(Promises::new()
        .expect(
            most <= allowed(per_second) + ITEMS as usize,
            format!("{most} items of {per_second} in any second"),
        )
        .expect(took_s < 9.0, format!("all after {took_s} s of 9")))
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_cap_that_is_changed_takes_effect_while_it_runs() -> Result<()> {
    kept_in_one_run(a_changed_cap).await
}

async fn a_changed_cap() -> Result<Promises> {
    let upstream = Upstream::start(Settings {
        service_ms: 5.0,
        ..Settings::default()
    })
    .await?;
    let capped = |per_second| {
        Ingest::new(&upstream.url()).application(
            "shop",
            KEY,
            json!({ "throttle": cap(per_second) }),
        )
    };
    const RAISED_WITHIN: Duration = Duration::from_secs(5);
    let mut gateway = Gateway::start(&capped(10.0)).await?;
    let began = Instant::now();
    for seq in 1..=120_u64 {
        gateway
            .event(&format!("d{}", seq % 12), seq.div_ceil(12))
            .await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = upstream.stats().await?.applied;
    let most = allowed(10.0) as f64 * (began.elapsed().as_secs_f64() + 1.0);
    ensure!(before as f64 <= most, "{before} of {most:.0} at 10/s");
    ensure!(before < 110, "nothing is left to go faster with");
    gateway.rewrite(&capped(500.0))?;
    let raised = Instant::now();
    gateway.drained(RAISED_WITHIN * 8).await?;
    let took = raised.elapsed();
    let figure = format!("the rest in {took:?} of {RAISED_WITHIN:?}");
    Ok(Promises::new().expect(took < RAISED_WITHIN, figure))
}
