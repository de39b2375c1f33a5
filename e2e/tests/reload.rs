//! A changed manifest takes effect without disconnecting anybody; a bad one changes nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::client::Client;
use sluice_e2e::manifest::{Manifest, Namespace};
use sluice_e2e::ports::free_port;
use sluice_e2e::sluice::Sluice;
use sluice_e2e::token;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

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

struct Certificate {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

fn certificate() -> Result<Certificate> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    Ok(Certificate {
        chain: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
        der: made.cert.der().clone(),
    })
}

/// Makes a TLS handshake that trusts only this certificate.
async fn handshake(
    sluice: &Sluice,
    trusted: &Certificate,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone())?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(sluice.address).await?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost")?, stream)
        .await?)
}

#[tokio::test]
async fn a_changed_certificate_is_shown_to_new_connections() -> Result<()> {
    let (first, second) = (certificate()?, certificate()?);
    let manifest = |c: &Certificate| Manifest {
        tls: Some((c.chain.clone(), c.key.clone())),
        ..Manifest::full()
    };
    let sluice = Sluice::start(&manifest(&first)).await?;
    let stream = handshake(&sluice, &first)
        .await
        .context("first certificate")?;
    let mut old = Client::over_tls(stream, sluice.address).await?;
    old.call("connect", json!({ "token": token::user("u") }))
        .await?;
    ensure!(
        handshake(&sluice, &second).await.is_err(),
        "the second certificate before it was set"
    );
    sluice.rewrite(&manifest(&second))?;
    until("the second certificate", || async {
        Ok(handshake(&sluice, &second).await.is_ok())
    })
    .await?;
    ensure!(
        handshake(&sluice, &first).await.is_err(),
        "the first certificate is still shown"
    );
    old.call("subscribe", json!({ "channel": "a" })).await?;
    // A certificate that does not fit its key is a bad manifest.
    let mixed = Certificate {
        chain: first.chain.clone(),
        key: second.key.clone(),
        der: first.der.clone(),
    };
    sluice.rewrite(&manifest(&mixed))?;
    sleep(Duration::from_secs(3)).await;
    handshake(&sluice, &second)
        .await
        .context("after the bad pair")?;
    assert_eq!(
        old.command("ping", Value::Object(serde_json::Map::new()))
            .await?
            .get("error"),
        None
    );
    Ok(())
}
