//! The chart on a real Kubernetes, installed as people do it: with Roles alone or for the cluster, upgraded, beside
//! another release, and removed without what users made.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::chart;
use sluice_e2e::cluster::{Cluster, Namespace};
use sluice_e2e::http;
use sluice_e2e::prepare::{load_images, restricted};

const RELEASE: &str = "sluice";
const SOON: Duration = Duration::from_secs(60);
const ADMIN_PORT: u16 = 8081;
const CRDS: [&str; 2] = ["crd/gateways.sluice.dev", "crd/applications.sluice.dev"];

/// Counts what does not happen here, and is not shown before it does.
const UNSEEN: &str = "sluice_ingest_parked_total";

/// Has something of everything that the operator does.
const FULL: &str = "
apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata: {name: full}
spec:
  listeners: [{name: clients, port: 8000}]
  relay: {authentication: {anonymous: Allowed}}
  ingest: {upstreams: [{name: main, url: 'http://upstream'}]}
  redis: {managed: {topology: Standalone, storage: {mode: Ephemeral}}}
  dataPlane: {drain: {timeout: 1s}}
";

/// A namespace under the restricted security standard, with the images on the nodes.
async fn stage(prefix: &str) -> Result<Namespace> {
    let cluster = Cluster::shared().await?;
    load_images(&cluster, &["operator", "dataplane", "redis"]).await?;
    restricted(&cluster, prefix).await
}

async fn install(namespace: &Namespace, more: &[(&str, &str)]) -> Result<()> {
    chart::install(namespace.cluster(), namespace.name(), RELEASE, more).await
}

async fn uninstall(namespace: &Namespace) -> Result<()> {
    chart::uninstall(namespace.cluster(), namespace.name(), RELEASE).await
}

async fn uid(namespace: &Namespace, what: &str) -> Result<String> {
    let path = "--output=jsonpath={.metadata.uid}";
    namespace.kubectl(&["get", what, path]).await
}

async fn uids(namespace: &Namespace, what: &[&str]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for what in what {
        all.push(uid(namespace, what).await?);
    }
    Ok(all)
}

async fn ready(namespace: &Namespace, gateway: &str) -> Result<()> {
    let gateway = format!("gateways.sluice.dev/{gateway}");
    let words = ["wait", "--for=condition=Ready", &gateway, "--timeout=180s"];
    namespace.kubectl(&words).await.map(drop)
}

/// Does what the notes of the release say next.
async fn first_gateway(namespace: &Namespace) -> Result<()> {
    let words = ["get", "notes", RELEASE].map(OsString::from);
    let notes = chart::on(namespace.cluster(), namespace.name(), words.into()).await?;
    let manifest = notes.split("<<EOF\n").nth(1).context("a manifest")?;
    let (manifest, rest) = manifest.split_once("EOF\n").context("its end")?;
    namespace.apply(manifest).await?;
    let commands = rest.lines().map(str::trim);
    let commands: Vec<&str> = commands
        .filter(|line| line.starts_with("kubectl "))
        .collect();
    let [wait, get, forward, monitor, token] = commands[..] else {
        anyhow::bail!("{notes}");
    };
    for command in [wait, get] {
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        namespace.cluster().kubectl(&words).await?;
    }
    ensure!(forward.ends_with("port-forward deployment/first 8000"));
    let way = namespace.forward("deployment/first", 8000).await?;
    let answer = http::get(way.address, "/connection/websocket").await?;
    ensure!((400..500).contains(&answer.status), "{}", answer.status);
    ensure!(
        monitor.ends_with("port-forward service/sluice-monitor 8082")
            && token.ends_with("create token ACCOUNT"),
        "{notes}"
    );
    looked_at(namespace).await
}

/// The monitor needs no right of the operator's to know who looks.
async fn looked_at(namespace: &Namespace) -> Result<()> {
    let role = "--resource=gateways.sluice.dev";
    namespace
        .kubectl(&["create", "role", "looks", "--verb=get", role])
        .await?;
    let account = format!("--serviceaccount={}:looks", namespace.name());
    for words in [
        &["create", "serviceaccount", "looks"][..],
        &["create", "rolebinding", "looks", "--role=looks", &account],
    ] {
        namespace.kubectl(words).await?;
    }
    let token = namespace.kubectl(&["create", "token", "looks"]).await?;
    let bearer = format!("Bearer {}", token.trim());
    let way = namespace.forward("service/sluice-monitor", 8082).await?;
    let page = http::get(way.address, "/").await?;
    ensure!(
        page.status == 200 && page.text().contains("<title>Sluice"),
        "{}",
        page.text()
    );
    let headers = [("Authorization", bearer.as_str())];
    let seen = http::request(way.address, "GET", "/api/v1", &headers, b"").await?;
    let wanted = json!([{ "namespace": namespace.name(), "name": "first" }]);
    ensure!(
        seen.status == 200 && seen.json()?["gateways"] == wanted,
        "{}",
        seen.text()
    );
    Ok(())
}

/// Whether an account or user may do something.
async fn may(namespace: &Namespace, user: &str, verb: &str, what: &str) -> bool {
    let user = format!("--as={user}");
    let words = ["auth", "can-i", verb, what, &user];
    let asked = namespace.kubectl(&words).await;
    asked.is_ok_and(|answer| answer.trim() == "yes")
}

fn account(namespace: &Namespace) -> String {
    format!("system:serviceaccount:{}:{RELEASE}", namespace.name())
}

#[tokio::test]
async fn a_team_installs_upgrades_and_removes_an_operator_of_its_own() -> Result<()> {
    let first = stage("chart").await?;
    let second = stage("chart-second").await?;
    let result = async {
        let roles_alone = ("rbac.scope", "Namespaced");
        install(&first, &[roles_alone]).await?;
        has_no_rights_elsewhere(&first, &second).await?;
        let tested = chart::test(first.cluster(), first.name(), RELEASE).await?;
        ensure!(tested.contains("Succeeded"), "{tested}");
        first_gateway(&first).await?;
        first.apply(FULL).await?;
        ready(&first, "full").await?;
        alerts_are_about_metrics_that_there_are(&first).await?;
        steering_comes_back(&first).await?;

        let kept = [&CRDS[..], &["slgw/first", "deployment/first"][..]].concat();
        let before = uids(&first, &kept).await?;
        install(&first, &[roles_alone, ("log.level", "debug")]).await?;
        let args = "--output=jsonpath={.spec.template.spec.containers[0].args}";
        let args = first.kubectl(&["get", "deployment", RELEASE, args]).await?;
        ensure!(args.contains("--log-level=debug"), "{args}");
        ensure!(
            uids(&first, &kept).await? == before,
            "an upgrade made them anew"
        );

        install(&second, &[roles_alone, ("crds.install", "false")]).await?;
        first_gateway(&second).await?;
        // When it goes, its rights may go before it.
        was_refused_nothing(&first)?;
        was_refused_nothing(&second)?;
        uninstall(&second).await?;

        uninstall(&first).await?;
        ensure!(uids(&first, &kept).await? == before, "they are others now");
        ready(&first, "first").await?;
        // Who comes again finds everything.
        install(&first, &[roles_alone]).await?;
        repairs(&first).await?;
        ensure!(uids(&first, &kept).await? == before, "they were made anew");
        uninstall(&first).await
    };
    let result = result.await;
    first.explain(result)
}

async fn has_no_rights_elsewhere(namespace: &Namespace, other: &Namespace) -> Result<()> {
    let roles = namespace
        .cluster()
        .get(&["clusterroles,clusterrolebindings"])
        .await?;
    let roles = roles["items"].as_array().context("items")?;
    let ours = roles.iter().filter(|role| {
        let annotations = &role["metadata"]["annotations"];
        annotations["meta.helm.sh/release-namespace"] == namespace.name()
            || role["subjects"][0]["namespace"] == namespace.name()
    });
    ensure!(ours.count() == 0, "it has rights in the cluster");
    let account = account(namespace);
    ensure!(may(namespace, &account, "get", "secrets").await);
    ensure!(!may(other, &account, "get", "secrets").await);
    ensure!(!may(namespace, &account, "list", "namespaces").await);
    ensure!(!may(namespace, &account, "create", "pods").await);
    ensure!(!may(namespace, &account, "create", "rolebindings").await);
    Ok(())
}

/// The API server writes down what it refuses, and to whom.
fn was_refused_nothing(namespace: &Namespace) -> Result<()> {
    let log = fs::read_to_string(namespace.cluster().audit_log())?;
    let account = account(namespace);
    let asked = log.lines().filter(|line| line.contains(&account));
    let asked: Vec<Value> = asked
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|entry: &Value| entry["user"]["username"] == account.as_str())
        .collect();
    ensure!(!asked.is_empty(), "{account} asked for nothing");
    let refused = asked
        .iter()
        .filter(|entry| entry["responseStatus"]["code"] == 403);
    let refused: BTreeSet<String> = refused
        .map(|entry| format!("{} {}", entry["verb"], entry["requestURI"]))
        .collect();
    ensure!(refused.is_empty(), "refused to {account}: {refused:#?}");
    Ok(())
}

/// What Kubernetes made of the pods itself is removed when the operator says again where connections go.
async fn steering_comes_back(namespace: &Namespace) -> Result<()> {
    let words = [
        "get",
        "endpoints",
        "first",
        "--ignore-not-found",
        "--output=name",
    ];
    for (mode, wanted) in [("Disabled", "endpoints/first"), ("Managed", "")] {
        let patch = json!({"spec": {"service": {"steering": mode}}}).to_string();
        let change = ["patch", "slgw/first", "--type=merge", "--patch", &patch];
        namespace.kubectl(&change).await?;
        let is_so = async || Ok(namespace.kubectl(&words).await?.trim() == wanted);
        let what = format!("steering {mode} leaves {wanted:?}");
        namespace.cluster().wait_for(&what, SOON, is_so).await?;
    }
    ready(namespace, "first").await
}

/// The operator works: what is deleted comes back.
async fn repairs(namespace: &Namespace) -> Result<()> {
    let before = uid(namespace, "service/first").await?;
    namespace.kubectl(&["delete", "service/first"]).await?;
    let is_back = async || Ok(uid(namespace, "service/first").await? != before);
    namespace
        .cluster()
        .wait_for("the Service is back", SOON, is_back)
        .await
}

async fn alerts_are_about_metrics_that_there_are(namespace: &Namespace) -> Result<()> {
    let mut known = BTreeSet::new();
    for selector in [
        "app.kubernetes.io/name=sluice-operator",
        "app.kubernetes.io/component=dataplane,sluice.dev/gateway=full",
    ] {
        let words = [
            "--namespace",
            namespace.name(),
            "pods",
            "--selector",
            selector,
        ];
        let pods = namespace.cluster().get(&words).await?;
        for pod in pods["items"].as_array().context("items")? {
            let ip = pod["status"]["podIP"].as_str().context("an address")?;
            let ip: IpAddr = ip.parse()?;
            let metrics = http::get((ip, ADMIN_PORT).into(), "/metrics").await?;
            let metrics = metrics.text();
            let samples = metrics.lines().filter(|line| !line.starts_with('#'));
            let found = samples.filter_map(|line| line.split(['{', ' ']).next());
            known.extend(found.map(ToOwned::to_owned));
        }
    }
    known.insert(UNSEEN.to_owned());
    let golden = chart::folder().join("tests/golden/everything.yaml");
    let objects = chart::objects(&fs::read_to_string(golden)?)?;
    let rule = objects
        .iter()
        .find(|object| object["kind"] == "PrometheusRule");
    let groups = rule.context("a PrometheusRule")?["spec"]["groups"].as_array();
    let rules = groups.context("groups")?.iter();
    let rules = rules
        .filter_map(|group| group["rules"].as_array())
        .flatten();
    let mut names = BTreeSet::new();
    for rule in rules {
        let expression = rule["expr"].as_str().context("an expression")?;
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let found: Vec<&str> = words.filter(|word| word.starts_with("sluice_")).collect();
        ensure!(!found.is_empty(), "{expression} is about nothing");
        names.extend(found.into_iter().map(ToOwned::to_owned));
    }
    let unknown: Vec<&String> = names.difference(&known).collect();
    ensure!(unknown.is_empty(), "there is no {unknown:?} in {known:?}");
    Ok(())
}

#[tokio::test]
async fn with_rights_in_the_cluster_users_get_theirs_too() -> Result<()> {
    let namespace = stage("chart-cluster").await?;
    let result = async {
        // The way without helm.
        let crds = fs::read_to_string(chart::folder().join("files/crds.yaml"))?;
        namespace.cluster().apply(&crds).await?;
        let watched = json!([namespace.name()]).to_string();
        let values = [("crds.install", "false"), ("watchNamespaces", &watched)];
        install(&namespace, &values).await?;
        for role in ["view", "edit", "admin"] {
            let binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": role},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": role}],
            });
            namespace.apply(&binding.to_string()).await?;
        }
        let gateways = "gateways.sluice.dev";
        for (user, verb) in [("view", "list"), ("edit", "create"), ("admin", "delete")] {
            let what = format!("{user} may {verb} Gateways");
            let granted = async || Ok(may(&namespace, user, verb, gateways).await);
            namespace.cluster().wait_for(&what, SOON, granted).await?;
        }
        ensure!(!may(&namespace, "view", "create", gateways).await);
        first_gateway(&namespace).await?;
        was_refused_nothing(&namespace)?;
        uninstall(&namespace).await?;
        let roles = namespace
            .cluster()
            .get(&["clusterroles,clusterrolebindings"])
            .await?;
        ensure!(
            !roles.to_string().contains(namespace.name()),
            "roles are left"
        );
        Ok(())
    };
    let result = result.await;
    namespace.explain(result)
}
