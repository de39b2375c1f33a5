//! Calls that want the upstream's own answer get it; the others are answered as the SDKs expect.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_e2e::http::{self, Answer};
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, event};
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, FaultKind, Settings};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

async fn both() -> Result<(Upstream, Gateway)> {
    let upstream = Upstream::start(Settings {
        keep_requests: 100,
        ..Settings::default()
    })
    .await?;
    let delivery = json!({ "timeout": "2s" });
    let gateway = Gateway::start(&Ingest::new(&upstream.url()).set("delivery", delivery)).await?;
    Ok((upstream, gateway))
}

async fn send(gateway: &Gateway, method: &str, target: &str, body: &str) -> Result<Answer> {
    http::request(gateway.address(), method, target, &[FORM], body.as_bytes()).await
}

#[tokio::test]
async fn calls_reach_the_upstream_and_come_back_as_they_are() -> Result<()> {
    let (upstream, gateway) = both().await?;
    let config = gateway
        .get("/o/sdk?method=sc&app_key=x&device_id=d")
        .await?;
    assert_eq!(
        (config.status, config.json()?["c"]["tracking"].as_bool()),
        (200, Some(true))
    );
    for (method, target, body) in [
        ("GET", "/o/sdk?method=rc&keys=%5B%22a%22%5D&x=a+b%20c", ""),
        ("POST", "/i/sdk?method=ab", "app_key=k&a=%26%3D"),
        ("GET", "/o/ping", ""),
        ("POST", "/i/users/update", "user=1"),
        ("GET", "/i/?app_key=k&device_id=d", ""),
        ("GET", "/i/apps/create?x=1", ""),
    ] {
        let answer = send(&gateway, method, target, body).await?;
        let echo = answer.json()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        assert_eq!(
            (
                answer.status,
                echo["method"].as_str(),
                echo["path"].as_str(),
                echo["query"].as_str()
            ),
            (200, Some(method), Some(path), Some(query)),
            "{target}"
        );
        let copy = upstream.copies().await?.pop();
        assert_eq!(
            copy.map(|copy| copy.body()),
            Some(body.as_bytes().to_vec()),
            "{target}"
        );
    }
    let page = gateway.get("/o/feedback/widget?widget_id=1").await?;
    assert_eq!(page.text(), "<html><body>widget</body></html>");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    // Where the caller asks for the true result, or is no SDK.
    upstream.set(json!({ "keys": ["other"] })).await?;
    let target = format!("{}&safe_api_response=1", event(KEY, "d", 1));
    let answer = gateway.get(&target).await?;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (400, r#"{"result":"App does not exist"}"#)
    );
    let answer = gateway.get("/i?api_key=secret&app_id=1").await?;
    assert_eq!(answer.status, 400);
    assert_eq!(
        gateway.metric("sluice_ingest_accepted_total", "").await?,
        0.0
    );
    ensure!(
        gateway.metric("sluice_ingest_proxied_total", "").await? >= 10.0,
        "not counted"
    );
    Ok(())
}

#[tokio::test]
async fn the_caller_s_address_and_headers_go_along() -> Result<()> {
    let (upstream, gateway) = both().await?;
    let headers = [
        ("User-Agent", "Countly Test/1.0"),
        ("X-Forwarded-For", "203.0.113.7"),
        ("Cookie", "a=b"),
        ("countly-token", "t"),
        ("Proxy-Authorization", "secret"),
        ("Upgrade", "h2c"),
    ];
    let targets = ["/o/sdk?method=rc".to_owned(), event(KEY, "d", 1)];
    for (earlier, target) in (0..).zip(targets) {
        http::request(gateway.address(), "GET", &target, &headers, b"").await?;
        upstream
            .until(Duration::from_secs(20), |stats| stats.requests > earlier)
            .await?;
        let copies = upstream.copies().await?;
        let copy = copies
            .last()
            .ok_or_else(|| anyhow::anyhow!("nothing came"))?;
        assert_eq!(copy.target, target);
        assert_eq!(copy.header("user-agent"), Some("Countly Test/1.0"));
        assert_eq!(
            copy.header("x-forwarded-for"),
            Some("203.0.113.7, 127.0.0.1"),
            "{target}"
        );
        assert_eq!(copy.header("countly-token"), Some("t"));
        assert_eq!(
            copy.header("host"),
            Some(upstream.address.to_string().as_str())
        );
        for gone in ["proxy-authorization", "upgrade", "connection", "keep-alive"] {
            ensure!(
                copy.header(gone).is_none(),
                "{gone} was delivered: {copy:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn browsers_may_ask_and_jsonp_is_wrapped() -> Result<()> {
    let (_upstream, gateway) = both().await?;
    let answer = send(&gateway, "OPTIONS", "/i", "").await?;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(
        answer.header("Access-Control-Allow-Methods"),
        Some("POST, GET, OPTIONS")
    );
    assert_eq!(
        answer.header("Access-Control-Allow-Headers"),
        Some("countly-token, Content-Type")
    );
    let answer = gateway.event("d", 1).await?;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, r#"{"result":"Success"}"#)
    );
    assert_eq!(
        answer.header("Content-Type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
    let target = format!("{}&callback=cb1", event(KEY, "d", 2));
    assert_eq!(
        gateway.get(&target).await?.text(),
        r#"cb1({"result":"Success"})"#
    );
    let answer = gateway.get("/i?app_key=x&callback=cb2").await?;
    assert_eq!(answer.status, 400);
    ensure!(
        answer
            .text()
            .starts_with("cb2({\"result\":\"Missing parameter"),
        "{}",
        answer.text()
    );
    for method in ["PUT", "DELETE", "PATCH"] {
        let answer = send(&gateway, method, "/i", "").await?;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (405, r#"{"result":"Method not allowed"}"#)
        );
    }
    Ok(())
}

#[tokio::test]
async fn calls_fail_clearly_with_their_upstream() -> Result<()> {
    let (upstream, gateway) = both().await?;
    upstream.fail(&[Fault::reply(418, "teapot")]).await?;
    let answer = gateway.get("/o/x").await?;
    assert_eq!((answer.status, answer.text().as_str()), (418, "teapot"));
    upstream.fail(&[Fault::of(FaultKind::BlackHole)]).await?;
    let began = Instant::now();
    let answer = gateway.get("/o/x").await?;
    ensure!(matches!(answer.status, 503 | 504), "{}", answer.status);
    ensure!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    upstream.fail(&[Fault::of(FaultKind::Down)]).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = gateway.get("/o/x").await?;
    ensure!(matches!(answer.status, 502 | 503), "{}", answer.status);
    // Data is taken all the same.
    assert_eq!(gateway.event("d", 1).await?.status, 200);
    upstream.heal().await?;
    gateway.drained(Duration::from_secs(20)).await?;
    let back = Instant::now();
    // The first answer closes the breaker; it is on its way when nothing waits any more.
    while gateway.get("/o/ping").await?.status != 200 {
        ensure!(back.elapsed() < Duration::from_secs(20), "still refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn calls_get_through_beside_a_backlog() -> Result<()> {
    kept_in_one_run(calls_beside_a_backlog).await
}

async fn calls_beside_a_backlog() -> Result<Promises> {
    let (upstream, gateway) = both().await?;
    upstream
        .set(json!({ "workers": 10, "service_ms": 50.0 }))
        .await?;
    let load = Load::start(Plan::new(
        gateway.address(),
        KEY,
        vec![Phase::rate(500.0, 5.0)],
    ))?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(gateway.waiting().await? > 500.0, "no backlog");
    let mut took = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(gateway.get("/o/ping").await?.status, 200);
        took.push(began.elapsed());
    }
    took.sort();
    // 50 ms of service behind a line of the same length at most.
    load.stop();
    Ok(Promises::new().expect(
        took[18] < Duration::from_millis(400),
        format!("calls took {took:?}"),
    ))
}

#[tokio::test]
async fn a_prefix_is_looked_past_and_delivered() -> Result<()> {
    let upstream = Upstream::start(Settings {
        keep_requests: 10,
        ..Settings::default()
    })
    .await?;
    let ingest = Ingest::new(&upstream.url()).set("accept", json!({ "pathPrefix": "/collect" }));
    let gateway = Gateway::start(&ingest).await?;
    let target = format!("/collect{}", event(KEY, "d", 1));
    let answer = gateway.get(&target).await?;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, r#"{"result":"Success"}"#)
    );
    upstream
        .until(Duration::from_secs(20), |stats| stats.requests == 1)
        .await?;
    assert_eq!(upstream.copies().await?[0].target, target);
    Ok(())
}
