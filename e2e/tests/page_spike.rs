//! A spike is seen on the monitor's page as it happens, and counted to the last request. Alone in its file: what is on time elsewhere on the
//! machine is not what it is about.

use std::time::Duration;

use anyhow::Result;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY};
use sluice_e2e::page::Page;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;
use tokio::task::block_in_place;

const SOON: Duration = Duration::from_secs(20);
/// A change is seen within this.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// Requests per second: before and after the spike, and in it.
const CALM: f64 = 20.0;
const SPIKE: f64 = 200.0;
const CALM_S: f64 = 10.0;
const SPIKE_S: f64 = 10.0;

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
