//! The monitor's JSON API is what `docs/monitor.yaml` says, and for those alone who may look.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::http::{self, Answer};
use sluice_e2e::ingest::{APP, Gateway, Ingest, KEY, event};
use sluice_e2e::openapi;
use sluice_e2e::ports::free_port;
use sluice_e2e::sluice::{Launch, Scratch, Sluice};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;

const SOON: Duration = Duration::from_secs(20);
const OF: &str = "/api/v1/gateways/default/test";

async fn get(admin: SocketAddr, path: &str) -> Result<Value> {
    let answer = http::get(admin, path).await?;
    ensure!(
        answer.status == 200,
        "{path}: {} {}",
        answer.status,
        answer.text()
    );
    answer.json()
}

#[tokio::test]
async fn every_answer_is_as_it_is_documented() -> Result<()> {
    let document = openapi::monitor()?;
    let upstream = Upstream::start(Settings::default()).await?;
    let throttle = json!({ "throttle": { "requestsPerMinute": 600 } });
    let ingest = Ingest::new(&upstream.url())
        .without_applications()
        .application(APP, KEY, throttle);
    let gateway = Gateway::start(&ingest).await?;
    let admin = gateway.sluice.admin;
    gateway.event("device", 1).await?;
    gateway.drained(SOON).await?;
    let paths = document["paths"].as_object().context("paths")?;
    let mut asked = 0;
    for (path, described) in paths {
        let schema = &described["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        if schema.is_null() || path.contains("{id}") || path.contains("/settings/") {
            continue;
        }
        let path = path
            .replace("{namespace}", "default")
            .replace("{name}", "test");
        let shown = get(admin, &format!("/api/v1{}", path.trim_end_matches('/'))).await?;
        openapi::hold(&document, schema, &shown, &path)?;
        asked += 1;
    }
    ensure!(asked == 8, "{asked} paths");
    let series = get(admin, &format!("{OF}/series?seconds=60&application={APP}")).await?;
    ensure!(series["columns"]["waiting"].is_array(), "{series}");
    let found = get(admin, &format!("{OF}/applications?find=none")).await?;
    ensure!(
        found == json!({ "applications": [], "found": 0, "total": 1 }),
        "{found}"
    );
    let requests = get(admin, &format!("{OF}/requests?state=delivered")).await?;
    let id = requests["requests"][0]["id"]
        .as_str()
        .context("a request")?;
    let shown = get(admin, &format!("{OF}/requests/{id}")).await?;
    ensure!(shown["request"]["method"] == "GET", "{shown}");
    Ok(())
}

#[tokio::test]
async fn what_is_redacted_is_delivered_and_not_shown() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let hidden =
        json!([{ "parameter": "device_id" }, { "parameter": "key" }, { "header": "X-Secret" }]);
    let ingest = Ingest::new(&upstream.url()).set("redact", hidden);
    let gateway = Gateway::start(&ingest).await?;
    let target = event(KEY, "somebody", 1);
    let secret = [("X-Secret", "sesame")];
    let answer = http::request(gateway.address(), "GET", &target, &secret, b"").await?;
    ensure!(answer.status == 200, "{}", answer.status);
    gateway.drained(SOON).await?;
    ensure!(
        upstream.users().await?.contains_key("somebody"),
        "it is not delivered"
    );
    for of in [OF, ""] {
        let found = get(gateway.sluice.admin, &format!("{of}/requests?key=somebody")).await?;
        let id = found["requests"][0]["id"].as_str().context("a request")?;
        let shown = get(gateway.sluice.admin, &format!("{of}/requests/{id}")).await?;
        let text = format!("{found}{shown}");
        ensure!(
            !text.contains("somebody") && !text.contains("sesame"),
            "{text}"
        );
        let target = shown["request"]["target"].as_str().unwrap_or_default();
        ensure!(
            target.contains("device_id=(redacted)&timestamp=1790"),
            "{target}"
        );
        ensure!(
            target.contains("%22key%22%3A%22%28redacted%29%22"),
            "{target}"
        );
    }
    Ok(())
}

/// Method; path, `~` for the gateway's; a header; status; a word of the error.
type Wrong = (&'static str, &'static str, &'static str, u16, &'static str);

const WRONG: &[Wrong] = &[
    ("GET", "~/series?seconds=0", "", 400, "seconds"),
    ("GET", "~/series?seconds=soon", "", 400, "86400"),
    (
        "GET",
        "~/series?application=nobody",
        "",
        404,
        "nothing is known",
    ),
    ("GET", "~/nothing", "", 404, "no such path"),
    (
        "GET",
        "/api/v1/gateways/default/other",
        "",
        404,
        "no such gateway",
    ),
    ("GET", "/api/v2", "", 404, "no such path"),
    ("POST", "~", "content-type: application/json", 405, "GET"),
    (
        "POST",
        "/api/v1",
        "content-type: application/json",
        405,
        "GET",
    ),
    ("GET", "~/requests/none", "", 400, "no id of a request"),
    ("GET", "~/requests?state=odd", "", 400, "state"),
    ("GET", "~/settings/gateway", "", 404, "edit the files"),
    (
        "PATCH",
        "~/settings/gateway",
        "content-type: application/json",
        403,
        "may not change",
    ),
    (
        "POST",
        "~/requests/none/replay",
        "",
        415,
        "application/json",
    ),
    ("GET", "~", "origin: http://elsewhere", 403, "elsewhere"),
    ("GET", "/", "sec-fetch-site: cross-site", 403, "elsewhere"),
];

#[tokio::test]
async fn what_is_wrong_is_said() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let admin = gateway.sluice.admin;
    for (method, path, header, status, word) in WRONG {
        let path = path.replace('~', OF);
        let headers: Vec<_> = header.split_once(": ").into_iter().collect();
        let answer = http::request(admin, method, &path, &headers, b"").await?;
        let text = answer.text();
        ensure!(
            answer.status == *status && text.contains(word),
            "{method} {path}: {} {text}",
            answer.status
        );
    }
    let page = http::get(admin, "/").await?;
    ensure!(
        page.header("content-type") == Some("text/html; charset=utf-8"),
        "there is no page in this build: `just page`, then build again"
    );
    let frames = page.header("x-frame-options");
    ensure!(frames == Some("DENY"), "{frames:?}");
    Ok(())
}

/// A gateway whose admin port is there, and that was told a password.
async fn at(admin: &str, password: Option<&str>) -> Result<(Sluice, SocketAddr, Scratch)> {
    let scratch = Scratch::new()?;
    let mut arguments = vec![
        "--data-dir".to_owned(),
        scratch.path().display().to_string(),
    ];
    if let Some(password) = password {
        let file = scratch.write("password", &format!("{password}\n"))?;
        arguments.extend([
            "--monitor-password-file".to_owned(),
            file.display().to_string(),
        ]);
    }
    let (port, admin_port) = (free_port()?, free_port()?);
    let launch = Launch {
        admin: Some(format!("{admin}:{admin_port}").parse()?),
        arguments,
        ..Launch::new(Ingest::new("http://127.0.0.1:1").render(port), port)
    };
    let reached = SocketAddr::from(([127, 0, 0, 1], admin_port));
    Ok((Sluice::launch(launch).await?, reached, scratch))
}

#[tokio::test]
async fn a_port_that_others_reach_needs_a_password() -> Result<()> {
    let (_open, admin, _scratch) = at("0.0.0.0", None).await?;
    let answer = http::get(admin, "/api/v1").await?;
    ensure!(
        answer.status == 403 && answer.text().contains("--monitor-password-file"),
        "{} {}",
        answer.status,
        answer.text()
    );
    ensure!(
        http::get(admin, "/").await?.status == 403,
        "the page is shown"
    );
    let (gateway, admin, _scratch) = at("0.0.0.0", Some("let me in")).await?;
    let with = async |value: Option<&str>| -> Result<Answer> {
        let headers: Vec<_> = value
            .map(|value| ("authorization", value))
            .into_iter()
            .collect();
        http::request(admin, "GET", "/api/v1", &headers, b"").await
    };
    let refused = with(None).await?;
    ensure!(refused.status == 401, "{}", refused.status);
    let challenge = refused.header("www-authenticate");
    ensure!(
        challenge.is_some_and(|challenge| challenge.starts_with("Basic")),
        "{challenge:?}"
    );
    ensure!(
        with(Some("Bearer let me out")).await?.status == 401,
        "a wrong password"
    );
    // anna:let me in
    for right in ["Bearer let me in", "Basic YW5uYTpsZXQgbWUgaW4="] {
        ensure!(with(Some(right)).await?.status == 200, "{right}");
    }
    ensure!(
        !gateway.log_text().contains("let me in"),
        "the log has the password"
    );
    Ok(())
}
