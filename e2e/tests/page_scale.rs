//! The page with 100 pods and 1,000 applications, all of them busy: it stays one that answers a person at once, and the manager small.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::manager::large::Large;
use sluice_e2e::page::Page;
use tokio::task::block_in_place;
use tokio::time::sleep;

const PODS: usize = 100;
const APPLICATIONS: usize = 1_000;
/// Another view is there within this, asked, answered and drawn; on a machine that pretends the fleet besides.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// The browser does nothing else for so long.
const LONGEST_TASK_MS: f64 = 500.0;
/// Of this process: the manager, the pretended fleet, and what one second of its reports takes.
const MEMORY_MB_MAX: f64 = 250.0;
const LOOKED_AT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_fleet_is_looked_at() -> Result<()> {
    let large = Large::start(PODS, APPLICATIONS).await?;
    // Rates need two reports.
    sleep(Duration::from_secs(3)).await;
    let mut page = block_in_place(|| Page::start("large"))?;
    block_in_place(|| {
        page.open(&format!("http://{}/", large.address))?;
        page.wait("#connections", "1,0")
    })?;
    let mut shown = Vec::new();
    for (view, of, text) in [
        ("Overview", "#connections", "1,0"),
        ("Pods", "tbody", "pod-099"),
        ("Applications", ".note", "The busiest 100 of 1,000"),
        ("Throttle", "tbody", "application-"),
        ("Upstreams", "tbody", "upstream-2"),
    ] {
        let took = block_in_place(|| -> Result<Duration> {
            let began = Instant::now();
            page.click("link", view)?;
            page.wait(of, text)?;
            Ok(began.elapsed())
        })?;
        shown.push((view, took));
    }
    let found = block_in_place(|| -> Result<Duration> {
        page.click("link", "Applications")?;
        let began = Instant::now();
        page.tell("fill", json!({ "label": "Name contains", "value": "0777" }))?;
        page.wait("tbody tr:only-child", "application-0777")?;
        Ok(began.elapsed())
    })?;
    shown.push(("an application by its name", found));
    // All of it changes under the eyes of whoever looks.
    block_in_place(|| page.click("link", "Pods"))?;
    sleep(LOOKED_AT).await;
    let longest = block_in_place(|| page.tell("longest", json!({})))?["ms"]
        .as_f64()
        .context("a time")?;
    let memory = memory_mb()?;
    eprintln!("{shown:?}; the longest task of the browser {longest:.0} ms; memory {memory:.0} MB");
    block_in_place(|| {
        page.pictures("pods")?;
        page.no_complaints()
    })?;
    for (what, took) in shown {
        ensure!(took < SHOWN_WITHIN, "{what}: {took:?}");
    }
    ensure!(longest < LONGEST_TASK_MS, "{longest} ms");
    ensure!(memory < MEMORY_MB_MAX, "{memory} MB");
    Ok(())
}

fn memory_mb() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kb.context("VmRSS")?.parse::<f64>()? / 1024.0)
}
