//! What a client that says nothing costs the gateway: memory within the budget, plain and over TLS.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use sluice_e2e::bench::process::private_kb;
use sluice_e2e::client::Client;
use sluice_e2e::manifest::Manifest;
use sluice_e2e::sluice::Sluice;
use sluice_e2e::tls::Authority;
use sluice_e2e::token;
use tokio::time::sleep;

/// So many that what the process takes for itself with the first ones does not count.
const CLIENTS: usize = 1_000;
/// Handshakes under way at a time.
const AT_ONCE: usize = 50;
const PLAIN_KB_MAX: f64 = 6.0;
const TLS_KB_MAX: f64 = 16.0;
/// Memory that the connects needed goes back to the machine by then.
const SETTLE: Duration = Duration::from_secs(3);

/// Kilobytes of the gateway's own memory per client, beyond those of the first few.
async fn kb_each<F>(sluice: &Sluice, connect: impl Fn() -> F) -> Result<f64>
where
    F: Future<Output = Result<Client>>,
{
    let mut clients = try_join_all((0..AT_ONCE).map(|_| connect())).await?;
    sleep(SETTLE).await;
    let before = private_kb(sluice.pid())?;
    while clients.len() < AT_ONCE + CLIENTS {
        clients.extend(try_join_all((0..AT_ONCE).map(|_| connect())).await?);
    }
    sleep(SETTLE).await;
    let after = private_kb(sluice.pid())?;
    Ok(after.saturating_sub(before) as f64 / CLIENTS as f64)
}

#[tokio::test]
async fn an_idle_client_is_small() -> Result<()> {
    let sluice = Sluice::start(&Manifest::full()).await?;
    let connect = async || {
        let (client, _) = Client::connect(sluice.address, &token::user("u")).await?;
        Ok(client)
    };
    let kb = kb_each(&sluice, connect).await?;
    eprintln!("{kb:.1} KB each");
    ensure!(kb <= PLAIN_KB_MAX, "{kb:.1} KB each");
    Ok(())
}

#[tokio::test]
async fn an_idle_client_over_tls_is_small() -> Result<()> {
    let authority = Authority::generate()?;
    let manifest = Manifest {
        tls: Some(authority.issue(&["localhost"])?),
        ..Manifest::full()
    };
    let sluice = Sluice::start(&manifest).await?;
    let connect = async || {
        let stream = authority.connect(sluice.address).await?;
        let mut client = Client::over_tls(stream, sluice.address).await?;
        client
            .call("connect", json!({ "token": token::user("u") }))
            .await?;
        Ok(client)
    };
    let kb = kb_each(&sluice, connect).await?;
    eprintln!("{kb:.1} KB each");
    ensure!(kb <= TLS_KB_MAX, "{kb:.1} KB each");
    Ok(())
}
