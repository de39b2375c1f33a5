//! Several upstreams share the load, and one that dies is replaced by the others.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::http_load::outcome::Outcome;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, done_by_both, done_in_order};
use sluice_e2e::load::clock::now_ns;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::analysis::is_done;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, FaultKind, Settings};
use tokio::time::sleep;

async fn upstream() -> Result<Upstream> {
    Upstream::start(Settings {
        workers: 5,
        service_ms: 50.0,
        line: 30,
        ..Settings::default()
    })
    .await
}

fn both(first: &Upstream, second: &Upstream, priority: u32) -> Ingest {
    let upstreams: Value = json!([
        { "name": "main", "url": first.url() },
        { "name": "spare", "url": second.url(), "priority": priority },
    ]);
    Ingest::new("http://127.0.0.1:1").set("upstreams", upstreams)
}

#[tokio::test]
async fn one_of_two_dies_and_the_other_takes_all() -> Result<()> {
    kept_in_one_run(one_of_two_dies).await
}

async fn one_of_two_dies() -> Result<Promises> {
    let (first, second) = (upstream().await?, upstream().await?);
    let gateway = Gateway::start(&both(&first, &second, 0)).await?;
    let load = Load::start(Plan::new(
        gateway.address(),
        KEY,
        vec![Phase::rate(80.0, 18.0)],
    ))?;
    sleep(Duration::from_secs(4)).await;
    first.fail(&[Fault::of(FaultKind::Down)]).await?;
    let (died_ns, shared) = (now_ns(), first.stats().await?.applied);
    sleep(Duration::from_secs(4)).await;
    first.heal().await?;
    let outcome = load.outcome().await?;
    gateway.drained(Duration::from_secs(80)).await?;
    assert_eq!((outcome.acked, outcome.refused()), (1440, 0));
    let records = done_by_both(&first, &second).await?;
    let again = done_in_order(&records, &outcome)?;
    // At most what was on its way to the one that died.
    ensure!(again <= 20, "{again} carried out twice");
    // The other one took the load within two seconds and lost nothing of it.
    let second_s = |n: u64| died_ns + n * 1_000_000_000;
    let took = second
        .records()
        .await?
        .iter()
        .filter(|r| is_done(r) && (second_s(2)..second_s(4)).contains(&r.done_ns))
        .count();
    // And the first is used again when it is back.
    let back = first.stats().await?.applied - shared;
    Ok(Promises::new()
        .expect(
            shared > 80,
            format!("{shared} of 320 went to the first before it died"),
        )
        .expect(
            took >= 140,
            format!("{took} went to the second in two seconds of 80/s"),
        )
        .expect(
            back > 100,
            format!("{back} went to the first after it was back"),
        ))
}

#[tokio::test]
async fn a_spare_one_is_used_only_when_the_main_one_cannot_take_more() -> Result<()> {
    kept_in_one_run(a_spare_one).await
}

async fn a_spare_one() -> Result<Promises> {
    let (first, second) = (upstream().await?, upstream().await?);
    let gateway = Gateway::start(&both(&first, &second, 1)).await?;
    // The first seconds are for learning how much the main one takes.
    let load = async |first_device: usize, per_second: f64, seconds: f64| -> Result<Outcome> {
        let mut plan = Plan::new(
            gateway.address(),
            KEY,
            vec![Phase::rate(per_second, seconds)],
        );
        plan.first_device = first_device;
        Load::start(plan)?.outcome().await
    };
    load(0, 40.0, 3.0).await?;
    gateway.drained(Duration::from_secs(80)).await?;
    let learning = second.stats().await?.applied;
    let outcome = load(10_000, 40.0, 5.0).await?;
    gateway.drained(Duration::from_secs(80)).await?;
    let spare = second.stats().await?.applied - learning;
    let loud = load(20_000, 180.0, 6.0).await?;
    // 100/s of the main one would leave 480 after six seconds.
    sleep(Duration::from_secs(2)).await;
    let waiting = gateway.waiting().await?;
    gateway.drained(Duration::from_secs(80)).await?;
    let taken = second.stats().await?.applied - learning - spare;
    Ok(Promises::new()
        .expect(
            spare <= outcome.acked / 20,
            format!("{spare} of {} went to the spare one", outcome.acked),
        )
        .expect(
            waiting < 200.0,
            format!("{waiting} wait although there is a spare one"),
        )
        .expect(
            taken > 200,
            format!("{taken} of {} went to the spare one", loud.acked),
        ))
}

/// Waits until the gateway finds the main upstream healthy, or not.
async fn until_main_is(healthy: bool, gateway: &Gateway) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let report = gateway.admin("/lanes").await?;
        let upstreams = report["upstreams"].as_array().cloned().unwrap_or_default();
        let main = upstreams.iter().find(|upstream| upstream["name"] == "main");
        if main.is_some_and(|main| main["healthy"] == healthy) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "healthy is not {healthy}: {report}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn one_that_fails_its_health_checks_gets_nothing() -> Result<()> {
    let (first, second) = (upstream().await?, upstream().await?);
    let health = json!({ "path": "/ping", "interval": "1s" });
    let upstreams = json!([
        { "name": "main", "url": first.url(), "health": health },
        { "name": "spare", "url": second.url(), "health": health },
    ]);
    let ingest = Ingest::new("http://127.0.0.1:1").set("upstreams", upstreams);
    let gateway = Gateway::start(&ingest).await?;
    // Requests of devices would be answered well, only checks fail.
    first.set(json!({ "ill": true })).await?;
    until_main_is(false, &gateway).await?;
    let before = first.stats().await?.applied;
    let plan = Plan::new(gateway.address(), KEY, vec![Phase::rate(50.0, 3.0)]);
    let outcome = Load::start(plan)?.outcome().await?;
    gateway.drained(Duration::from_secs(80)).await?;
    assert_eq!(first.stats().await?.applied, before);
    assert_eq!(second.stats().await?.applied, outcome.acked);
    first.set(json!({ "ill": false })).await?;
    until_main_is(true, &gateway).await?;
    let mut plan = Plan::new(gateway.address(), KEY, vec![Phase::rate(50.0, 3.0)]);
    plan.first_device = 10_000;
    Load::start(plan)?.outcome().await?;
    ensure!(first.stats().await?.applied > before + 20, "not used again");
    Ok(())
}
