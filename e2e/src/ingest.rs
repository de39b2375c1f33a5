//! Gateways that ingest, for tests: a manifest as a value, a server with a data directory that outlives it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::http::{self, Answer};
use crate::http_load::outcome::Outcome;
use crate::http_load::shape::device_name;
use crate::manifest::{self, Manifest};
use crate::ports::free_port;
use crate::sluice::{Launch, Scratch, Sluice, binary};
use crate::upstream::analysis::is_done;
use crate::upstream::handle::Upstream;
use crate::upstream::record::Record;

/// Name and key of the application every test gateway has.
pub const APP: &str = "shop";
pub const KEY: &str = "shopkey";
const DRAIN_S: u32 = 2;

/// A gateway's manifest. Words are the manifest's own.
#[derive(Debug, Clone)]
pub struct Ingest {
    spec: Value,
    applications: Vec<Value>,
    /// Certificate chain and key, PEM.
    tls: Option<(String, String)>,
    /// `spec.redis`, where the queue is then; `None`: on disk.
    redis: Option<Value>,
}

impl Ingest {
    /// Everything as it is by default, one upstream, one application.
    #[must_use]
    pub fn new(upstream: &str) -> Self {
        let ingest = json!({ "upstreams": [{ "name": "main", "url": upstream }] });
        Self {
            spec: ingest,
            applications: Vec::new(),
            tls: None,
            redis: None,
        }
        .application(APP, KEY, json!({}))
    }

    /// Sets a member of `spec.ingest`.
    #[must_use]
    pub fn set(mut self, member: &str, value: Value) -> Self {
        self.spec[member] = value;
        self
    }

    /// The listener speaks TLS.
    #[must_use]
    pub fn tls(mut self, certificate: String, key: String) -> Self {
        self.tls = Some((certificate, key));
        self
    }

    /// The queue is in this Redis.
    #[must_use]
    pub fn redis(mut self, url: String) -> Self {
        self.redis = Some(manifest::external(&url));
        self
    }

    /// Takes all applications away.
    #[must_use]
    pub fn without_applications(mut self) -> Self {
        self.applications.clear();
        self
    }

    /// Adds an application with one key, or replaces the one of this name.
    #[must_use]
    pub fn application(mut self, name: &str, key: &str, more: Value) -> Self {
        let mut spec = json!({ "gatewayRef": { "name": "test" }, "keys": [{ "value": key }] });
        for (member, value) in more.as_object().into_iter().flatten() {
            spec[member] = value.clone();
        }
        self.applications
            .retain(|application| application["metadata"]["name"] != name);
        self.applications.push(json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "Application",
            "metadata": { "name": name }, "spec": spec,
        }));
        self
    }

    /// The same in a gateway that relays as well.
    #[must_use]
    pub fn beside(&self, relay: Manifest) -> Manifest {
        let mut both = relay;
        both.ingest = Some(self.spec.clone());
        both.documents.extend(self.applications.iter().cloned());
        both
    }

    /// The text of the manifest file.
    #[must_use]
    pub fn render(&self, port: u16) -> String {
        let (listener, certificate) = manifest::listener("web", port, self.tls.as_ref());
        let mut documents = Vec::from_iter(certificate);
        let members = [("ingest", Some(&self.spec)), ("redis", self.redis.as_ref())];
        documents.push(manifest::gateway(&listener, DRAIN_S, &members));
        documents.extend(self.applications.iter().cloned());
        manifest::text(&documents)
    }
}

/// A running gateway and its data directory.
pub struct Gateway {
    pub sluice: Sluice,
    launch: Launch,
    data: PathBuf,
    _scratch: Scratch,
}

impl Gateway {
    /// Starts one with a data directory of its own.
    pub async fn start(ingest: &Ingest) -> Result<Self> {
        Self::start_in(ingest, |_| Ok(Vec::new())).await
    }

    /// Starts one under a program that `wrapper` names for the data directory.
    pub async fn start_in(
        ingest: &Ingest,
        wrapper: impl FnOnce(&Path) -> Result<Vec<String>>,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let data = scratch.path().join("data");
        std::fs::create_dir(&data)?;
        let port = free_port()?;
        let arguments = match ingest.redis {
            Some(_) => Vec::new(),
            None => vec!["--data-dir".to_owned(), data.display().to_string()],
        };
        let launch = Launch {
            admin: Some(SocketAddr::from(([127, 0, 0, 1], free_port()?))),
            arguments,
            wrapper: wrapper(&data)?,
            ..Launch::new(ingest.render(port), port)
        };
        Ok(Self {
            sluice: Sluice::launch(launch.clone()).await?,
            launch,
            data,
            _scratch: scratch,
        })
    }

    /// Starts it again, on the same ports and data, after [`Gateway::kill`].
    pub async fn restart(&mut self) -> Result<()> {
        self.sluice = Sluice::launch(self.launch.clone()).await?;
        Ok(())
    }

    /// Changes the manifest, for the running server and for restarts.
    pub fn rewrite(&mut self, ingest: &Ingest) -> Result<()> {
        self.launch.text = ingest.render(self.launch.port);
        self.sluice.rewrite_text(&self.launch.text)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.sluice.kill()
    }

    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.sluice.address
    }

    /// One request, `GET` without a body.
    pub async fn get(&self, target: &str) -> Result<Answer> {
        http::get(self.address(), target).await
    }

    /// An event of the test application, as small as can be.
    pub async fn event(&self, device: &str, seq: u64) -> Result<Answer> {
        self.get(&event(KEY, device, seq)).await
    }

    /// JSON of the admin port.
    pub async fn admin(&self, path: &str) -> Result<Value> {
        let answer = http::get(self.sluice.admin, path).await?;
        ensure!(
            answer.status == 200,
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        answer.json()
    }

    /// A metric's sum over the series whose labels hold this text.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let page = self.sluice.metrics().await?;
        let mut sum = None;
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
            if found == name && found_labels.contains(labels) {
                *sum.get_or_insert(0.0) += value.parse::<f64>()?;
            }
        }
        // A series appears with its first value.
        Ok(sum.unwrap_or(0.0))
    }

    /// Requests that wait, of all applications, as of now; the metric is as of the last second.
    pub async fn waiting(&self) -> Result<f64> {
        let lanes = self.admin("/lanes").await?;
        let lanes = lanes["lanes"].as_array().context("no lanes")?;
        Ok(lanes
            .iter()
            .filter_map(|lane| lane["waiting"].as_f64())
            .sum())
    }

    /// Whether the queue has nothing that waits.
    async fn is_empty(&self) -> Result<bool> {
        let page = self.admin("/requests?state=waiting&limit=1").await?;
        let found = page["requests"].as_array();
        Ok(found.context("no requests in the page")?.is_empty())
    }

    /// Posts to the admin port.
    pub async fn post(&self, path: &str) -> Result<Answer> {
        let json = [("Content-Type", "application/json")];
        http::request(self.sluice.admin, "POST", path, &json, b"").await
    }

    /// Requests that match, page by page, as the admin port shows them.
    pub async fn find(&self, filter: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let page = self
                .admin(&format!("/requests?{filter}&limit=500{after}"))
                .await?;
            let found = page["requests"]
                .as_array()
                .context("no requests in the page")?;
            all.extend(found.iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(all),
            }
        }
    }

    /// Waits until nothing waits.
    pub async fn drained(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let waiting = self.waiting().await?;
            // Delivery hears of a new lane a moment after the request is answered; the queue has it by then.
            if waiting == 0.0 && self.is_empty().await? {
                return Ok(());
            }
            if Instant::now() > deadline {
                let lanes = self.admin("/lanes").await;
                anyhow::bail!("{waiting} still wait after {within:?}: {lanes:?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs `sluice requests` against it; its standard output.
    pub fn requests(&self, arguments: &[&str]) -> Result<String> {
        let output = std::process::Command::new(binary()?)
            .arg("requests")
            .args(arguments)
            .args(["--admin", &self.sluice.admin.to_string()])
            .output()?;
        ensure!(
            output.status.success(),
            "sluice requests {arguments:?}: {}",
            crate::sdk::describe(&output)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same with `--output json`.
    pub fn requests_json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.requests(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }
}

/// The target of an event request.
#[must_use]
pub fn event(key: &str, device: &str, seq: u64) -> String {
    format!(
        "/i?app_key={key}&device_id={device}&timestamp=1790000000000&seq={seq}&events=%5B%7B%22key%22%3A%22e%22%7D%5D"
    )
}

/// Every request of the load that was acknowledged was carried out, in order, none twice; the number carried out though
/// never acknowledged comes back, which is at most what was left in doubt.
pub async fn nothing_lost(upstream: &Upstream, outcome: &Outcome) -> Result<u64> {
    let users = upstream.users().await?;
    let mut more = 0;
    for (device, acked) in outcome.devices() {
        let done = users
            .get(&device_name(device))
            .map_or(0, |user| user.applied);
        ensure!(
            done >= acked,
            "device {device}: {acked} acknowledged, {done} carried out"
        );
        more += done - acked;
    }
    let stats = upstream.stats().await?;
    ensure!(
        stats.missing == 0 && stats.out_of_order == 0 && stats.overlaps == 0,
        "order is broken: {stats:?}"
    );
    ensure!(
        more <= outcome.in_doubt.len() as u64,
        "{more} carried out that nobody sent; {} in doubt",
        outcome.in_doubt.len()
    );
    Ok(more)
}

/// What both carried out, in the order in which it was done.
pub async fn done_by_both(first: &Upstream, second: &Upstream) -> Result<Vec<Record>> {
    let mut records = first.records().await?;
    records.extend(second.records().await?);
    records.retain(is_done);
    records.sort_by_key(|record| record.done_ns);
    Ok(records)
}

/// Every request was carried out, and those of a device in order, whichever upstream got them; how many were repeated.
/// `records`: in the order in which they were done.
pub fn done_in_order(records: &[Record], outcome: &Outcome) -> Result<usize> {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut again = 0;
    for record in records {
        let last = last.entry(&record.device).or_default();
        match record.seq {
            seq if seq == *last + 1 => *last = seq,
            seq if seq == *last => again += 1,
            seq => anyhow::bail!("{} {seq} after {last}", record.device),
        }
    }
    for (device, acked) in outcome.devices() {
        let done = last.get(device_name(device).as_str()).copied().unwrap_or(0);
        ensure!(
            done == acked,
            "device {device}: {acked} acknowledged, {done} carried out"
        );
    }
    Ok(again)
}
