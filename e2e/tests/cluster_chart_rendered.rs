//! What the chart renders: as recorded, as an API server takes it, and not at all from values that cannot be meant.
//!
//! `UPDATE_GOLDEN=1` records it anew. Custom resources are not recorded: they are those of `crds/yaml`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::chart;
use sluice_e2e::cluster::{Cluster, Namespace, Tool};
use sluice_e2e::sluice::{Scratch, root};

const CASES: [&str; 3] = ["defaults", "namespaced", "everything"];
const RELEASE: &str = "sluice";
/// The release's namespace, and those that are watched by name.
const NAMESPACES: [&str; 3] = ["sluice-system", "team-a", "team-b"];
const CRD: &str = "\nkind: CustomResourceDefinition\n";

fn file(folder: &str, case: &str) -> PathBuf {
    chart::folder().join(format!("tests/{folder}/{case}.yaml"))
}

async fn render(case: &str) -> Result<String> {
    chart::render(NAMESPACES[0], RELEASE, &file("values", case)).await
}

fn without_crds(rendered: &str) -> String {
    let texts = rendered.split("---\n");
    let others: Vec<&str> = texts.filter(|text| !text.contains(CRD)).collect();
    others.join("---\n")
}

#[tokio::test]
async fn charts_render_as_recorded() -> Result<()> {
    let mut stale = Vec::new();
    for case in CASES {
        let rendered = without_crds(&render(case).await?);
        let golden = file("golden", case);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &rendered)?;
        }
        if fs::read_to_string(&golden).unwrap_or_default() != rendered {
            stale.push(format!("{case} renders to:\n{rendered}"));
        }
    }
    ensure!(stale.is_empty(), "{}", stale.join("\n"));
    Ok(())
}

#[tokio::test]
async fn the_dashboard_is_one_that_grafana_reads() -> Result<()> {
    let enabled = [
        "--set",
        "metrics.dashboard.enabled=true",
        "--show-only",
        "templates/dashboard.yaml",
    ];
    let mut arguments: Vec<OsString> = ["template", RELEASE].map(OsString::from).into();
    arguments.extend(enabled.map(OsString::from));
    arguments.push(chart::folder().into());
    let rendered = chart::helm(arguments).await?;
    let map = &chart::objects(&rendered)?[0];
    ensure!(
        map["metadata"]["labels"]["grafana_dashboard"] == "1",
        "{map}"
    );
    let dashboard = map["data"]["sluice.json"]
        .as_str()
        .context("the dashboard")?;
    let dashboard: Value = serde_json::from_str(dashboard)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let mut places = Vec::new();
    for panel in panels {
        let grid = |side: &str| panel["gridPos"][side].as_u64().context("a place");
        places.push((grid("x")?, grid("y")?));
        let asks = panel["targets"].as_array().map_or(0, Vec::len);
        ensure!(panel["type"] == "row" || asks > 0, "{panel} shows nothing");
    }
    let count = places.len();
    places.sort_unstable();
    places.dedup();
    ensure!(
        count > 10 && places.len() == count,
        "panels lie on each other: {places:?}"
    );
    Ok(())
}

/// Alerts, and what the dashboard asks, as rules: each a question that Prometheus understands.
#[tokio::test]
async fn prometheus_understands_the_alerts_and_what_the_dashboard_asks() -> Result<()> {
    let rendered = chart::objects(&render("everything").await?)?;
    let alerts = rendered
        .iter()
        .find(|object| object["kind"] == "PrometheusRule");
    let mut rules = alerts.context("alerts")?["spec"].clone();
    let groups = rules["groups"].as_array_mut().context("groups")?;
    let alerts: usize = groups
        .iter()
        .map(|group| group["rules"].as_array().map_or(0, Vec::len))
        .sum();
    let dashboard = fs::read_to_string(chart::folder().join("files/dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&dashboard)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let asked: Vec<Value> = targets
        .filter_map(|target| target["expr"].as_str())
        .enumerate()
        .map(|(number, asked)| {
            let asked = asked.replace("$__rate_interval", "1m");
            json!({ "record": format!("dashboard:{number}"), "expr": asked })
        })
        .collect();
    ensure!(alerts > 5 && asked.len() > 10, "{alerts} {}", asked.len());
    let count = alerts + asked.len();
    groups.push(json!({ "name": "dashboard", "rules": asked }));
    let scratch = Scratch::new()?;
    let file = scratch.write("rules.yaml", &rules.to_string())?;
    let mut command = Command::new(Tool::Promtool.build()?);
    let output = command
        .args(["check", "rules", "--lint=all", "--lint-fatal"])
        .arg(file)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{failed}");
    ensure!(said.contains(&format!("{count} rules found")), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_custom_resources_are_those_of_the_types_and_stay() -> Result<()> {
    let mut wanted = BTreeMap::new();
    for name in ["gateway", "application"] {
        let text = fs::read_to_string(root().join(format!("crds/yaml/{name}.yaml")))?;
        let crd: Value = serde_saphyr::from_str(&text)?;
        wanted.insert(crd["metadata"]["name"].to_string(), plain(&crd["spec"]));
    }
    let mut found = BTreeMap::new();
    for object in chart::objects(&render("defaults").await?)? {
        if object["kind"] != "CustomResourceDefinition" {
            continue;
        }
        let metadata = &object["metadata"];
        ensure!(metadata["annotations"]["helm.sh/resource-policy"] == "keep");
        ensure!(metadata["labels"]["app.kubernetes.io/part-of"] == "sluice");
        found.insert(metadata["name"].to_string(), plain(&object["spec"]));
    }
    ensure!(found == wanted, "{:?} {:?}", found.keys(), wanted.keys());
    ensure!(!render("namespaced").await?.contains(CRD));
    Ok(())
}

/// Without the difference between 1 and 1.0, of which helm keeps nothing.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| (key.clone(), plain(value)));
            fields.collect()
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

#[tokio::test]
async fn helm_finds_nothing_to_complain_of() -> Result<()> {
    for case in CASES {
        let mut arguments: Vec<OsString> =
            ["lint", "--strict", "--values"].map(OsString::from).into();
        arguments.push(file("values", case).into());
        arguments.push(chart::folder().into());
        let said = chart::helm(arguments).await?;
        ensure!(said.contains("0 chart(s) failed"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_package_has_all_of_the_chart_but_its_tests() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut arguments: Vec<OsString> = ["package", "--destination"].map(OsString::from).into();
    arguments.push(scratch.path().into());
    arguments.push(chart::folder().into());
    chart::helm(arguments).await?;
    let name = concat!("sluice-", env!("CARGO_PKG_VERSION"), ".tgz");
    let listed = Command::new("tar")
        .arg("-tzf")
        .arg(scratch.path().join(name))
        .output()?;
    let listed = String::from_utf8(listed.stdout)?;
    for file in [
        "sluice/files/crds.yaml",
        "sluice/templates/tests/installation.yaml",
        "sluice/values.schema.json",
    ] {
        ensure!(listed.lines().any(|line| line == file), "{file}: {listed}");
    }
    ensure!(!listed.contains("sluice/tests/"), "{listed}");
    Ok(())
}

#[tokio::test]
async fn values_that_cannot_be_meant_are_refused() -> Result<()> {
    for (value, wanted) in [
        ("replicas=-1", "/replicas"),
        ("replicas=two", "/replicas"),
        ("replica=2", "'replica' not allowed"),
        ("rbac.scope=Everything", "/rbac/scope"),
        ("rbac.create=false", "'create' not allowed"),
        ("image.repository=", "/image/repository"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("image.tag=1", "/image/tag"),
        ("defaults.redisImage=", "/defaults/redisImage"),
        ("crds.install=perhaps", "/crds/install"),
        ("watchNamespaces={Team_A}", "/watchNamespaces/0"),
        ("watchNamespaces={a,a}", "/watchNamespaces"),
        ("log.format=Xml", "/log/format"),
        (
            "podLabels.app\\.kubernetes\\.io/name=x",
            "invalid propertyName",
        ),
        ("metrics.serviceMonitor.enable=true", "'enable' not allowed"),
        (
            "metrics.podMonitor.interval=often",
            "/metrics/podMonitor/interval",
        ),
        (
            "networkPolicy.metricsFrom=monitoring",
            "/networkPolicy/metricsFrom",
        ),
    ] {
        let mut arguments: Vec<OsString> = ["template", RELEASE, "--set", value]
            .map(OsString::from)
            .into();
        arguments.push(chart::folder().into());
        let refused = chart::helm(arguments).await.err();
        let refused = refused.with_context(|| format!("{value} was taken"))?;
        let refused = format!("{refused:#}");
        ensure!(
            refused.contains("of the schema") && refused.contains(wanted),
            "{value}: {refused}"
        );
    }
    Ok(())
}

/// All but what needs more than this cluster has: the Prometheus operator, and an account that was made before its pod.
#[tokio::test]
async fn an_api_server_takes_what_is_rendered() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let mut namespaces: Vec<Namespace> = Vec::new();
    for _ in NAMESPACES {
        namespaces.push(cluster.namespace("chart-dry").await?);
    }
    let scratch = Scratch::new()?;
    for case in CASES {
        let mut text = render(case).await?;
        for (name, namespace) in NAMESPACES.iter().zip(&namespaces) {
            text = text.replace(name, namespace.name());
        }
        let mut objects = chart::objects(&text)?;
        let count = objects.len();
        objects.retain(|object| {
            object["kind"] != "Pod" && object["apiVersion"] != "monitoring.coreos.com/v1"
        });
        let left_out = if case == "everything" { 4 } else { 1 };
        ensure!(count - objects.len() == left_out, "{case}: {count}");
        let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
        let file = scratch.write("all.yaml", &texts.join("\n---\n"))?;
        let file = format!("--filename={}", file.display());
        let words = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            &file,
        ];
        let taken = cluster.kubectl(&words).await.context(case)?;
        ensure!(taken.lines().count() == objects.len(), "{case}: {taken}");
    }
    Ok(())
}
