//! SIGTERM empties a server in good order: reconnectable closes, spread over the drain time, nobody new.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::client::{Client, Close};
use sluice_e2e::http;
use sluice_e2e::manifest::Manifest;
use sluice_e2e::sluice::Sluice;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::token;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const CLIENTS: usize = 300;
const DRAIN: Duration = Duration::from_secs(4);
/// Sooner than the longer drains end, and many times what an end takes.
const SOON: Duration = Duration::from_secs(20);

async fn filled(drain_s: u32, clients: usize) -> Result<(Sluice, Vec<Client>)> {
    let sluice = Sluice::start(&Manifest {
        drain_s,
        ..Manifest::full()
    })
    .await?;
    let mut all = Vec::new();
    for n in 0..clients {
        let mut client = sluice.client(&token::user(&format!("u{n}"))).await?;
        client
            .call(
                "subscribe",
                json!({ "channel": format!("room-{}", n % 10) }),
            )
            .await?;
        all.push(client);
    }
    Ok((sluice, all))
}

/// Waits for every client's close, with the time it came after `start`.
async fn closes(clients: Vec<Client>, start: Instant) -> Result<Vec<(Duration, Close)>> {
    let mut waiting = JoinSet::new();
    for mut client in clients {
        waiting.spawn(async move {
            let close = client.closed(DRAIN * 10).await?;
            Ok::<_, anyhow::Error>((start.elapsed(), close))
        });
    }
    let mut closes = Vec::new();
    while let Some(close) = waiting.join_next().await {
        closes.push(close??);
    }
    Ok(closes)
}

#[tokio::test]
async fn a_term_signal_closes_everybody_evenly_and_reconnectably() -> Result<()> {
    kept_in_one_run(an_even_drain).await
}

async fn an_even_drain() -> Result<Promises> {
    let (mut sluice, clients) = filled(4, CLIENTS).await?;
    let (address, admin) = (sluice.address, sluice.admin);
    let start = Instant::now();
    sluice.signal("TERM")?;
    let waiting = tokio::spawn(closes(clients, start));
    loop {
        let ready = http::get(admin, "/readyz")
            .await
            .context("the admin port outlives the drain's start")?;
        if ready.status != 200 {
            break;
        }
        ensure!(start.elapsed() < DRAIN, "still ready while draining");
        sleep(Duration::from_millis(50)).await;
    }
    match Client::try_open(address).await {
        Ok(Ok(_)) => anyhow::bail!("a new client was let in while draining"),
        Ok(Err(refused)) => ensure!(refused.status == 503, "{refused:?}"),
        Err(_) => {} // Connection refused is as good.
    }
    let closes = waiting.await??;
    assert_eq!(closes.len(), CLIENTS);
    for (_, close) in &closes {
        ensure!(close.code == 3001, "{close:?}");
    }
    let mut promises = Promises::new();
    // Each quarter of the drain time closes about a quarter of the clients.
    for quarter in 0..4 {
        let (from, to) = (DRAIN / 4 * quarter, DRAIN / 4 * (quarter + 1));
        let count = closes
            .iter()
            .filter(|(at, _)| (from..to).contains(at))
            .count();
        let figure = format!("quarter {quarter} closed {count} of {CLIENTS}");
        promises = promises.expect(count > CLIENTS / 12, figure);
    }
    let status = sluice.ended(SOON).await?;
    ensure!(status.success(), "{status}");
    let (took, most) = (start.elapsed(), DRAIN + Duration::from_secs(3));
    Ok(promises.expect(took < most, format!("ended after {took:?} of {most:?}")))
}

#[tokio::test]
async fn an_empty_server_ends_at_once() -> Result<()> {
    let (mut sluice, _) = filled(30, 0).await?;
    sluice.signal("TERM")?;
    let status = sluice.ended(SOON).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_it_now() -> Result<()> {
    let (mut sluice, clients) = filled(60, 20).await?;
    sluice.signal("TERM")?;
    sleep(Duration::from_millis(500)).await;
    ensure!(sluice.alive()?, "the first signal ended it");
    let start = Instant::now();
    sluice.signal("TERM")?;
    sluice.ended(SOON).await?;
    let closes = closes(clients, start).await?;
    ensure!(
        closes.iter().all(|(_, close)| close.code < 3500),
        "{closes:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_interrupt_drains_as_well() -> Result<()> {
    let (mut sluice, clients) = filled(1, 20).await?;
    let start = Instant::now();
    sluice.signal("INT")?;
    let closes = closes(clients, start).await?;
    ensure!(
        closes.iter().all(|(_, close)| close.code == 3001),
        "{closes:?}"
    );
    sluice.ended(SOON).await?;
    Ok(())
}
