//! The operator on a real Kubernetes: a Gateway becomes pods that serve, stays so, says how it is, and goes without a trace.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::cluster::{Cluster, Namespace};
use sluice_e2e::operator::Operator;
use sluice_e2e::sluice::root;

const SOON: Duration = Duration::from_secs(90);
/// Within this time what was changed by hand is as it was.
const REPAIR: Duration = Duration::from_secs(5);
const IMAGE: &str = concat!("localhost/sluice/dataplane:", env!("CARGO_PKG_VERSION"));

const REDIS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: redis, labels: {app: redis}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: redis
      image: localhost/sluice-e2e/redis:1
      imagePullPolicy: IfNotPresent
      args: [--appendonly, 'no', --protected-mode, 'no', --dir, /tmp]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: redis}
spec:
  selector: {app: redis}
  ports: [{port: 6379}]
";

const GATEWAY: &str = "
apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata: {name: demo}
spec:
  listeners: [{name: clients, port: 8000}]
  relay: {authentication: {anonymous: Allowed}}
  redis: {external: {url: 'redis://redis'}}
  dataPlane: {drain: {timeout: 1s}}
";

/// A namespace under the restricted security standard, with the CRDs in the cluster and the images on its nodes.
async fn stage(prefix: &str) -> Result<Namespace> {
    let cluster = Cluster::shared().await?;
    for name in ["dataplane", "redis"] {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), Into::into);
        let archive = target.join(format!("images/{name}.tar"));
        ensure!(
            archive.is_file(),
            "{} is missing: `just images` makes it",
            archive.display()
        );
        cluster.load_image(&archive).await?;
    }
    for name in ["gateway", "application"] {
        let file = root().join(format!("crds/yaml/{name}.yaml"));
        cluster.apply(&std::fs::read_to_string(file)?).await?;
    }
    let crds = "crd/gateways.sluice.dev";
    let established = ["wait", "--for=condition=Established", crds, "--timeout=30s"];
    cluster.kubectl(&established).await?;
    let namespace = cluster.namespace(prefix).await?;
    let label = "pod-security.kubernetes.io/enforce=restricted";
    cluster
        .kubectl(&["label", "namespace", namespace.name(), label])
        .await?;
    Ok(namespace)
}

async fn operator(namespace: &Namespace) -> Result<Operator> {
    let arguments = [
        "--data-plane-image",
        IMAGE,
        "--redis-image",
        "localhost/sluice-e2e/redis:1",
    ];
    Operator::start(namespace.cluster(), namespace.name(), &arguments).await
}

async fn get(namespace: &Namespace, what: &[&str]) -> Result<Value> {
    let mut words = vec!["--namespace", namespace.name()];
    words.extend(what);
    namespace.cluster().get(&words).await
}

/// Status, reason and message of a condition.
async fn condition(namespace: &Namespace, object: &str, kind: &str) -> Result<[String; 3]> {
    let object = get(namespace, &[object]).await?;
    let conditions = object["status"]["conditions"]
        .as_array()
        .context("conditions")?;
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind);
    let found = found.with_context(|| format!("no condition {kind}"))?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Ok([text("status"), text("reason"), text("message")])
}

async fn ready(namespace: &Namespace) -> Result<()> {
    let words = [
        "wait",
        "--for=condition=Ready",
        "slgw/demo",
        "--timeout=180s",
    ];
    namespace.kubectl(&words).await.map(drop)
}

async fn apply_and_wait(namespace: &Namespace) -> Result<()> {
    namespace.apply(&format!("{REDIS}---{GATEWAY}")).await?;
    ready(namespace).await
}

#[tokio::test]
async fn a_gateway_becomes_ready_is_kept_so_and_goes_whole() -> Result<()> {
    let namespace = stage("operator").await?;
    let operator = operator(&namespace).await?;
    let result = async {
        apply_and_wait(&namespace).await?;
        let gateway = get(&namespace, &["slgw", "demo"]).await?;
        ensure!(gateway["status"]["ready"] == "2/2", "{gateway:#}");
        slices_have_the_pods(&namespace, 2).await?;
        drift_is_repaired(&namespace).await?;
        a_bad_spec_is_said(&namespace).await?;
        scale(&namespace).await?;
        deleted(&namespace).await
    };
    let result = result.await.with_context(|| operator.log());
    namespace.explain(result)?;
    operator.stop().await
}

async fn slices_have_the_pods(namespace: &Namespace, pods: usize) -> Result<()> {
    let selector = "--selector=kubernetes.io/service-name=demo";
    let has_all = async || {
        let slices = get(namespace, &["endpointslices", selector]).await?;
        let slices = slices["items"].as_array().context("items")?;
        let endpoints = slices
            .iter()
            .filter_map(|slice| slice["endpoints"].as_array());
        let ready = endpoints
            .flatten()
            .filter(|endpoint| endpoint["conditions"]["ready"] == true);
        Ok(ready.count() == pods)
    };
    let what = format!("{pods} pods take connections");
    namespace.cluster().wait_for(&what, SOON, has_all).await
}

/// Each owned object is deleted, and some are edited.
async fn drift_is_repaired(namespace: &Namespace) -> Result<()> {
    let owned = [
        "service/demo",
        "configmap/demo-config",
        "secret/demo-config",
        "serviceaccount/demo",
        "poddisruptionbudget/demo",
        "networkpolicy/demo",
        "endpointslice/demo-ipv4-0",
    ];
    for object in owned {
        let before = get(namespace, &[object]).await?;
        namespace
            .kubectl(&["delete", object, "--wait=false"])
            .await?;
        let is_back = async || {
            let now = get(namespace, &[object]).await?;
            Ok(now["metadata"]["uid"] != before["metadata"]["uid"])
        };
        let what = format!("{object} is back");
        namespace.cluster().wait_for(&what, REPAIR, is_back).await?;
    }
    for (object, patch, pointer) in [
        (
            "deployment/demo",
            json!({"spec": {"replicas": 1}}),
            "/spec/replicas",
        ),
        (
            "service/demo",
            json!({"spec": {"selector": {"app": "x"}}}),
            "/spec/selector",
        ),
        (
            "configmap/demo-config",
            json!({"data": {"config.json": "{}"}}),
            "/data/config.json",
        ),
    ] {
        let before = get(namespace, &[object]).await?;
        let patch = patch.to_string();
        namespace
            .kubectl(&["patch", object, "--type=merge", "--patch", &patch])
            .await?;
        let is_back = async || {
            let now = get(namespace, &[object]).await?;
            Ok(now.pointer(pointer) == before.pointer(pointer))
        };
        let what = format!("{pointer} of {object} is as it was");
        namespace.cluster().wait_for(&what, REPAIR, is_back).await?;
    }
    Ok(())
}

async fn a_bad_spec_is_said(namespace: &Namespace) -> Result<()> {
    let patch = |port: u16| json!({"spec": {"listeners": [{"name": "clients", "port": port, "protocol": "HTTP"}]}});
    let bad = patch(8081).to_string();
    namespace
        .kubectl(&["patch", "slgw/demo", "--type=merge", "--patch", &bad])
        .await?;
    let is_said = async || {
        let [status, _, message] = condition(namespace, "slgw/demo", "Accepted").await?;
        Ok(status == "False" && message.contains("write another port"))
    };
    namespace
        .cluster()
        .wait_for("the problem is said", REPAIR, is_said)
        .await?;
    slices_have_the_pods(namespace, 2).await?;
    let good = patch(8000).to_string();
    namespace
        .kubectl(&["patch", "slgw/demo", "--type=merge", "--patch", &good])
        .await?;
    ready(namespace).await
}

async fn scale(namespace: &Namespace) -> Result<()> {
    namespace
        .kubectl(&["scale", "slgw/demo", "--replicas=3"])
        .await?;
    slices_have_the_pods(namespace, 3).await?;
    let is_counted = async || {
        let gateway = get(namespace, &["slgw", "demo"]).await?;
        Ok(gateway["status"]["ready"] == "3/3")
    };
    namespace
        .cluster()
        .wait_for("the status counts them", SOON, is_counted)
        .await
}

/// Nothing with the label of the gateway is left.
async fn deleted(namespace: &Namespace) -> Result<()> {
    namespace
        .kubectl(&["delete", "slgw", "demo", "--timeout=60s"])
        .await?;
    let kinds = "deployments,replicasets,pods,services,endpointslices,configmaps,secrets,serviceaccounts,\
                 poddisruptionbudgets,networkpolicies,controllerrevisions";
    let selector = "--selector=sluice.dev/gateway=demo";
    let is_gone = async || {
        let left = get(namespace, &[kinds, selector]).await?;
        let left = left["items"].as_array().context("items")?.len();
        ensure!(left == 0, "{left} objects are left");
        Ok(true)
    };
    namespace
        .cluster()
        .wait_for("everything is gone", SOON, is_gone)
        .await
}

#[tokio::test]
async fn of_two_operators_one_writes_and_the_other_takes_over() -> Result<()> {
    let namespace = stage("election").await?;
    let first = operator(&namespace).await?;
    let second = operator(&namespace).await?;
    let result = async {
        namespace.apply(&format!("{REDIS}---{GATEWAY}")).await?;
        ready(&namespace).await?;
        let leading = "leading: this operator writes";
        ensure!(first.log().contains(leading) && !second.log().contains(leading));
        // Killed: its lease runs out.
        drop(first);
        let began = Instant::now();
        namespace.kubectl(&["delete", "service", "demo"]).await?;
        let is_back = async || get(&namespace, &["service", "demo"]).await.map(|_| true);
        let within = Duration::from_secs(20);
        namespace
            .cluster()
            .wait_for("the other one writes", within, is_back)
            .await?;
        eprintln!("another operator wrote after {:?}", began.elapsed());
        // Ended in order: the next one writes at once.
        let third = operator(&namespace).await?;
        second.stop().await?;
        namespace.kubectl(&["delete", "service", "demo"]).await?;
        let within = Duration::from_secs(8);
        namespace
            .cluster()
            .wait_for("the third one writes", within, is_back)
            .await?;
        third.stop().await
    };
    let result = result.await;
    namespace.explain(result)
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_by_the_api_server() -> Result<()> {
    let namespace = stage("refused").await?;
    let good: Value = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Gateway", "metadata": {"name": "demo"},
        "spec": {
            "listeners": [{"name": "clients", "port": 8000}],
            "relay": {"authentication": {"anonymous": "Allowed"}},
            "redis": {"managed": {"topology": "Cluster"}},
        },
    });
    namespace.apply(&good.to_string()).await?;
    for (pointer, value, wanted) in refused() {
        let mut bad = good.clone();
        let (parent, field) = pointer.rsplit_once('/').context("a pointer")?;
        bad.pointer_mut(parent).context("a parent")?[field] = value;
        let refused = namespace.apply(&bad.to_string()).await;
        let refused = format!(
            "{:#}",
            refused
                .err()
                .with_context(|| format!("{pointer} was taken"))?
        );
        ensure!(refused.contains(wanted), "{pointer}: {refused}");
    }
    Ok(())
}

/// Where, what, and what the refusal says.
fn refused() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/metadata/name", json!("a".repeat(41)), "at most 40"),
        (
            "/spec/redis",
            json!({}),
            "exactly one of managed and external",
        ),
        (
            "/spec/redis/managed/topology",
            json!("Standalone"),
            "topology cannot change",
        ),
        (
            "/spec/redis/managed/storage",
            json!({"size": "1Gi"}),
            "cannot shrink",
        ),
        (
            "/spec/dataPlane",
            json!({"scaling": {"replicas": 1001}}),
            "less than or equal to 1000",
        ),
        (
            "/spec/dataPlane",
            json!({"resources": {"requests": {"cpu": "much"}}}),
            "should match",
        ),
        (
            "/spec/dataPlane",
            json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}),
            "must not be above limits.memory",
        ),
        (
            "/spec/service",
            json!({"loadBalancerClass": "x"}),
            "needs type LoadBalancer",
        ),
        (
            "/spec/allowedApplications",
            json!({"namespaces": {"from": "Selector"}}),
            "needs matchLabels",
        ),
        (
            "/spec/operation",
            json!({"reconciliation": "Sometimes"}),
            "Unsupported value",
        ),
    ]
}
