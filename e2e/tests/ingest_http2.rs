//! Requests over HTTP/2, plain and within TLS, are taken like others.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, event};
use sluice_e2e::sdk::describe;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;

const REQUESTS: u64 = 50;

/// Sends requests over one connection and checks their answers: version, status and body.
fn curl(options: &[&str], url: &str) -> Result<()> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20"]);
    command.args(options);
    command.args(["--write-out", " %{http_version} %{http_code}\n"]);
    for seq in 1..=REQUESTS {
        let form = format!("app_key={KEY}&device_id=posted&seq={seq}");
        let target = if seq % 2 == 0 {
            format!("{url}{}", event(KEY, "got", seq / 2))
        } else {
            format!("{url}/i?app_key={KEY}&device_id=also&seq={}", seq / 2 + 1)
        };
        command.arg(target);
        if seq == REQUESTS {
            // The body of a request of its own, at the end: options count for all.
            command.args(["--next", "--silent", "--show-error", "--data", &form]);
            command.args(options);
            command.args(["--write-out", " %{http_version} %{http_code}\n"]);
            command.arg(format!("{url}/i"));
        }
    }
    let output = command.output()?;
    ensure!(output.status.success(), "{}", describe(&output));
    let text = String::from_utf8(output.stdout)?;
    let good = text
        .lines()
        .filter(|line| *line == r#"{"result":"Success"} 2 200"#)
        .count() as u64;
    ensure!(good == REQUESTS + 1, "{text}");
    Ok(())
}

async fn arrived(upstream: &Upstream, gateway: &Gateway) -> Result<()> {
    gateway.drained(Duration::from_secs(20)).await?;
    let stats = upstream.stats().await?;
    assert_eq!(
        (stats.applied, stats.unreadable, stats.out_of_order),
        (REQUESTS + 1, 0, 0)
    );
    Ok(())
}

#[tokio::test]
async fn plain_connections_may_begin_with_http2() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let url = format!("http://{}", gateway.address());
    curl(&["--http2-prior-knowledge"], &url)?;
    arrived(&upstream, &gateway).await
}

#[tokio::test]
async fn tls_offers_http2_and_keeps_http1() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let ingest =
        Ingest::new(&upstream.url()).tls(pair.cert.pem(), pair.signing_key.serialize_pem());
    let gateway = Gateway::start(&ingest).await?;
    let url = format!("https://{}", gateway.address());
    curl(&["--insecure", "--http2"], &url)?;
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
