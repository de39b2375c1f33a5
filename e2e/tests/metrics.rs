//! `docs/metrics.md` says what a data plane shows, and what the chart asks of Prometheus is there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::fleet::managed::Managed;
use sluice_e2e::http;
use sluice_e2e::ingest::{Ingest, KEY, event};
use sluice_e2e::manifest::Manifest;
use sluice_e2e::metrics_table::{self, hold};
use sluice_e2e::redis::{Options, RedisCluster};
use sluice_e2e::sluice::Sluice;
use sluice_e2e::token;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, FaultKind, Settings};
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(60);
/// What needs half a minute: a cap's shares, a request that was given up; and an overload, or a fault of Redis in the right moment.
const UNSEEN: &[&str] = &[
    "sluice_ingest_cap_requests_per_minute",
    "sluice_ingest_parked_total",
    "sluice_relay_connections_refused_total",
    "sluice_relay_store_failures_total",
];

/// What comes about some time after it was asked for.
const LATE: [&str; 6] = [
    "\nsluice_ingest_queue_entries{",
    "\nsluice_ingest_retried_total{",
    "\nsluice_ingest_delivered_total{",
    "\nsluice_ingest_lane_held{",
    "\nsluice_ingest_oldest_age_seconds{",
    "\nsluice_relay_disconnects_total{",
];

/// A data plane that has something of everything.
async fn plane(upstream: &Upstream, redis: &RedisCluster) -> Result<Managed> {
    let delivery = json!({ "attempts": 2, "backoff": { "initial": "100ms", "max": "1s" } });
    let ingest = Ingest::new(&upstream.url()).set("delivery", delivery);
    let both = ingest.beside(Manifest::full()).redis(redis.url());
    let mut fleet = Managed::start(1, &[], move |port| both.render(port)).await?;
    fleet.add().await?;
    fleet.attended(SOON).await?;
    Ok(fleet)
}

/// One of each that is counted.
async fn everything_happens(plane: &Sluice, upstream: &Upstream) -> Result<()> {
    let address = plane.address;
    let mut client = plane.client(&token::user("anna")).await?;
    client
        .call("subscribe", json!({ "channel": "room" }))
        .await?;
    drop(client);
    for target in [
        event(KEY, "good", 1),
        event("no-such-key", "good", 1),
        "/o/sdk?app_key=shopkey&device_id=good&method=fetch_remote_config".to_owned(),
    ] {
        http::get(address, &target).await?;
    }
    let fails = Fault {
        device: Some("bad".to_owned()),
        ..Fault::of(FaultKind::Reply {
            status: 500,
            body: String::new(),
            retry_after_s: None,
        })
    };
    let waits = Fault {
        device: Some("slow".to_owned()),
        ..Fault::of(FaultKind::Delay { ms: 60_000 })
    };
    upstream.fail(&[fails, waits]).await?;
    for (device, seq) in [("bad", 1), ("slow", 1), ("slow", 2)] {
        http::get(address, &event(KEY, device, seq)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_table_of_the_data_plane_is_what_it_shows() -> Result<()> {
    let redis = RedisCluster::start(3, 0, Options::default()).await?;
    let upstream = Upstream::start(Settings::default()).await?;
    let fleet = plane(&upstream, &redis).await?;
    let plane = fleet.planes.values().next().context("a data plane")?;
    everything_happens(plane, &upstream).await?;
    let deadline = Instant::now() + SOON;
    loop {
        let page = plane.metrics().await?;
        let counted = LATE.iter().all(|metric| page.contains(metric));
        if counted || Instant::now() > deadline {
            ensure!(counted, "not all of {LATE:?} came about");
            return hold("data plane", metrics_table::parse(&page), UNSEEN);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

#[test]
fn what_the_chart_asks_for_is_there() -> Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/sluice");
    let known = metrics_table::all()?;
    let mut asked = BTreeSet::new();
    for file in ["templates/prometheusrule.yaml", "files/dashboard.json"] {
        let text = std::fs::read_to_string(chart.join(file))?;
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics = words.filter(|word| word.starts_with("sluice_"));
        asked.extend(metrics.map(str::to_owned));
    }
    ensure!(asked.len() > 10, "{asked:?}");
    let of_histogram = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        parts
            .iter()
            .find_map(|part| word.strip_suffix(part))
            .map(str::to_owned)
    };
    let unknown: Vec<&String> = asked
        .iter()
        .filter(|word| {
            !known.contains(*word) && !of_histogram(word).is_some_and(|name| known.contains(&name))
        })
        .collect();
    ensure!(unknown.is_empty(), "there is no {unknown:?}");
    Ok(())
}
