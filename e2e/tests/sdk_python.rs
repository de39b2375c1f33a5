//! The Python SDK's own test suite, unmodified, passes against the profile `p1-python.yaml`: on one data plane, and on one
//! of three that share a Redis Cluster.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sluice_e2e::ports::free_port;
use sluice_e2e::redis::{Options, RedisCluster};
use sluice_e2e::sdk::{Sdks, describe};
use sluice_e2e::sluice::{Sluice, root};
use tokio::sync::Mutex;

/// Fixed in the suite.
const PORT: u16 = 8000;
/// One at a time can have the port.
static TURN: Mutex<()> = Mutex::const_new(());

/// The suite of this version has 185 tests; far fewer would mean that it was not found.
const TESTS_MIN: u32 = 180;

fn profile() -> Result<String> {
    Ok(std::fs::read_to_string(
        root().join("e2e/profiles/p1-python.yaml"),
    )?)
}

#[tokio::test]
async fn the_suite_of_the_python_sdk_passes() -> Result<()> {
    let _turn = TURN.lock().await;
    let sluice = Sluice::start_text(&profile()?, PORT).await?;
    run_suite(&sluice)
}

#[tokio::test]
async fn the_suite_passes_against_one_of_three_data_planes() -> Result<()> {
    let _turn = TURN.lock().await;
    let redis = RedisCluster::start(3, 1, Options::default()).await?;
    let shared = format!(
        "spec:\n  redis: {{external: {{url: \"{}\"}}}}\n",
        redis.url()
    );
    let profile = profile()?.replacen("spec:\n", &shared, 1);
    let mut others = Vec::new();
    for _ in 0..2 {
        let port = free_port()?;
        let elsewhere = profile.replacen("port: 8000", &format!("port: {port}"), 1);
        others.push(Sluice::start_text(&elsewhere, port).await?);
    }
    let sluice = Sluice::start_text(&profile, PORT).await?;
    run_suite(&sluice)
}

fn run_suite(sluice: &Sluice) -> Result<()> {
    let sdks = Sdks::prepare()?;
    // The suite tests proxies by variables of its own.
    let proxies: HashMap<String, String> = std::env::vars()
        .filter(|(name, _)| !name.to_lowercase().ends_with("_proxy"))
        .collect();
    let output = Command::new(sdks.python())
        .args(["-m", "unittest", "discover", "-s", "tests"])
        .current_dir(sdks.python_suite())
        .env_clear()
        .envs(proxies)
        .output()?;
    let printed = describe(&output);
    ensure!(
        output.status.success(),
        "{printed}\nserver log:\n{}",
        sluice.log_text()
    );
    let ran = printed
        .lines()
        .find_map(|line| {
            line.strip_prefix("Ran ")?
                .split(' ')
                .next()?
                .parse::<u32>()
                .ok()
        })
        .with_context(|| format!("no summary: {printed}"))?;
    ensure!(ran >= TESTS_MIN, "only {ran} tests ran: {printed}");
    let skipped = printed
        .lines()
        .rev()
        .find(|l| l.starts_with("OK"))
        .context("no verdict")?;
    ensure!(
        !skipped.contains("skipped"),
        "tests were skipped: {skipped}"
    );
    eprintln!("{ran} tests of the Python SDK: {skipped}");
    Ok(())
}
