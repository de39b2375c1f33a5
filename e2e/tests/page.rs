//! The monitor's page of a standalone gateway, in a real browser: true figures, soon; requests looked at and replayed; readable by all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{APP, Gateway, Ingest, KEY};
use sluice_e2e::page::Page;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, Settings};
use tokio::task::block_in_place;

const SOON: Duration = Duration::from_secs(20);
/// A change is seen within this.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// A setting is in force within this.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);
/// Requests per second: before and after the spike, and in it.
const CALM: f64 = 20.0;
const SPIKE: f64 = 200.0;
const CALM_S: f64 = 10.0;
const SPIKE_S: f64 = 10.0;
const VIEWS: [&str; 7] = [
    "Overview",
    "Throttle",
    "Pods",
    "Applications",
    "Upstreams",
    "Requests",
    "Settings",
];

fn limited(upstream: &Upstream, per_minute: u64) -> Ingest {
    let throttle = json!({ "throttle": { "requestsPerMinute": per_minute } });
    Ingest::new(&upstream.url())
        .without_applications()
        .application(APP, KEY, throttle)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spike_is_seen_as_it_happens_and_counted_to_the_last_request() -> Result<()> {
    kept_in_one_run(spike).await
}

async fn spike() -> Result<Promises> {
    let upstream = Upstream::start(Settings::default()).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let mut page = block_in_place(|| Page::start("spike"))?;
    block_in_place(|| page.open(&format!("http://{}/", gateway.sluice.admin)))?;
    let load = Load::start(Plan::new(
        gateway.address(),
        KEY,
        vec![
            Phase::rate(CALM, CALM_S),
            Phase::rate(SPIKE, SPIKE_S),
            Phase::rate(CALM, CALM_S),
        ],
    ))?;
    let (rises, falls) = block_in_place(|| -> Result<_> {
        let calm = CALM * 60.0;
        page.until("#incoming", SOON, |rate| (rate / calm - 1.0).abs() < 0.15)?;
        let acked = || load.acked() as f64;
        while acked() < CALM * CALM_S + 1.0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let rises = page.until("#incoming", SOON, |rate| rate > 2.0 * calm)?;
        let most = page.until("#incoming", SOON, |rate| rate > 0.9 * SPIKE * 60.0)?;
        eprintln!(
            "twice as many are shown {rises:?} after the spike began, nearly all after {most:?} more"
        );
        while acked() < CALM * CALM_S + SPIKE * SPIKE_S {
            std::thread::sleep(Duration::from_millis(5));
        }
        let falls = page.until("#incoming", SOON, |rate| rate < 0.75 * SPIKE * 60.0)?;
        eprintln!("it falls {falls:?} after the end");
        Ok((rises, falls))
    })?;
    let outcome = load.outcome().await?;
    gateway.drained(SOON).await?;
    let applied = upstream.stats().await?.applied;
    block_in_place(|| {
        page.until("#arrived-total", SOON, |count| {
            count == outcome.acked as f64
        })?;
        page.until("#delivered-total", SOON, |count| count == applied as f64)?;
        page.pictures("overview")?;
        page.no_complaints()
    })?;
    Ok(Promises::new()
        .expect(rises <= SEEN_WITHIN, format!("rises after {rises:?}"))
        .expect(falls <= SEEN_WITHIN, format!("falls after {falls:?}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_can_be_looked_at_and_a_parked_request_is_replayed() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let refuses = Fault {
        device: Some("bad".to_owned()),
        ..Fault::reply(400, r#"{"result":"Invalid parameter \"events\""}"#)
    };
    upstream.fail(&[refuses]).await?;
    let mut gateway = Gateway::start(&limited(&upstream, 600)).await?;
    for seq in 1..=3 {
        gateway.event("bad", seq).await?;
        gateway.event("good", seq).await?;
    }
    let mut page = block_in_place(|| Page::start("views"))?;
    block_in_place(|| {
        page.open(&format!("http://{}/", gateway.sluice.admin))?;
        page.until("#failed-total", SOON, |count| count == 3.0)?;
        for view in VIEWS {
            page.click("link", view)?;
            page.wait(
                "h2",
                if view == "Throttle" {
                    "Throttle activity"
                } else {
                    view
                },
            )?;
            page.pictures(&view.to_lowercase())?;
        }
        page.no_complaints()
    })?;
    upstream.heal().await?;
    block_in_place(|| replay(&mut page))?;
    upstream.until(SOON, |stats| stats.applied == 4).await?;
    // A setting that is changed in its file.
    gateway.rewrite(&limited(&upstream, 720))?;
    block_in_place(|| {
        page.click("link", "Settings")?;
        let began = std::time::Instant::now();
        page.wait("tbody tr", "720 per minute")?;
        ensure!(began.elapsed() < IN_FORCE_WITHIN, "{:?}", began.elapsed());
        page.no_complaints()
    })?;
    gateway.kill()?;
    block_in_place(|| page.wait(".stale", "No answer for"))
}

/// Finds one that is parked, looks at it and has it sent again, with the keyboard where that is to be possible.
fn replay(page: &mut Page) -> Result<()> {
    page.click("link", "Requests")?;
    page.tell("choose", json!({ "label": "State", "value": "parked" }))?;
    page.tell("fill", json!({ "label": "Application", "value": APP }))?;
    page.tell("press", json!({ "key": "Enter" }))?;
    page.wait("tbody tr", "parked")?;
    let rows = page.text("tbody")?;
    ensure!(rows.matches("parked").count() == 3, "{rows}");
    page.tell(
        "click",
        json!({ "role": "button", "name": first_look(&rows)? }),
    )?;
    page.wait("#look-title", "device_id=bad")?;
    page.wait("dialog", "400")?;
    page.pictures("request")?;
    page.click("button", "Replay")?;
    page.wait("dialog [role=status]", "Replayed as")?;
    page.tell("press", json!({ "key": "Escape" }))?;
    page.wait("tbody tr", "parked")?;
    let rows = page.text("tbody")?;
    ensure!(rows.matches("parked").count() == 2, "{rows}");
    page.no_complaints()
}

fn first_look(rows: &str) -> Result<String> {
    let accepted = rows.split('\t').next().context("a row")?;
    Ok(format!("Look at the request of {}", accepted.trim()))
}
