//! Requests over HTTP/2, plain and within TLS, are taken like others; h2spec is asked about both.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::go_tool;
use sluice_e2e::ingest::{Gateway, Ingest, KEY, event};
use sluice_e2e::sdk::describe;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;

const REQUESTS: u64 = 20;

/// Sends the last of these targets as a form and gets the others, all over one connection; each must be answered with
/// success over HTTP/2.
fn curl(options: &[&str], targets: &[String]) -> Result<()> {
    let common = ["--silent", "--show-error", "--max-time", "20"];
    let answer = ["--write-out", " %{http_version} %{http_code}\n"];
    let (last, others) = targets.split_last().context("no targets")?;
    let mut command = Command::new("curl");
    if !others.is_empty() {
        command.args(common).args(options).args(answer).args(others);
        command.arg("--next");
    }
    let (url, form) = last.split_once('?').context("no query")?;
    command.args(common).args(options).args(answer);
    command.args(["--data", form, url]);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", describe(&output));
    let text = String::from_utf8(output.stdout)?;
    let good = |line: &str| line == r#"{"result":"Success"} 2 200"#;
    let good = text.lines().filter(|line| good(line)).count();
    ensure!(good == targets.len(), "{text}");
    Ok(())
}

async fn arrived(upstream: &Upstream, gateway: &Gateway) -> Result<()> {
    gateway.drained(Duration::from_secs(20)).await?;
    let stats = upstream.stats().await?;
    let order = (stats.out_of_order, stats.missing, stats.unreadable);
    assert_eq!((stats.applied, order), (REQUESTS, (0, 0, 0)));
    Ok(())
}

fn targets(url: &str) -> Vec<String> {
    (1..=REQUESTS)
        .map(|seq| format!("{url}{}", event(KEY, "modern", seq)))
        .collect()
}

/// A gateway whose listener speaks TLS.
async fn encrypted(upstream: &Upstream) -> Result<Gateway> {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let ingest = Ingest::new(&upstream.url());
    let ingest = ingest.tls(pair.cert.pem(), pair.signing_key.serialize_pem());
    Gateway::start(&ingest).await
}

#[tokio::test]
async fn plain_connections_may_begin_with_http2() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    // One request per connection: curl 7.88 cannot use such a connection twice.
    for target in targets(&format!("http://{}", gateway.address())) {
        curl(&["--http2-prior-knowledge"], &[target])?;
    }
    arrived(&upstream, &gateway).await
}

#[tokio::test]
async fn tls_offers_http2_and_keeps_http1() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let gateway = encrypted(&upstream).await?;
    let url = format!("https://{}", gateway.address());
    curl(&["--insecure", "--http2"], &targets(&url))?;
    arrived(&upstream, &gateway).await?;
    let target = format!("{url}{}", event(KEY, "old", 1));
    let output = Command::new("curl")
        .args([
            "--silent",
            "--insecure",
            "--http1.1",
            "--max-time",
            "10",
            &target,
        ])
        .output()?;
    ensure!(
        output.stdout == br#"{"result":"Success"}"#,
        "{}",
        describe(&output)
    );
    Ok(())
}

const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec";

/// Runs all its cases; what it says at its end, and its last line.
fn h2spec(gateway: &Gateway, options: &[&str]) -> Result<(String, String)> {
    let address = gateway.address();
    let output = Command::new(go_tool::program("h2spec", H2SPEC)?)
        .args(["--host", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        .args(["--path", &event(KEY, "h2spec", 1), "--timeout", "10"])
        .args(options)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().with_context(|| describe(&output))?;
    let (last, failures) = (last.to_owned(), text.split_once("Failures:"));
    let failures = failures.map(|(_, failures)| failures.to_owned());
    Ok((failures.unwrap_or_default(), last))
}

#[tokio::test]
async fn h2spec_finds_no_fault_within_tls() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let gateway = encrypted(&upstream).await?;
    let (failures, last) = h2spec(&gateway, &["--tls", "--insecure"])?;
    assert_eq!(
        last, "145 tests, 145 passed, 0 skipped, 0 failed",
        "{failures}"
    );
    Ok(())
}

#[tokio::test]
async fn h2spec_finds_that_plain_connections_speak_http1_as_well() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let (failures, last) = h2spec(&gateway, &[])?;
    assert_eq!(
        last, "145 tests, 144 passed, 0 skipped, 1 failed",
        "{failures}"
    );
    // What does not begin as HTTP/2 is answered as HTTP/1.1: with 400, and closed.
    ensure!(
        failures.contains("Sends invalid connection preface"),
        "{failures}"
    );
    Ok(())
}
