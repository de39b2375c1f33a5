//! The monitor's page of a standalone gateway, in a real browser: everything can be looked at, by everybody; requests are replayed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::ingest::{APP, Gateway, Ingest, KEY};
use sluice_e2e::page::Page;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, Settings};
use tokio::task::block_in_place;

const SOON: Duration = Duration::from_secs(20);
/// A setting is in force within this.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);
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
        let began = Instant::now();
        page.wait("tbody tr", "720 per minute")?;
        ensure!(began.elapsed() < IN_FORCE_WITHIN, "{:?}", began.elapsed());
        page.no_complaints()
    })?;
    gateway.kill()?;
    block_in_place(|| page.wait(".stale", "No answer for"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_applications_are_found_by_name_at_once() -> Result<()> {
    const COUNT: usize = 1_000;
    /// Asked once a second; and typed, asked and drawn.
    const FOUND_WITHIN: Duration = Duration::from_secs(3);
    let upstream = Upstream::start(Settings::default()).await?;
    let names = (0..COUNT).map(|n| format!("app-{n:04}"));
    let ingest = names.fold(
        Ingest::new(&upstream.url()).without_applications(),
        |ingest, name| ingest.application(&name, &format!("key-{name}"), json!({})),
    );
    let gateway = Gateway::start(&ingest).await?;
    let mut page = block_in_place(|| Page::start("thousand"))?;
    block_in_place(|| {
        page.open(&format!("http://{}/", gateway.sluice.admin))?;
        page.click("link", "Applications")?;
        let began = Instant::now();
        page.wait(".note", "The busiest 100 of 1,000")?;
        let shown = began.elapsed();
        let began = Instant::now();
        page.tell("fill", json!({ "label": "Name contains", "value": "0777" }))?;
        page.wait("tbody", "app-0777")?;
        let rows = page.text("tbody")?;
        let found = began.elapsed();
        eprintln!("{COUNT} applications: shown after {shown:?}, one of them found after {found:?}");
        ensure!(rows.lines().count() == 1, "{rows}");
        ensure!(
            shown < FOUND_WITHIN && found < FOUND_WITHIN,
            "{shown:?} {found:?}"
        );
        page.pictures("applications")?;
        page.no_complaints()
    })
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
    // The list is asked for again when the dialog is closed.
    let closed = Instant::now();
    loop {
        let rows = page.text("tbody")?;
        if rows.matches("parked").count() == 2 {
            break;
        }
        ensure!(closed.elapsed() < SOON, "{rows}");
        std::thread::sleep(Duration::from_millis(50));
    }
    page.no_complaints()
}

fn first_look(rows: &str) -> Result<String> {
    let accepted = rows.split('\t').next().context("a row")?;
    Ok(format!("Look at the request of {}", accepted.trim()))
}
