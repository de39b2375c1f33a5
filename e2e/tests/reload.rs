//! A changed manifest takes effect without disconnecting anybody; a bad one changes nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::client::Client;
use sluice_e2e::manifest::{Manifest, Namespace};
use sluice_e2e::ports::free_port;
use sluice_e2e::sluice::Sluice;
use sluice_e2e::tls::Authority;
use sluice_e2e::token;
use tokio::time::{Instant, sleep};

const RELOAD: Duration = Duration::from_secs(40);

/// Tries until it works or the time for a reload is over.
async fn until<F: Future<Output = Result<bool>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<()> {
    let deadline = Instant::now() + RELOAD;
    loop {
        if attempt().await? {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{what}: not within {RELOAD:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_new_namespace_serves_old_connections() -> Result<()> {
    let mut manifest = Manifest::full();
    let sluice = Sluice::start(&manifest).await?;
    let mut client = sluice.client(&token::user("u")).await?;
    client
        .call("subscribe", json!({ "channel": "kept" }))
        .await?;
    assert_eq!(
        client
            .error("subscribe", json!({ "channel": "new:a" }))
            .await?,
        102
    );
    manifest.namespaces.push(("new", Namespace::full()));
    sluice.rewrite(&manifest)?;
    let deadline = Instant::now() + RELOAD;
    while client
        .command("subscribe", json!({ "channel": "new:a" }))
        .await?
        .get("error")
        .is_some()
    {
        ensure!(
            Instant::now() < deadline,
            "the new namespace does not appear"
        );
        sleep(Duration::from_millis(100)).await;
    }
    client
        .call(
            "publish",
            json!({ "channel": "kept", "data": "still here" }),
        )
        .await?;
    let push = client.push_of("pub").await?;
    ensure!(push["pub"]["data"] == "still here", "{push}");
    Ok(())
}

#[tokio::test]
async fn a_bad_manifest_is_refused_with_its_problems_and_the_old_one_stays() -> Result<()> {
    let manifest = Manifest::full();
    let sluice = Sluice::start(&manifest).await?;
    let mut client = sluice.client(&token::user("u")).await?;
    sluice.rewrite(&manifest.clone().limit("messageBytes", json!(1)))?;
    sluice.logged(&["messageBytes"], RELOAD).await?;
    client.call("subscribe", json!({ "channel": "a" })).await?;
    sluice.client(&token::user("v")).await?;
    sluice.rewrite_text("spec: [unfinished")?;
    until("second refusal counted", || async {
        Ok(sluice
            .metrics()
            .await?
            .lines()
            .any(|l| l.starts_with("sluice_config_reloads_total{result=\"refused\"} 2")))
    })
    .await?;
    client
        .call("publish", json!({ "channel": "a", "data": 1 }))
        .await?;
    // The way back is open.
    let with_limit = manifest.limit("channelsPerClient", json!(1));
    sluice.rewrite(&with_limit)?;
    until("the good manifest is taken", || async {
        let mut fresh = sluice.client(&token::user("w")).await?;
        fresh.call("subscribe", json!({ "channel": "one" })).await?;
        let reply = fresh
            .command("subscribe", json!({ "channel": "two" }))
            .await?;
        Ok(reply["error"]["code"] == 106)
    })
    .await
}

#[tokio::test]
async fn a_changed_secret_is_taken() -> Result<()> {
    let manifest = Manifest::full();
    let port = free_port()?;
    let sluice = Sluice::start_text(&manifest.render(port), port).await?;
    let old = token::user("u");
    let rotated = token::sign_with(&json!({ "sub": "u" }), "rotated");
    let mut kept = sluice.client(&old).await?;
    ensure!(
        sluice.client(&rotated).await.is_err(),
        "the new secret already counts"
    );
    let text = manifest
        .render(port)
        .replace("\"hmac\": \"secret\"", "\"hmac\": \"rotated\"");
    ensure!(text.contains("rotated"), "the manifest was not changed");
    sluice.rewrite_text(&text)?;
    until("tokens of the new secret", || async {
        Ok(sluice.client(&rotated).await.is_ok())
    })
    .await?;
    ensure!(
        sluice.client(&old).await.is_err(),
        "the old secret still counts"
    );
    kept.call("subscribe", json!({ "channel": "a" })).await?;
    Ok(())
}

/// Whether the gateway shows a certificate of this authority.
async fn shows(sluice: &Sluice, authority: &Authority) -> bool {
    authority.connect(sluice.address).await.is_ok()
}

#[tokio::test]
async fn a_changed_certificate_is_shown_to_new_connections() -> Result<()> {
    let (first, second) = (Authority::generate()?, Authority::generate()?);
    let (of_first, of_second) = (first.issue(&["localhost"])?, second.issue(&["localhost"])?);
    let manifest = |pair: &(String, String)| Manifest {
        tls: Some(pair.clone()),
        ..Manifest::full()
    };
    let sluice = Sluice::start(&manifest(&of_first)).await?;
    let stream = first.connect(sluice.address).await?;
    let mut old = Client::over_tls(stream, sluice.address).await?;
    old.call("connect", json!({ "token": token::user("u") }))
        .await?;
    ensure!(
        !shows(&sluice, &second).await,
        "the second certificate before it was set"
    );
    sluice.rewrite(&manifest(&of_second))?;
    until("the second certificate", || async {
        Ok(shows(&sluice, &second).await)
    })
    .await?;
    ensure!(
        !shows(&sluice, &first).await,
        "the first certificate is still shown"
    );
    old.call("subscribe", json!({ "channel": "a" })).await?;
    // A certificate that does not fit its key is a bad manifest.
    sluice.rewrite(&manifest(&(of_first.0, of_second.1)))?;
    sleep(Duration::from_secs(3)).await;
    ensure!(shows(&sluice, &second).await, "after the bad pair");
    assert_eq!(
        old.command("ping", Value::Object(serde_json::Map::new()))
            .await?
            .get("error"),
        None
    );
    Ok(())
}
