//! Limits hold one by one, with the code each is promised: the client at fault pays, the others do not notice.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::api::Api;
use sluice_e2e::client::{Client, Refused};
use sluice_e2e::manifest::{Manifest, Namespace};
use sluice_e2e::sluice::Sluice;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(20);

fn plain() -> Manifest {
    Manifest {
        default_namespace: Namespace::plain(),
        ..Manifest::full()
    }
}

/// A WebSocket made by hand whose owner does not read: small kernel buffers fill at once.
async fn deaf_subscriber(sluice: &Sluice, channel: &str) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(sluice.address).await?;
    let upgrade = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        sluice.address
    );
    stream.write_all(upgrade.as_bytes()).await?;
    let connect = json!({ "id": 1, "connect": { "token": token::user("slow") } });
    let subscribe = json!({ "id": 2, "subscribe": { "channel": channel } });
    let text = format!("{connect}\n{subscribe}");
    let length = u8::try_from(text.len())
        .ok()
        .filter(|n| *n > 125)
        .context("fits one extended length byte")?;
    // Final text frame, masked with zeroes.
    let mut frame = vec![0x81, 0x80 | 126, 0, length, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    stream.write_all(&frame).await?;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"id\":2") {
        let mut chunk = [0; 1024];
        let read = timeout(SOON, stream.read(&mut chunk))
            .await
            .context("subscribe reply")??;
        ensure!(read > 0, "closed early: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..read]);
    }
    Ok(stream)
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_the_others_get_everything() -> Result<()> {
    let sluice = Sluice::start(&plain().limit("queueBytesPerClient", json!(131_072))).await?;
    let mut slow = deaf_subscriber(&sluice, "feed").await?;
    let mut quick = sluice.client(&token::user("quick")).await?;
    quick
        .call("subscribe", json!({ "channel": "feed" }))
        .await?;
    let api = Api(sluice.address);
    let data = "x".repeat(16 * 1024);
    let count: usize = 600;
    for n in 0..count {
        api.call(
            "publish",
            json!({ "channel": "feed", "data": { "n": n, "fill": data } }),
        )
        .await?;
        let push = quick.push_of("pub").await?;
        ensure!(push["pub"]["data"]["n"] == n, "publication {n} missing");
    }
    // What the kernel holds comes first, then the close frame or the end of the stream.
    let mut rest = Vec::new();
    timeout(Duration::from_secs(60), slow.read_to_end(&mut rest))
        .await
        .context("slow reader kept")?
        .ok();
    ensure!(
        rest.len() < count * data.len(),
        "everything was delivered: not slow at all"
    );
    let page = sluice.metrics().await?;
    ensure!(
        std::env::var_os("ORACLE").is_some() || page.contains("3008"),
        "no metric tells of 3008:\n{page}"
    );
    Ok(())
}

/// How many of `wanted` connections are let in; the refusals of the others.
async fn knock(sluice: &Sluice, wanted: usize) -> Result<(Vec<Client>, Vec<Refused>)> {
    let (mut inside, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..wanted {
        match Client::try_open(sluice.address).await? {
            Ok(client) => inside.push(client),
            Err(why) => refused.push(why),
        }
    }
    Ok((inside, refused))
}

/// 503, a Retry-After in whole seconds, and not the same for everybody.
fn assert_spread(refused: &[Refused]) -> Result<()> {
    let mut values = BTreeSet::new();
    for Refused {
        status,
        retry_after,
    } in refused
    {
        ensure!(*status == 503, "status {status}");
        let seconds: u32 = retry_after.as_deref().context("no Retry-After")?.parse()?;
        ensure!((1..=120).contains(&seconds), "Retry-After: {seconds}");
        values.insert(seconds);
    }
    ensure!(
        values.len() > 1,
        "{} refusals all say {values:?}",
        refused.len()
    );
    Ok(())
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_before_the_upgrade() -> Result<()> {
    let sluice = Sluice::start(&plain().limit("connections", json!(10))).await?;
    let (mut inside, refused) = knock(&sluice, 60).await?;
    assert_eq!((inside.len(), refused.len()), (10, 50));
    assert_spread(&refused)?;
    for client in &mut inside {
        client
            .call("connect", json!({ "token": token::user("u") }))
            .await?;
    }
    drop(inside.pop());
    let deadline = Instant::now() + SOON;
    while Client::try_open(sluice.address).await?.is_err() {
        ensure!(
            Instant::now() < deadline,
            "the free place is not given away"
        );
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_storm_is_let_in_at_the_configured_rate() -> Result<()> {
    kept_in_one_run(a_storm).await
}

async fn a_storm() -> Result<Promises> {
    let sluice = Sluice::start(&plain().limit("connectionsPerSecond", json!(20))).await?;
    let started = Instant::now();
    let (mut inside, mut refused) = (0, Vec::new());
    let mut kept = Vec::new();
    while started.elapsed() < Duration::from_secs(4) {
        let (new, no) = knock(&sluice, 10).await?;
        inside += new.len();
        kept.extend(new);
        refused.extend(no);
        sleep(Duration::from_millis(50)).await;
    }
    // One second's worth may be saved up.
    let seconds = started.elapsed().as_secs_f64();
    let most = (20.0 * (seconds + 1.0)).ceil() as usize + 1;
    ensure!(inside <= most, "{inside} in {seconds:.1} s");
    assert_spread(&refused)?;
    let figure = format!("{inside} let in of 20/s for {seconds:.1} s");
    Ok(Promises::new().expect(inside >= 60, figure))
}

#[tokio::test]
async fn an_account_has_its_own_limit_of_connections() -> Result<()> {
    let manifest = Manifest {
        accounts: true,
        ..plain()
    }
    .limit("connectionsPerAccount", json!(3));
    let sluice = Sluice::start(&manifest).await?;
    let mut kept = Vec::new();
    for n in 0..3 {
        kept.push(
            sluice
                .client(&token::of_account(&n.to_string(), "red"))
                .await?,
        );
    }
    let mut fourth = Client::open(sluice.address).await?;
    let id = fourth
        .send("connect", json!({ "token": token::of_account("4", "red") }))
        .await?;
    // A temporary error or a reconnectable close: the limit is a state, not a verdict on this client.
    match fourth.reply(id).await {
        Ok(reply) => assert_eq!(reply["error"]["temporary"], true, "{reply}"),
        Err(_) => {
            let close = fourth.closed(SOON).await?;
            ensure!((3000..3500).contains(&close.code), "{close:?}");
        }
    }
    kept.push(sluice.client(&token::of_account("1", "blue")).await?);
    drop(kept.remove(0));
    let deadline = Instant::now() + SOON;
    while sluice.client(&token::of_account("5", "red")).await.is_err() {
        ensure!(
            Instant::now() < deadline,
            "the free place is not given away"
        );
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn messages_over_the_client_rate_get_a_temporary_error() -> Result<()> {
    let sluice = Sluice::start(&plain().limit("messagesPerSecondPerClient", json!(5))).await?;
    let mut client = sluice.client(&token::user("u")).await?;
    let mut calm = sluice.client(&token::user("v")).await?;
    for c in [&mut client, &mut calm] {
        c.call("subscribe", json!({ "channel": "a" })).await?;
    }
    let (mut sent, mut limited) = (0, 0);
    // All at once: the rate is exceeded on a slow machine too.
    let mut ids = Vec::new();
    for n in 0..40 {
        let publish = json!({ "channel": "a", "data": n });
        ids.push(client.send("publish", publish).await?);
    }
    for id in ids {
        let reply = client.reply(id).await?;
        match reply["error"]["code"].as_u64() {
            None => sent += 1,
            Some(111) => {
                assert_eq!(reply["error"]["temporary"], true, "{reply}");
                limited += 1;
            }
            Some(code) => anyhow::bail!("error {code}"),
        }
    }
    ensure!(sent >= 5 && limited >= 20, "{sent} sent, {limited} limited");
    calm.call("publish", json!({ "channel": "a", "data": "calm" }))
        .await?;
    sleep(Duration::from_millis(1200)).await;
    client
        .call("publish", json!({ "channel": "a", "data": "again" }))
        .await?;
    Ok(())
}

#[tokio::test]
async fn messages_over_the_account_rate_get_a_temporary_error() -> Result<()> {
    let manifest = Manifest {
        accounts: true,
        ..plain()
    }
    .limit("messagesPerSecondPerAccount", json!(5));
    let sluice = Sluice::start(&manifest).await?;
    let mut clients = Vec::new();
    for user in ["u", "v"] {
        let mut client = sluice.client(&token::of_account(user, "red")).await?;
        client.call("subscribe", json!({ "channel": "a" })).await?;
        clients.push(client);
    }
    let mut ids = Vec::new();
    for client in &mut clients {
        for n in 0..15 {
            let publish = json!({ "channel": "a", "data": n });
            ids.push(client.send("publish", publish).await?);
        }
    }
    let mut codes = Vec::new();
    for (index, id) in ids.into_iter().enumerate() {
        let reply = clients[index / 15].reply(id).await?;
        codes.push(reply["error"]["code"].as_u64());
    }
    let limited = codes.iter().filter(|c| **c == Some(111)).count();
    ensure!(
        limited >= 10 && codes.iter().any(Option::is_none),
        "{codes:?}"
    );
    let mut blue = sluice.client(&token::of_account("w", "blue")).await?;
    blue.call("subscribe", json!({ "channel": "a" })).await?;
    blue.call("publish", json!({ "channel": "a", "data": 1 }))
        .await?;
    Ok(())
}

#[tokio::test]
async fn commands_over_the_client_rate_close_the_client() -> Result<()> {
    let sluice = Sluice::start(&plain().limit("commandsPerSecondPerClient", json!(10))).await?;
    let mut noisy = sluice.client(&token::user("u")).await?;
    let mut calm = sluice.client(&token::user("v")).await?;
    for n in 0..100 {
        let request = json!({ "channel": format!("c{n}") });
        if noisy.send("subscribe", request).await.is_err() {
            break;
        }
    }
    assert_eq!(noisy.closed(SOON).await?.code, 3013);
    assert_eq!(
        calm.call("subscribe", json!({ "channel": "a" }))
            .await?
            .get("error"),
        None::<&Value>
    );
    Ok(())
}
