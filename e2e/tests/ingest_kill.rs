//! A gateway that is killed in the middle of a spike has lost nothing that it acknowledged.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::shape::Shape;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, nothing_lost};
use sluice_e2e::load::clock::now_ns;
use sluice_e2e::upstream::analysis::is_done;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::record::Record;
use sluice_e2e::upstream::settings::{Fault, Settings};
use tokio::time::sleep;

/// Answers that came so shortly before the kill may not have been written down.
const WRITING: Duration = Duration::from_millis(100);

async fn upstream() -> Result<Upstream> {
    Upstream::start(Settings {
        workers: 10,
        service_ms: 50.0,
        line: 40,
        ..Settings::default()
    })
    .await
}

/// Requests that the upstream carried out so that the gateway may not know it when it is killed at this time.
fn in_flight(records: &[Record], killed_ns: u64) -> u64 {
    let from = killed_ns - WRITING.as_nanos() as u64;
    records
        .iter()
        .filter(|r| is_done(r) && r.arrived_ns <= killed_ns && r.done_ns >= from)
        .count() as u64
}

#[tokio::test]
async fn killed_twice_in_a_spike_it_loses_nothing() -> Result<()> {
    let upstream = upstream().await?;
    let mut gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let phases = vec![
        Phase::rate(50.0, 2.0),
        Phase::rate(400.0, 8.0),
        Phase::rate(50.0, 2.0),
    ];
    let mut plan = Plan::new(gateway.address(), KEY, phases);
    plan.shape = Shape::post(KEY, 300);
    let load = Load::start(plan)?;
    let mut kills = Vec::new();
    for _ in 0..2 {
        sleep(Duration::from_secs(4)).await;
        gateway.kill()?;
        kills.push(now_ns());
        gateway.restart().await?;
    }
    let outcome = load.outcome().await?;
    assert_eq!(outcome.given_up, 0, "{outcome:?}");
    gateway.drained(Duration::from_secs(120)).await?;
    let records = upstream.records().await?;
    let stats = upstream.stats().await?;
    let more = nothing_lost(&upstream, &outcome).await?;
    ensure!(more == 0, "{more} numbers that no device sent");
    // Twice only where an answer was under way, to the gateway or to a client that then sent again.
    let unknown: u64 = kills.iter().map(|at| in_flight(&records, *at)).sum();
    let doubts = outcome.in_doubt.len() as u64;
    let twice = stats.duplicates_ignored + stats.repeated;
    ensure!(
        twice <= unknown + doubts,
        "{twice} twice; {unknown} answers were under way, {doubts} requests in doubt"
    );
    ensure!(
        stats.repeated == 0,
        "the duplicate filter missed some: {stats:?}"
    );
    assert_eq!(gateway.metric("sluice_ingest_parked_total", "").await?, 0.0);
    Ok(())
}

#[tokio::test]
async fn what_was_accepted_is_delivered_waiting_or_parked_exactly() -> Result<()> {
    let upstream = upstream().await?;
    // Devices 0 to 9 get a lasting error: their requests are parked.
    let lasting = |device: usize| Fault {
        device: Some(format!("d{device:09}")),
        ..Fault::reply(400, r#"{"result":"Invalid parameter \"events\""}"#)
    };
    upstream
        .fail(&(0..10).map(lasting).collect::<Vec<_>>())
        .await?;
    let mut gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let mut plan = Plan::new(gateway.address(), KEY, vec![Phase::rate(400.0, 6.0)]);
    // Connections that end with the gateway are not tried again: what was in doubt stays in doubt.
    plan.grace = Duration::ZERO;
    let load = Load::start(plan)?;
    sleep(Duration::from_secs(4)).await;
    gateway.kill()?;
    let killed_ns = now_ns();
    load.stop();
    let outcome = load.outcome().await?;
    // Nothing is delivered from here on, so that all can be counted.
    upstream.fail(&[Fault::reply(503, "")]).await?;
    gateway.restart().await?;
    sleep(Duration::from_secs(1)).await;

    let records = upstream.records().await?;
    let done: HashSet<(&str, u64)> = records
        .iter()
        .filter(|r| is_done(r))
        .map(|r| (&*r.device, r.seq))
        .collect();
    let refused: HashSet<(&str, u64)> = records
        .iter()
        .filter(|r| r.status == 400)
        .map(|r| (&*r.device, r.seq))
        .collect();
    let waiting = gateway.waiting().await? as u64;
    let parked = count(&gateway, "parked").await?;
    let delivered = count(&gateway, "delivered").await?;
    let (accepted, doubts) = (outcome.acked, outcome.in_doubt.len() as u64);
    let sum = waiting + parked + delivered;
    ensure!(
        (accepted..=accepted + doubts).contains(&sum),
        "{accepted} accepted and {doubts} in doubt, but {delivered} delivered + {waiting} waiting + {parked} parked"
    );
    ensure!(
        parked > 0 && waiting > 100,
        "{parked} parked, {waiting} waiting"
    );
    // What the gateway says is delivered or parked is so; the other way round, answers may have been under way.
    let unknown = in_flight(&records, killed_ns);
    let there = done.len() as u64;
    ensure!(
        delivered <= there && there <= delivered + unknown,
        "{there} arrived, {delivered} delivered, {unknown} answers under way"
    );
    ensure!(
        parked <= refused.len() as u64,
        "{parked} parked of {}",
        refused.len()
    );

    upstream.heal().await?;
    gateway.drained(Duration::from_secs(120)).await?;
    let delivered = count(&gateway, "delivered").await?;
    let parked_after = count(&gateway, "parked").await?;
    assert_eq!((delivered + parked_after, parked_after), (sum, parked));
    let stats = upstream.stats().await?;
    ensure!(
        stats.duplicates_ignored + stats.repeated <= unknown && stats.repeated == 0,
        "{stats:?}, {unknown} answers under way"
    );
    Ok(())
}

/// How many requests of this state the gateway finds.
async fn count(gateway: &Gateway, state: &str) -> Result<u64> {
    Ok(gateway.find(&format!("state={state}")).await?.len() as u64)
}

#[tokio::test]
async fn a_torn_end_is_cut_and_the_rest_is_there() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let paused = json!({ "processing": "Paused" });
    let ingest = Ingest::new(&upstream.url()).application("shop", KEY, paused);
    let mut gateway = Gateway::start(&ingest).await?;
    for seq in 1..=50 {
        assert_eq!(gateway.event("anna", seq).await?.status, 200);
    }
    gateway.kill()?;
    // As after a power cut: something was being written to the newest file.
    let newest = newest_file(gateway.data())?;
    let mut text = std::fs::read(&newest)?;
    text.extend((0..777).map(|_| fastrand::u8(..)));
    std::fs::write(&newest, text)?;
    gateway.restart().await?;
    assert_eq!(gateway.waiting().await?, 50.0);
    gateway.rewrite(&Ingest::new(&upstream.url()))?;
    gateway.drained(Duration::from_secs(120)).await?;
    let stats = upstream.stats().await?;
    assert_eq!(
        (stats.applied, stats.out_of_order, stats.missing),
        (50, 0, 0)
    );
    Ok(())
}

/// The file below this directory that was written to last.
fn newest_file(directory: &std::path::Path) -> Result<std::path::PathBuf> {
    let mut newest = None;
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() {
                folders.push(entry.path());
            } else if about.len() > 0 {
                newest = newest.max(Some((about.modified()?, entry.path())));
            }
        }
    }
    newest
        .map(|(_, path)| path)
        .ok_or_else(|| anyhow::anyhow!("nothing is stored in {}", directory.display()))
}
