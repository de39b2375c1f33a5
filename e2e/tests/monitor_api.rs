//! The monitor's JSON API is what `docs/monitor.yaml` says, and for those alone who may look.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::http::{self, Answer};
use sluice_e2e::ingest::{APP, Gateway, Ingest, KEY};
use sluice_e2e::ports::free_port;
use sluice_e2e::sluice::{Launch, Scratch, Sluice, root};
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

/// What a schema names must be there and nothing else, all the way down.
fn hold(document: &Value, schema: &Value, shown: &Value, place: &str) -> Result<()> {
    let schema = resolved(document, schema)?;
    if let (Some(items), Some(shown)) = (schema.get("items"), shown.as_array()) {
        return shown
            .iter()
            .try_for_each(|one| hold(document, items, one, place));
    }
    let (properties, Some(object)) = (properties(document, schema)?, shown.as_object()) else {
        return Ok(());
    };
    if properties.is_empty() {
        return Ok(());
    }
    let named: BTreeSet<&String> = properties.iter().map(|(name, _)| name).collect();
    let there: BTreeSet<&String> = object.keys().collect();
    ensure!(
        named == there,
        "{place}: documented {named:?}, shown {there:?}"
    );
    let mut each = properties.iter();
    each.try_for_each(|(name, schema)| {
        hold(document, schema, &object[name], &format!("{place}.{name}"))
    })
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> Result<&'a Value> {
    match schema["$ref"].as_str() {
        Some(reference) => {
            let found = document.pointer(reference.trim_start_matches('#'));
            found.with_context(|| format!("{reference} is nowhere"))
        }
        None => Ok(schema),
    }
}

fn properties(document: &Value, schema: &Value) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        all.extend(properties(document, resolved(document, part)?)?);
    }
    let own = schema["properties"].as_object().into_iter().flatten();
    all.extend(own.map(|(name, schema)| (name.clone(), schema.clone())));
    Ok(all)
}

#[tokio::test]
async fn every_answer_is_as_it_is_documented() -> Result<()> {
    let text = std::fs::read_to_string(root().join("docs/monitor.yaml"))?;
    let document: Value = serde_saphyr::from_str(&text)?;
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
        if schema.is_null() || path.contains("{id}") {
            continue;
        }
        let path = path
            .replace("{namespace}", "default")
            .replace("{name}", "test");
        let shown = get(admin, &format!("/api/v1{}", path.trim_end_matches('/'))).await?;
        hold(&document, schema, &shown, &path)?;
        asked += 1;
    }
    ensure!(asked == 7, "{asked} paths");
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
