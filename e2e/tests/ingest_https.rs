//! Upstreams behind TLS: their certificates are verified, and requests wait while one is not good.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::ingest::{Gateway, Ingest};
use sluice_e2e::tls::Authority;
use sluice_e2e::tls::front::TlsFront;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;
use tokio::time::{Instant, sleep};

const REQUESTS: u64 = 50;
const SOON: Duration = Duration::from_secs(30);

/// A gateway on a machine that trusts this authority.
async fn gateway(front: &TlsFront, authority: &Authority) -> Result<Gateway> {
    let url = format!("https://localhost:{}", front.address.port());
    let trusting = |data: &Path| {
        let file = data.parent().context("no folder")?.join("authorities.pem");
        std::fs::write(&file, &authority.certificate)?;
        let variable = format!("SSL_CERT_FILE={}", file.display());
        Ok(vec!["env".to_owned(), variable])
    };
    Gateway::start_in(&Ingest::new(&url), trusting).await
}

async fn send(gateway: &Gateway, first: u64) -> Result<()> {
    for seq in first..first + REQUESTS {
        let answer = gateway.event("device", seq).await?;
        ensure!(answer.status == 200, "{}", answer.text());
    }
    Ok(())
}

/// All that was sent is carried out, in order and once.
async fn carried_out(upstream: &Upstream, count: u64) -> Result<()> {
    let stats = upstream.until(SOON, |stats| stats.applied >= count).await?;
    let wrong = (stats.missing, stats.out_of_order, stats.overlaps);
    assert_eq!((stats.applied, wrong), (count, (0, 0, 0)));
    Ok(())
}

#[tokio::test]
async fn requests_are_delivered_and_calls_answered_over_tls() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let authority = Authority::generate()?;
    let front = TlsFront::start(upstream.address, &authority.issue(&["localhost"])?).await?;
    let gateway = gateway(&front, &authority).await?;
    send(&gateway, 1).await?;
    carried_out(&upstream, REQUESTS).await?;
    let answer = gateway
        .get("/o/sdk?method=sc&app_key=x&device_id=d")
        .await?;
    assert_eq!(
        (answer.status, answer.json()?["c"]["tracking"].as_bool()),
        (200, Some(true))
    );
    Ok(())
}

#[tokio::test]
async fn behind_a_certificate_that_is_not_good_requests_wait() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let authority = Authority::generate()?;
    let good = authority.issue(&["localhost"])?;
    let stranger = Authority::generate()?.issue(&["localhost"])?;
    let elsewhere = authority.issue(&["elsewhere.test"])?;
    let bad = [
        ("of a stranger", "BadSignature", stranger),
        ("for another name", "not valid for name", elsewhere),
    ];
    let front = TlsFront::start(upstream.address, &good).await?;
    let gateway = gateway(&front, &authority).await?;
    let mut sent = 0;
    for (what, why, pair) in &bad {
        front.show(pair)?;
        // Connections that were made before stay good.
        sleep(Duration::from_secs(5)).await;
        send(&gateway, sent + 1).await?;
        let deadline = Instant::now() + SOON;
        while gateway
            .metric("sluice_ingest_upstream_breaker_open", "")
            .await?
            == 0.0
        {
            ensure!(Instant::now() < deadline, "{what}: nothing is noticed");
            sleep(Duration::from_millis(100)).await;
        }
        // The metric is set before, and the log comes through a pipe.
        while !gateway.sluice.log_text().contains(why) {
            ensure!(
                Instant::now() < deadline,
                "{what}: the log does not say why"
            );
            sleep(Duration::from_millis(100)).await;
        }
        let waiting = gateway.waiting().await?;
        assert_eq!(waiting, REQUESTS as f64, "{what}");
        assert_eq!(upstream.stats().await?.applied, sent, "{what}");

        front.show(&good)?;
        sent += REQUESTS;
        carried_out(&upstream, sent).await?;
    }
    assert_eq!(gateway.metric("sluice_ingest_parked_total", "").await?, 0.0);
    Ok(())
}
