//! `sluice top` shows what really goes on, once and again.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{APP, Gateway, Ingest, KEY};
use sluice_e2e::ports::free_port;
use sluice_e2e::sluice::binary;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;
use tokio::time::sleep;

const RATE: f64 = 50.0;
/// Per minute: half of what comes.
const CAP: u64 = 1_500;

async fn top(admin: std::net::SocketAddr, words: &[&str]) -> Result<Output> {
    let admin = admin.to_string();
    let words = [&["top", "--admin", &admin], words].concat();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(binary()?)
            .args(words)
            .output()
            .context("sluice top")
    });
    output.await?
}

/// The figure before a word on the line that begins with `head`, without its commas.
fn figure(page: &str, head: &str, word: &str) -> Result<f64> {
    let line = page.lines().find(|line| line.starts_with(head));
    let line = line.with_context(|| format!("no {head} in\n{page}"))?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let place = words
        .iter()
        .position(|found| found.trim_end_matches([',', ';']) == word);
    let place = place.with_context(|| format!("no {word} in {line}"))?;
    Ok(words[place - 1].replace(',', "").parse()?)
}

#[tokio::test]
async fn what_is_shown_is_what_goes_on() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let throttle = json!({ "throttle": { "requestsPerMinute": CAP } });
    let gateway =
        Gateway::start(&Ingest::new(&upstream.url()).application(APP, KEY, throttle)).await?;
    let load = Load::start(Plan::new(
        gateway.address(),
        KEY,
        vec![Phase::rate(RATE, 20.0)],
    ))?;
    sleep(Duration::from_secs(2)).await;
    let shown = top(gateway.sluice.admin, &["--once", "--interval", "5"]).await?;
    load.stop();
    ensure!(shown.status.success(), "{shown:?}");
    let page = String::from_utf8(shown.stdout)?;
    let incoming = figure(&page, "requests/min", "in")?;
    let delivered = figure(&page, "requests/min", "delivered")?;
    ensure!((incoming / (RATE * 60.0) - 1.0).abs() < 0.2, "{page}");
    ensure!(
        delivered > 0.7 * CAP as f64 && delivered < 1.3 * CAP as f64,
        "{page}"
    );
    let application = page
        .lines()
        .find(|line| line.starts_with(APP))
        .context("the application")?;
    ensure!(
        application.contains("Cap") || application.contains("cap"),
        "it does not say why requests wait:\n{page}"
    );
    ensure!(
        page.lines()
            .any(|line| line.starts_with("application/shop  1,500")),
        "{page}"
    );
    Ok(())
}

#[tokio::test]
async fn who_is_not_there_is_said() -> Result<()> {
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let shown = top(nobody, &[]).await?;
    let said = String::from_utf8(shown.stderr)?;
    ensure!(
        shown.status.code() == Some(1) && said.contains("no answer from the admin port"),
        "{said}"
    );
    Ok(())
}
