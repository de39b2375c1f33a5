//! What an upstream will not have is kept with the reason, and can be seen, sent again and thrown away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::http;
use sluice_e2e::ingest::{APP, Gateway, Ingest};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, Settings};
use tokio::time::{Instant, sleep};

const INVALID: &str = r#"{"result":"Invalid parameter \"events\""}"#;

fn only(device: &str, fault: Fault) -> Fault {
    Fault {
        device: Some(device.to_owned()),
        ..fault
    }
}

/// Waits until so many requests are in a state; they come back.
async fn found(gateway: &Gateway, filter: &str, count: usize) -> Result<Vec<Value>> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = gateway.find(filter).await?;
        if found.len() == count {
            return Ok(found);
        }
        ensure!(
            Instant::now() < deadline,
            "{filter}: {} instead of {count}: {found:?}",
            found.len()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

fn id(request: &Value) -> Result<&str> {
    request["id"].as_str().context("a request has an id")
}

#[tokio::test]
async fn lasting_errors_park_at_once_and_everything_can_be_done_by_hand() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    upstream
        .fail(&[only("bad", Fault::reply(400, INVALID))])
        .await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    for seq in 1..=4 {
        gateway.event("bad", seq).await?;
        gateway.event("good", seq).await?;
    }
    let parked = found(&gateway, "state=parked", 4).await?;
    found(&gateway, &format!("state=delivered&application={APP}"), 4).await?;
    assert_eq!(gateway.metric("sluice_ingest_parked_total", "").await?, 4.0);

    // The list and one of them, as a person sees them.
    let table = gateway.requests(&["list", "--state", "parked"])?;
    for request in &parked {
        ensure!(table.contains(id(request)?), "{table}");
    }
    ensure!(table.contains(APP), "{table}");
    let shown = gateway.requests(&["show", id(&parked[0])?])?;
    for part in ["device_id=bad", "seq=1", "400", "main"] {
        ensure!(shown.contains(part), "no {part} in {shown}");
    }
    let listed = gateway.requests_json(&["list", "--state", "parked", "--application", APP])?;
    ensure!(listed.to_string().contains(id(&parked[3])?), "{listed}");

    // Two are sent again, one is thrown away, one stays.
    upstream.heal().await?;
    gateway.requests(&["replay", id(&parked[0])?, id(&parked[1])?])?;
    gateway.requests(&["discard", id(&parked[2])?])?;
    found(&gateway, "state=replayed", 2).await?;
    found(&gateway, "state=discarded", 1).await?;
    found(&gateway, "state=parked", 1).await?;
    found(&gateway, "state=delivered", 6).await?;
    upstream
        .until(Duration::from_secs(20), |stats| stats.applied == 6)
        .await?;
    // In the order in which they were accepted.
    let replayed: Vec<u64> = upstream
        .records()
        .await?
        .iter()
        .filter(|r| &*r.device == "bad" && r.status == 200)
        .map(|r| r.seq)
        .collect();
    assert_eq!(replayed, [1, 2]);
    // Nothing is sent again twice, nor thrown away twice.
    for (index, action) in [(0, "replay"), (2, "discard")] {
        let path = format!("/requests/{}/{action}", id(&parked[index])?);
        let answer = gateway.post(&path).await?;
        assert_eq!(answer.status, 409, "{action}: {}", answer.text());
    }
    let answer = http::get(gateway.sluice.admin, "/requests/01ARZ3NDEKTSV4RRFFQ69G5FAV").await?;
    assert_eq!(answer.status, 404);
    Ok(())
}

#[tokio::test]
async fn own_failures_use_up_attempts_and_let_the_next_one_go() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let poison = Fault {
        seq: Some(2),
        ..only("ill", Fault::reply(500, r#"{"result":"Internal error"}"#))
    };
    upstream.fail(&[poison]).await?;
    let delivery = json!({ "attempts": 3, "backoff": { "initial": "100ms", "max": "200ms" } });
    let gateway = Gateway::start(&Ingest::new(&upstream.url()).set("delivery", delivery)).await?;
    let began = Instant::now();
    for seq in 1..=3 {
        gateway.event("ill", seq).await?;
    }
    // Others succeed all the while: it is not the upstream that is ill.
    let mut seq = 0;
    let parked = loop {
        seq += 1;
        gateway.event("well", seq).await?;
        let parked = gateway.find("state=parked").await?;
        if !parked.is_empty() {
            break parked;
        }
        ensure!(
            began.elapsed() < Duration::from_secs(20),
            "{}",
            gateway.admin("/lanes").await?
        );
        sleep(Duration::from_millis(20)).await;
    };
    let request = gateway
        .admin(&format!("/requests/{}", id(&parked[0])?))
        .await?
        .to_string();
    for part in ["AttemptsExhausted", "500"] {
        ensure!(request.contains(part), "no {part} in {request}");
    }
    let attempts = upstream
        .records()
        .await?
        .iter()
        .filter(|r| r.status == 500)
        .count();
    assert_eq!(attempts, 3);
    gateway.drained(Duration::from_secs(60)).await?;
    let done: Vec<u64> = upstream
        .records()
        .await?
        .iter()
        .filter(|r| &*r.device == "ill" && r.status == 200)
        .map(|r| r.seq)
        .collect();
    assert_eq!(done, [1, 3]);
    Ok(())
}

#[tokio::test]
async fn many_are_found_and_sent_again_at_once() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    upstream.fail(&[Fault::reply(400, INVALID)]).await?;
    let ingest = Ingest::new(&upstream.url()).application("game", "gamekey", json!({}));
    let mut gateway = Gateway::start(&ingest).await?;
    for seq in 1..=60 {
        gateway.event("anna", seq).await?;
        gateway
            .get(&sluice_e2e::ingest::event("gamekey", "bert", seq))
            .await?;
    }
    found(&gateway, "state=parked", 120).await?;
    found(&gateway, "state=parked&application=game", 60).await?;
    // Parked requests stay over a restart.
    gateway.kill()?;
    gateway.restart().await?;
    let parked = found(&gateway, "state=parked&application=shop", 60).await?;
    let page = gateway.admin("/requests?state=parked&limit=7").await?;
    assert_eq!(page["requests"].as_array().map(Vec::len), Some(7));
    ensure!(page["next"].is_string(), "{page}");
    // What was accepted from a time on, by the time in the ids.
    let from: ulid_ms::Ms = ulid_ms::of(id(&parked[50])?)?;
    let since = gateway
        .find(&format!("state=parked&application=shop&from={from}"))
        .await?;
    ensure!(
        (10..=12).contains(&since.len()),
        "{} since {from}",
        since.len()
    );

    upstream.heal().await?;
    let bulk = async |path: &str| -> Result<()> {
        let mut after = String::new();
        loop {
            let answer = gateway.post(&format!("{path}{after}")).await?;
            ensure!(
                answer.status == 200,
                "{path}: {} {}",
                answer.status,
                answer.text()
            );
            match answer.json()?["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(()),
            }
        }
    };
    bulk("/requests/replay?state=parked&application=shop").await?;
    bulk("/requests/discard?state=parked&application=game").await?;
    found(&gateway, "state=parked", 0).await?;
    found(&gateway, "state=discarded", 60).await?;
    gateway.drained(Duration::from_secs(60)).await?;
    let stats = upstream.stats().await?;
    assert_eq!(
        (stats.applied, stats.out_of_order, stats.missing),
        (60, 0, 0)
    );
    Ok(())
}

/// Times in ids: the first ten characters of a ULID are unix milliseconds in Crockford's base 32.
mod ulid_ms {
    use anyhow::{Context, Result};

    pub(crate) type Ms = u64;

    pub(crate) fn of(id: &str) -> Result<Ms> {
        let digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let head = id.get(..10).context("a short id")?;
        head.chars().try_fold(0, |sum, c| {
            let digit = digits.find(c.to_ascii_uppercase()).context("no ULID")?;
            Ok(sum * 32 + digit as u64)
        })
    }
}
