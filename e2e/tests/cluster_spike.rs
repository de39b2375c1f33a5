//! Ten times as many requests for a while: pods come before requests wait, and go after the window, and nothing is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_e2e::deployed::{APP_KEY, Deployed, Install, OPERATORS};
use sluice_e2e::http;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::nothing_lost;
use tokio::time::{Instant, sleep, timeout};

/// Requests per second, before, in the spike, and after it: for images of a release build.
const CALM: f64 = 100.0;
const SPIKE: f64 = 1_000.0;
const CALM_FOR: Duration = Duration::from_secs(30);
const SPIKE_FOR: Duration = Duration::from_secs(75);
/// The window and what goes with it, for each pod that goes.
const CALM_AGAIN_FOR: Duration = Duration::from_secs(170);
const SCENARIO: Duration = Duration::from_secs(700);
const SOON: Duration = Duration::from_secs(90);
const MIN: u64 = 2;
const SCALING: &str = r#"{"spec": {"dataPlane": {
    "resources": {"requests": {"cpu": "120m", "memory": "64Mi"}},
    "scaling": {"mode": "Managed", "min": 2, "max": 5, "scaleDownWindow": "30s"}}}}"#;
/// `targetQueueDelay`, as it is unless written.
const DELAY_MAX_S: f64 = 0.25;
const DELAY_METRIC: &str = "sluice_manager_request_delay_seconds";
const ADMIN_PORT: u16 = 8081;

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_before_requests_wait() -> Result<()> {
    let deployed = Deployed::start("spike", Install::AsInReadme).await?;
    let scenario = timeout(SCENARIO, scenario(&deployed)).await;
    let scenario = scenario.context("it takes too long").flatten();
    deployed.namespace.explain(scenario)
}

/// How it is in a second.
#[derive(Debug, Clone, Copy)]
struct Moment {
    second: u64,
    asked: u64,
    ready: u64,
    delay_s: f64,
}

async fn scenario(deployed: &Deployed) -> Result<()> {
    let words = ["patch", "slgw/demo", "--type=merge", "--patch", SCALING];
    deployed.namespace.kubectl(&words).await?;
    let cluster = deployed.namespace.cluster();
    let few = async || Ok(deployed.pods().await?.len() as u64 == MIN);
    cluster
        .wait_for("it is as small as can be", SOON * 2, few)
        .await?;
    deployed.rolled_out(SOON).await?;
    let seconds = |time: Duration| time.as_secs_f64();
    let load = Load::start(Plan::new(
        deployed.address,
        APP_KEY,
        vec![
            Phase::rate(CALM, seconds(CALM_FOR)),
            Phase::rate(SPIKE, seconds(SPIKE_FOR)),
            Phase::rate(CALM, seconds(CALM_AGAIN_FOR)),
        ],
    ))?;
    let story = watch(deployed).await?;
    let outcome = load.outcome().await?;
    let acked = outcome.acked;
    let all =
        |stats: &sluice_e2e::upstream::record::Stats| stats.applied >= acked && stats.missing == 0;
    deployed.upstream.until(SOON, all).await?;
    let more = nothing_lost(&deployed.upstream, &outcome).await?;
    eprintln!(
        "{acked} requests, p99 {:.0} ms, {} refused at first, {more} more delivered than acknowledged",
        outcome.latency_ms(0.99),
        outcome.refused()
    );
    judge(&story)
}

/// A timeline of all phases.
async fn watch(deployed: &Deployed) -> Result<Vec<Moment>> {
    let began = Instant::now();
    let mut story = Vec::new();
    let mut told = (0, 0);
    while began.elapsed() < CALM_FOR + SPIKE_FOR + CALM_AGAIN_FOR {
        let words = ["get", "deployment/demo", "--output=json"];
        let deployment: Value = serde_json::from_str(&deployed.namespace.kubectl(&words).await?)?;
        let moment = Moment {
            second: began.elapsed().as_secs(),
            asked: deployment["spec"]["replicas"].as_u64().unwrap_or(0),
            ready: deployment["status"]["readyReplicas"].as_u64().unwrap_or(0),
            delay_s: delay(deployed).await?,
        };
        let now = (moment.asked, moment.ready);
        if now != told || moment.delay_s > DELAY_MAX_S {
            eprintln!("{moment:?}");
            told = now;
        }
        story.push(moment);
        sleep(Duration::from_secs(1)).await;
    }
    Ok(story)
}

/// As the operator that leads says.
async fn delay(deployed: &Deployed) -> Result<f64> {
    let cluster = deployed.namespace.cluster();
    let words = [
        "--namespace",
        OPERATORS,
        "pods",
        "--selector=app.kubernetes.io/name=sluice-operator",
    ];
    let pods = cluster.get(&words).await?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let Some(ip) = pod["status"]["podIP"].as_str() else {
            continue;
        };
        let page = http::get(
            (ip.parse::<std::net::IpAddr>()?, ADMIN_PORT).into(),
            "/metrics",
        )
        .await?;
        let text = page.text();
        let line = text.lines().find(|line| line.starts_with(DELAY_METRIC));
        if let Some((_, value)) = line.and_then(|line| line.rsplit_once(' ')) {
            return Ok(value.parse()?);
        }
    }
    Ok(0.0)
}

fn judge(story: &[Moment]) -> Result<()> {
    let spike = CALM_FOR.as_secs()..(CALM_FOR + SPIKE_FOR).as_secs();
    let more = story
        .iter()
        .find(|moment| spike.contains(&moment.second) && moment.ready > MIN);
    let more = more.context("no pod came in the spike")?;
    let waited = story.iter().find(|moment| moment.delay_s > DELAY_MAX_S);
    let first = waited.map_or(u64::MAX, |moment| moment.second);
    eprintln!(
        "the first more is ready {} s into the spike",
        more.second - spike.start
    );
    ensure!(
        more.second <= first,
        "requests waited from second {first} on, pods came at {}",
        more.second
    );
    let last = story.last().context("a story")?;
    ensure!(last.asked == MIN, "still {} pods at the end", last.asked);
    let early = story.windows(2).find(|two| two[1].asked < two[0].asked);
    let early = early.context("no pod went")?[1].second;
    ensure!(
        early >= spike.end,
        "a pod went in the spike, at second {early}"
    );
    Ok(())
}
