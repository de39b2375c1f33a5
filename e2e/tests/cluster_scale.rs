//! An operator with hundreds of Gateways and thousands of Applications: its memory, and the time from an edit to the
//! changed ConfigMap. Their pods are pretended, everything else is real. It takes minutes and prints figures:
//! `just cluster-scale`, with other numbers in `SCALE_GATEWAYS` and `SCALE_APPLICATIONS`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use sluice_e2e::bench::process::cpu_seconds;
use sluice_e2e::cluster::Cluster;
use sluice_e2e::operator::Operator;
use sluice_e2e::operator::audit::{Write, all_writes};
use sluice_e2e::operator::pretend::Pretence;
use sluice_e2e::operator::stage::IMAGE;
use sluice_e2e::prepare::apply_crds;
use tokio::time::sleep;

const NAME: &str = "scale";
const GATEWAYS_PER_NAMESPACE: usize = 20;
const PRETENDED_NODES: usize = 5;
/// All objects are made, and everything is said of them.
const SETTLED: Duration = Duration::from_secs(900);
/// Longer than statuses are put off.
const AT_REST: Duration = Duration::from_secs(20);
/// Edits one after the other, of Gateways and Applications in turn.
const EDITS: usize = 60;
const EDIT_VISIBLE: Duration = Duration::from_secs(5);
/// Of memory, for 1,000 Gateways and 10,000 Applications.
const MEMORY_KB_MAX: u64 = 300_000;

/// What is there, by numbers.
#[derive(Debug, Clone, Copy)]
struct Size {
    gateways: usize,
    /// Of each Gateway.
    applications: usize,
}

impl Size {
    fn asked() -> Result<Self> {
        let number = |name: &str, otherwise: usize| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
            Err(_) => Ok(otherwise),
        };
        let gateways = number("SCALE_GATEWAYS", 200)?;
        let applications = number("SCALE_APPLICATIONS", 2000)? / gateways;
        Ok(Self {
            gateways,
            applications,
        })
    }

    fn namespaces(self) -> usize {
        self.gateways.div_ceil(GATEWAYS_PER_NAMESPACE)
    }
}

fn namespace(gateway: usize) -> String {
    format!("team-{}", gateway / GATEWAYS_PER_NAMESPACE)
}

fn gateway(number: usize, message_bytes: usize) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Gateway",
        "metadata": {"name": format!("gateway-{number}"), "namespace": namespace(number)},
        "spec": {
            "listeners": [{"name": "clients", "port": 8000}],
            "relay": {
                "authentication": {"anonymous": "Allowed"},
                "limits": {"messageBytes": message_bytes},
                "namespaces": [{"name": "chat", "options": {
                    "presence": "Enabled", "history": {"size": 100, "ttl": "10m"}, "recovery": "Always",
                }}],
            },
            "ingest": {"upstreams": [{"name": "main", "url": "http://upstream.example"}]},
            "redis": {"external": {"url": "redis://redis.example"}},
            "dataPlane": {"scaling": {"replicas": 1}, "podTemplate": Pretence::template()},
        },
    })
}

fn application(gateway: usize, number: usize, rate: usize) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Application",
        "metadata": {
            "name": format!("application-{gateway}-{number}"), "namespace": namespace(gateway),
        },
        "spec": {
            "gatewayRef": {"name": format!("gateway-{gateway}")},
            "keys": [{"value": format!("key-{gateway}-{number}-0123456789abcdef")}],
            "throttle": {"requestsPerMinute": rate},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and measures: just cluster-scale"]
async fn many_gateways_and_applications() -> Result<()> {
    let size = Size::asked()?;
    let cluster = Cluster::start(NAME, 1).await?;
    apply_crds(&cluster).await?;
    let pretence = Pretence::start(&cluster, PRETENDED_NODES).await?;
    let first = start(&cluster, "first").await?;
    let result = measure(&cluster, size, first).await;
    result.with_context(|| pretence.log())
}

async fn start(cluster: &Cluster, name: &str) -> Result<Operator> {
    let arguments = ["--identity", name, "--data-plane-image", IMAGE];
    Operator::start_with(cluster, "default", &arguments).await
}

async fn measure(cluster: &Cluster, size: Size, operator: Operator) -> Result<()> {
    eprintln!("{size:?}; an operator without any: {}", memory(&operator)?);
    let began = Instant::now();
    create(cluster, size).await?;
    eprintln!("all objects were made in {:?}", began.elapsed());
    settled(cluster, size).await?;
    eprintln!(
        "all Gateways were ready after {:?}; {}, {:.1} s of CPU",
        began.elapsed(),
        memory(&operator)?,
        cpu_seconds(operator.pid())?
    );
    sleep(AT_REST).await;
    operator.stop().await?;
    let began = Instant::now();
    let operator = start(cluster, "second").await?;
    eprintln!(
        "another operator had seen everything after {:?}",
        began.elapsed()
    );
    nothing_to_write(cluster, "second").await?;
    let cpu = cpu_seconds(operator.pid())?;
    eprintln!(
        "it found nothing to write; {}, {cpu:.1} s of CPU",
        memory(&operator)?
    );
    let single = single_edits(cluster, size).await?;
    report("one edit at a time", &single)?;
    let cpu = cpu_seconds(operator.pid())?;
    let many = edit_all(cluster, size).await?;
    report("all Gateways edited at once", &many)?;
    let used = cpu_seconds(operator.pid())? - cpu;
    eprintln!("{}; {used:.1} s of CPU for that", memory(&operator)?);
    let peak = status_kb(&operator, "VmHWM:")?;
    ensure!(peak <= MEMORY_KB_MAX, "{peak} KB of memory");
    let slowest = single.last().context("edits")?;
    ensure!(
        *slowest <= EDIT_VISIBLE.as_secs_f64(),
        "an edit took {slowest} s"
    );
    operator.stop().await
}

fn status_kb(operator: &Operator, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("a number")?.parse()?)
}

fn memory(operator: &Operator) -> Result<String> {
    let (now, peak) = (
        status_kb(operator, "VmRSS:")?,
        status_kb(operator, "VmHWM:")?,
    );
    Ok(format!(
        "{} MB of memory, at most {} MB",
        now / 1000,
        peak / 1000
    ))
}

/// Namespace by namespace, a few at a time.
async fn create(cluster: &Cluster, size: Size) -> Result<()> {
    let numbers: Vec<usize> = (0..size.namespaces()).collect();
    for some in numbers.chunks(4) {
        let created = some.iter().map(|number| {
            let from = number * GATEWAYS_PER_NAMESPACE;
            let gateways = from..(from + GATEWAYS_PER_NAMESPACE).min(size.gateways);
            let name = namespace(from);
            let mut items = vec![json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
            })];
            for number in gateways {
                items.push(gateway(number, 65_536));
                items.extend((0..size.applications).map(|other| application(number, other, 1000)));
            }
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
            async move { cluster.apply(&list).await }
        });
        try_join_all(created).await?;
    }
    Ok(())
}

async fn settled(cluster: &Cluster, size: Size) -> Result<()> {
    let column = r#"--output=jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    for (what, wanted) in [
        ("gateways.sluice.dev", size.gateways),
        ("applications.sluice.dev", size.gateways * size.applications),
    ] {
        let are_ready = async || {
            let states = cluster
                .kubectl(&["get", what, "--all-namespaces", column])
                .await?;
            let ready = states.lines().filter(|state| *state == "True").count();
            ensure!(ready == wanted, "{ready} of {wanted}");
            Ok(true)
        };
        cluster
            .wait_for(&format!("all {what} are ready"), SETTLED, are_ready)
            .await?;
    }
    Ok(())
}

/// What an operator finds that begins is as it should be: it has nothing to write.
async fn nothing_to_write(cluster: &Cluster, operator: &str) -> Result<()> {
    sleep(AT_REST).await;
    let agent = format!("({operator}_");
    let writes = all_writes(cluster, |line| line.contains(&agent))?;
    let shown: Vec<&Write> = writes.iter().take(5).collect();
    ensure!(shown.is_empty(), "{} times: {shown:#?}", writes.len());
    Ok(())
}

/// Edits that touch a Gateway each, at a pace that leaves the operator at rest. Seconds until each was in the ConfigMap.
async fn single_edits(cluster: &Cluster, size: Size) -> Result<Vec<f64>> {
    let from = last(cluster)?;
    let count = EDITS.min(size.gateways);
    for edit in 0..count {
        // All over the place.
        let gateway = edit * size.gateways / count;
        let (kind, name, patch) = if edit % 2 == 0 {
            let patch = json!({"spec": {"relay": {"limits": {"messageBytes": 32_768}}}});
            ("slgw", format!("gateway-{gateway}"), patch)
        } else {
            let patch = json!({"spec": {"throttle": {"requestsPerMinute": 2000}}});
            ("slapp", format!("application-{gateway}-0"), patch)
        };
        let (namespace, patch) = (namespace(gateway), patch.to_string());
        let words = [
            "patch",
            kind,
            &name,
            "--namespace",
            &namespace,
            "--type=merge",
            "--patch",
            &patch,
        ];
        cluster.kubectl(&words).await?;
        sleep(Duration::from_millis(100)).await;
    }
    visible(cluster, &from, count).await
}

/// All of them by the same second or so.
async fn edit_all(cluster: &Cluster, size: Size) -> Result<Vec<f64>> {
    let from = last(cluster)?;
    let all = (0..size.gateways)
        .map(|number| gateway(number, 16_384))
        .collect::<Vec<_>>();
    let lists = all.chunks(size.gateways.div_ceil(4));
    let applied = lists.map(|items| {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        async move { cluster.apply(&list).await }
    });
    try_join_all(applied).await?;
    visible(cluster, &from, size.gateways).await
}

/// The time of the last write that is known.
fn last(cluster: &Cluster) -> Result<String> {
    let writes = all_writes(cluster, |line| line.contains("sluice.dev"))?;
    Ok(writes.last().context("there are some")?.until.clone())
}

/// From the answer to each edit since then to the answer to the ConfigMap that it makes, sorted.
async fn visible(cluster: &Cluster, from: &str, wanted: usize) -> Result<Vec<f64>> {
    let deadline = Instant::now() + SETTLED;
    loop {
        let writes = all_writes(cluster, |line| {
            line.contains("kubectl") || line.contains("configmaps")
        })?;
        let times = times(writes.iter().filter(|write| write.until.as_str() > from))?;
        if times.len() >= wanted {
            return Ok(times);
        }
        ensure!(
            Instant::now() < deadline,
            "{} of {wanted} edits are visible",
            times.len()
        );
        sleep(Duration::from_secs(1)).await;
    }
}

fn times<'a>(writes: impl Iterator<Item = &'a Write>) -> Result<Vec<f64>> {
    let mut edits: BTreeMap<(String, String), f64> = BTreeMap::new();
    let mut times = Vec::new();
    for write in writes.filter(|write| write.code < 300) {
        let at = seconds(&write.until)?;
        let gateway = match write.what.as_str() {
            "patch gateways" => write.name.clone(),
            "patch applications" => {
                let number = write.name.split('-').nth(1).context("a number")?;
                format!("gateway-{number}")
            }
            "patch configmaps" => {
                let gateway = write.name.trim_end_matches("-config").to_owned();
                if let Some(edited) = edits.remove(&(write.namespace.clone(), gateway)) {
                    times.push(at - edited);
                }
                continue;
            }
            _ => continue,
        };
        edits.insert((write.namespace.clone(), gateway), at);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Of a day, as in `2026-01-02T03:04:05.678901Z`.
fn seconds(time: &str) -> Result<f64> {
    let (_, clock) = time.split_once('T').context("a time")?;
    let parts = clock.trim_end_matches('Z').split(':');
    parts.into_iter().try_fold(0.0, |sum, part| {
        let part: f64 = part.parse()?;
        Ok(sum * 60.0 + part)
    })
}

fn report(what: &str, times: &[f64]) -> Result<()> {
    let median = times.get(times.len() / 2).context("times")?;
    let last = times.last().context("times")?;
    eprintln!(
        "{what}: {} edits, in the ConfigMap after {median:.2} s (median), {last:.2} s at most",
        times.len()
    );
    Ok(())
}
