//! The monitor on a real cluster, in a real browser: who may see and change what, and that what is changed there is in force.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::deployed::people::{ask, monitors, token};
use sluice_e2e::deployed::{APP_KEY, Deployed, Install, operators};
use sluice_e2e::http;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{event, nothing_lost};
use sluice_e2e::openapi;
use sluice_e2e::page::Page;
use sluice_e2e::upstream::settings::Fault;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(60);
const SCENARIO: Duration = Duration::from_secs(420);
/// A change of the traffic is seen on the page within this, and one that is made there in the traffic.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);
/// Requests per second: before and after the spike, and in it.
const CALM: f64 = 10.0;
const SPIKE: f64 = 100.0;
const PHASE_S: f64 = 12.0;
/// While the limit is changed: much more than what it will be.
const STEADY: f64 = 20.0;
const STEADY_S: f64 = 40.0;
const LIMIT_PER_MINUTE: u64 = 120;
const STEP: Duration = Duration::from_millis(100);
/// What is delivered is counted over this.
const OVER: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn people_see_and_change_what_they_may() -> Result<()> {
    let deployed = Deployed::start("monitor", Install::AsInReadme).await?;
    let scenario = timeout(SCENARIO, scenario(&deployed)).await;
    let scenario = scenario.context("it takes too long").flatten();
    deployed.namespace.explain(scenario)
}

struct People {
    editor: String,
    viewer: String,
    stranger: String,
}

async fn scenario(deployed: &Deployed) -> Result<()> {
    let people = People {
        editor: token(deployed, "editor", Some("edit")).await?,
        viewer: token(deployed, "viewer", Some("view")).await?,
        stranger: token(deployed, "stranger", None).await?,
    };
    let all = monitors(deployed).await?;
    ensure!(all.len() == 2, "{all:?}");
    // The one that leads, and one that asks it.
    for monitor in &all {
        rights(deployed, *monitor, &people).await?;
    }
    let follower = *all.last().context("a monitor")?;
    conflicts(deployed, follower, &people.editor).await?;
    let mut page = block_in_place(|| Page::start("cluster"))?;
    block_in_place(|| log_in(&mut page, follower, &people.editor))?;
    spike(deployed, &mut page).await?;
    parked(deployed, &mut page).await?;
    limited(deployed, &mut page).await?;
    block_in_place(|| {
        // The value that was refused.
        page.complaints_of("422")?;
        viewer_sees(&mut page, follower, &people.viewer)
    })?;
    another_leader(deployed, &people.editor).await
}

fn of(deployed: &Deployed) -> String {
    format!("/gateways/{}/demo", deployed.namespace.name())
}

/// Who may what, through one of the operators.
async fn rights(deployed: &Deployed, monitor: SocketAddr, people: &People) -> Result<()> {
    let of = of(deployed);
    let named = json!({ "namespace": deployed.namespace.name(), "name": "demo" });
    let gateways = async |token: &str| -> Result<bool> {
        let answer = ask(monitor, token, "GET", "", &Value::Null).await?;
        let listed = answer.json()?["gateways"].take();
        let listed = listed.as_array().context("gateways")?.contains(&named);
        Ok(listed)
    };
    ensure!(gateways(&people.editor).await? && gateways(&people.viewer).await?);
    ensure!(!gateways(&people.stranger).await?, "a stranger sees it");
    let may = async |token: &str| -> Result<Value> {
        let answer = ask(monitor, token, "GET", &format!("{of}/rights"), &Value::Null).await?;
        answer.json()
    };
    let (all, nothing) = (
        json!({ "requests": true, "replay": true, "edit": true }),
        json!({ "requests": false, "replay": false, "edit": false }),
    );
    ensure!(
        may(&people.editor).await? == all,
        "{}",
        may(&people.editor).await?
    );
    ensure!(
        may(&people.viewer).await? == nothing,
        "{}",
        may(&people.viewer).await?
    );
    let (settings, requests) = (format!("{of}/settings/gateway"), format!("{of}/requests"));
    let change = json!({ "generation": 1, "spec": { "ingest": { "throttle": { "requestsPerMinute": 7 } } } });
    for (token, method, path, body, status) in [
        ("", "GET", of.as_str(), &Value::Null, 401),
        ("made-up", "GET", &of, &Value::Null, 401),
        (&people.stranger, "GET", &of, &Value::Null, 403),
        (&people.stranger, "PATCH", &settings, &change, 403),
        (&people.viewer, "GET", &of, &Value::Null, 200),
        (&people.viewer, "GET", &settings, &Value::Null, 200),
        (&people.viewer, "PATCH", &settings, &change, 403),
        (&people.viewer, "GET", &requests, &Value::Null, 403),
        (
            &people.viewer,
            "POST",
            &format!("{requests}/replay?state=parked"),
            &Value::Null,
            403,
        ),
        (&people.editor, "GET", &requests, &Value::Null, 200),
    ] {
        let answer = ask(monitor, token, method, path, body).await?;
        ensure!(
            answer.status == status,
            "{method} {path}: {} {}",
            answer.status,
            answer.text()
        );
    }
    Ok(())
}

/// What is wrong is said in the rule's words, and what somebody else has changed meanwhile is not overwritten.
async fn conflicts(deployed: &Deployed, monitor: SocketAddr, editor: &str) -> Result<()> {
    let name = deployed.namespace.name();
    let path = format!("{}/settings/applications/{name}/demo", of(deployed));
    let seen = ask(monitor, editor, "GET", &path, &Value::Null)
        .await?
        .json()?;
    let change = async |limit: Value, generation: &Value, dry: bool| {
        let spec = json!({ "throttle": { "requestsPerMinute": limit } });
        let body = json!({ "generation": generation, "spec": spec });
        let path = format!("{path}?dryRun={dry}");
        ask(monitor, editor, "PATCH", &path, &body).await
    };
    let generation = &seen["generation"];
    for (limit, word) in [
        (json!(0), "greater than or equal to 1"),
        (json!("many"), "must be of type integer"),
    ] {
        let refused = change(limit, generation, true).await?;
        ensure!(
            refused.status == 422 && refused.text().contains(word),
            "{}",
            refused.text()
        );
    }
    let tried = change(json!(9_000), generation, true).await?.json()?;
    ensure!(
        tried["spec"]["throttle"]["requestsPerMinute"] == 9_000,
        "{tried}"
    );
    let document = openapi::monitor()?;
    let schema = &document["components"]["schemas"]["Written"];
    openapi::hold(&document, schema, &tried, &path)?;
    let kept = ask(monitor, editor, "GET", &path, &Value::Null)
        .await?
        .json()?;
    ensure!(
        kept["generation"] == *generation,
        "a trial was written: {kept}"
    );
    let patch = r#"{"spec": {"throttle": {"weight": 2}}}"#;
    let words = ["patch", "slapp/demo", "--type=merge", "--patch", patch];
    deployed.namespace.kubectl(&words).await?;
    let refused = change(json!(9_000), generation, false).await?;
    ensure!(
        refused.status == 409 && refused.text().contains("somebody else"),
        "{}",
        refused.text()
    );
    Ok(())
}

fn log_in(page: &mut Page, monitor: SocketAddr, token: &str) -> Result<()> {
    page.open(&format!("http://{monitor}/"))?;
    page.wait("form", "kubectl create token")?;
    page.pictures("login")?;
    page.tell("fill", json!({ "label": "Token", "value": "made-up" }))?;
    page.click("button", "Look")?;
    page.wait(".problem", "not one of this cluster")?;
    page.tell("fill", json!({ "label": "Token", "value": token }))?;
    page.click("button", "Look")?;
    page.wait("h2", "Overview")?;
    page.complaints_of("401")
}

/// Ten times as many requests are seen as they come and go, and counted to the last one.
async fn spike(deployed: &Deployed, page: &mut Page) -> Result<()> {
    let phases = [CALM, SPIKE, CALM].map(|rate| Phase::rate(rate, PHASE_S));
    let load = Load::start(Plan::new(deployed.address, APP_KEY, phases.into()))?;
    let acked = |count: f64| {
        while (load.acked() as f64) < count {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let (rises, falls) = block_in_place(|| -> Result<_> {
        let calm = CALM * 60.0;
        page.until("#incoming", SOON, |rate| (rate / calm - 1.0).abs() < 0.2)?;
        acked(CALM * PHASE_S + 1.0);
        let rises = page.until("#incoming", SOON, |rate| rate > 2.0 * calm)?;
        acked((CALM + SPIKE) * PHASE_S);
        let falls = page.until("#incoming", SOON, |rate| rate < 0.75 * SPIKE * 60.0)?;
        Ok((rises, falls))
    })?;
    let outcome = load.outcome().await?;
    let acked = outcome.acked;
    let all = |stats: &sluice_e2e::upstream::record::Stats| stats.applied >= acked;
    deployed.upstream.until(SOON, all).await?;
    nothing_lost(&deployed.upstream, &outcome).await?;
    block_in_place(|| {
        page.until("#arrived-total", SOON, |count| count == acked as f64)?;
        page.until("#delivered-total", SOON, |count| count == acked as f64)?;
        for view in ["Overview", "Throttle", "Pods", "Applications", "Upstreams"] {
            page.click("link", view)?;
            page.pictures(&view.to_lowercase())?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    eprintln!(
        "a spike is seen rising after {rises:?} and falling after {falls:?}; {acked} requests are counted"
    );
    ensure!(
        rises <= SEEN_WITHIN && falls <= SEEN_WITHIN,
        "{rises:?} {falls:?}"
    );
    Ok(())
}

/// A request that the upstream refuses is found, looked at, and sent again.
async fn parked(deployed: &Deployed, page: &mut Page) -> Result<()> {
    let refuses = Fault {
        device: Some("bad".to_owned()),
        ..Fault::reply(400, r#"{"result":"Invalid parameter \"events\""}"#)
    };
    deployed.upstream.fail(&[refuses]).await?;
    let before = deployed.upstream.stats().await?.applied;
    let answer = http::get(deployed.address, &event(APP_KEY, "bad", 1)).await?;
    ensure!(answer.status == 200, "{}", answer.status);
    block_in_place(|| {
        page.click("link", "Overview")?;
        page.until("#parked-total", SOON, |count| count == 1.0)?;
        page.click("link", "Requests")?;
        page.tell("choose", json!({ "label": "State", "value": "parked" }))?;
        page.click("button", "Find")?;
        page.wait("tbody tr", "parked")
    })?;
    deployed.upstream.heal().await?;
    block_in_place(|| {
        let row = page.text("tbody")?;
        let accepted = row.split('\t').next().context("a row")?.trim().to_owned();
        page.click("button", &format!("Look at the request of {accepted}"))?;
        page.wait("#look-title", "device_id=bad")?;
        page.pictures("request")?;
        page.click("button", "Replay")?;
        page.wait("dialog [role=status]", "Replayed as")?;
        page.click("button", "Close")
    })?;
    deployed
        .upstream
        .until(SOON, |stats| stats.applied == before + 1)
        .await?;
    Ok(())
}

/// A limit that is set on the page holds the traffic back within seconds, and is in the object.
async fn limited(deployed: &Deployed, page: &mut Page) -> Result<()> {
    let before = deployed.upstream.stats().await?.requests;
    let load = Load::start(Plan::new(
        deployed.address,
        APP_KEY,
        vec![Phase::rate(STEADY, STEADY_S)],
    ))?;
    block_in_place(|| {
        page.click("link", "Settings")?;
        page.pictures("settings")?;
        page.click("button", "Edit demo")?;
        page.wait("#edit-title", "Application")?;
        let limit = "Limit, requests per minute";
        page.tell("fill", json!({ "label": limit, "value": "0" }))?;
        page.click("button", "Review")?;
        page.wait("dialog .problem", "greater than or equal to 1")?;
        page.pictures("refused")?;
        let value = LIMIT_PER_MINUTE.to_string();
        page.tell("fill", json!({ "label": limit, "value": value }))?;
        page.click("button", "Review")?;
        page.wait("dialog .difference", "spec.throttle.requestsPerMinute")?;
        page.pictures("difference")?;
        Ok::<_, anyhow::Error>(())
    })?;
    let allowed = LIMIT_PER_MINUTE as f64 / 60.0 * 2.0;
    let since = deployed.upstream.stats().await?.requests;
    sleep(OVER).await;
    let flows = (deployed.upstream.stats().await?.requests - since) as f64;
    block_in_place(|| page.click("button", "Save"))?;
    let saved = Instant::now();
    ensure!(flows > allowed, "only {flows} a second before");
    let held = held_back(deployed, saved, allowed).await?;
    block_in_place(|| {
        page.wait("dialog [role=status]", "Saved")?;
        page.click("button", "Close")?;
        page.wait("tbody tr", "120 per minute")
    })?;
    let yaml = ["get", "application", "demo", "--output=yaml"];
    let yaml = deployed.namespace.kubectl(&yaml).await?;
    ensure!(yaml.contains("requestsPerMinute: 120"), "{yaml}");
    eprintln!("a limit set on the page holds back after {held:?}");
    ensure!(held <= IN_FORCE_WITHIN, "{held:?}");
    block_in_place(|| {
        page.click("link", "Throttle")?;
        page.wait("tbody tr", "the application's cap")?;
        page.pictures("throttled")?;
        // Without it again, all that waits goes.
        page.click("link", "Settings")?;
        page.click("button", "Edit demo")?;
        page.tell(
            "fill",
            json!({ "label": "Limit, requests per minute", "value": "" }),
        )?;
        page.click("button", "Review")?;
        page.wait("dialog .difference", "unset")?;
        page.click("button", "Save")?;
        page.wait("dialog [role=status]", "Saved")?;
        page.click("button", "Close")
    })?;
    let outcome = load.outcome().await?;
    let all = before + outcome.acked;
    deployed
        .upstream
        .until(SOON, |stats| stats.requests == all)
        .await?;
    Ok(())
}

/// How long after a moment no more is delivered than the limit allows, over a second.
async fn held_back(deployed: &Deployed, since: Instant, allowed: f64) -> Result<Duration> {
    let mut counts: Vec<(Duration, u64)> = Vec::new();
    loop {
        let requests = deployed.upstream.stats().await?.requests;
        let now = since.elapsed();
        ensure!(now < SOON, "nothing is held back: {counts:?}");
        counts.push((now, requests));
        let before = counts.iter().rev().find(|(at, _)| now - *at >= OVER);
        if let Some((at, before)) = before
            && (requests - before) as f64 <= allowed
        {
            return Ok(*at);
        }
        sleep(STEP).await;
    }
}

/// Somebody who may look, and nothing else.
fn viewer_sees(page: &mut Page, monitor: SocketAddr, token: &str) -> Result<()> {
    page.click("button", "Forget the token")?;
    page.wait("form", "kubectl create token")?;
    page.tell("fill", json!({ "label": "Token", "value": token }))?;
    page.click("button", "Look")?;
    page.open(&format!("http://{monitor}/"))?;
    page.click("link", "Settings")?;
    page.wait(".note", "You may not change them")?;
    let said = page.text("main")?;
    ensure!(!said.contains("Edit"), "{said}");
    page.pictures("viewer")?;
    page.click("link", "Requests")?;
    page.wait(".note", "You may not look at requests")
}

/// The monitor goes on when the operator that led is gone, and shows how it was before.
async fn another_leader(deployed: &Deployed, editor: &str) -> Result<()> {
    let all = monitors(deployed).await?;
    let (led, stays) = (all.first(), *all.last().context("a monitor")?);
    operators::kill_leader(deployed.namespace.cluster()).await?;
    let since = Instant::now();
    let path = format!("{}/series?seconds=600", of(deployed));
    let most = |series: &Value| {
        let arrived = series["columns"]["arrivedPerMinute"].as_array();
        let arrived = arrived.into_iter().flatten().filter_map(Value::as_f64);
        arrived.fold(0.0, f64::max)
    };
    let answers = async || {
        // Nobody leads for a while; then the one that stays does, or the one that came for the killed one.
        let now = monitors(deployed).await.unwrap_or_default();
        if now.is_empty() || now.first() == led {
            return Ok(false);
        }
        let answer = ask(stays, editor, "GET", &path, &Value::Null).await?;
        // Ten seconds of the spike, of all data planes.
        Ok(answer.status == 200 && most(&answer.json()?) > 0.6 * SPIKE * 60.0)
    };
    deployed
        .namespace
        .cluster()
        .wait_for("another operator shows how it was", SOON, answers)
        .await?;
    eprintln!(
        "another operator shows how it was after {:?}",
        since.elapsed()
    );
    Ok(())
}
