//! What tests of the operator begin with: a namespace of the real Kubernetes that has the CRDs and the images, a Gateway
//! called `demo` in it, and questions about both.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Operator;
use crate::cluster::{Cluster, Namespace};
use crate::prepare::{apply_crds, load_images, restricted};

/// Generous: the machine may be busy with everything else.
pub const SOON: Duration = Duration::from_secs(90);
/// Within this time what was changed by hand is as it was, and what was written is in force.
pub const AT_ONCE: Duration = Duration::from_secs(5);
pub const IMAGE: &str = concat!("localhost/sluice/dataplane:", env!("CARGO_PKG_VERSION"));
pub const REDIS_IMAGE: &str = "localhost/sluice-e2e/redis:1";

/// A Redis that is not the operator's business.
pub const REDIS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: redis, labels: {app: redis}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: redis
      image: localhost/sluice-e2e/redis:1
      imagePullPolicy: IfNotPresent
      args: [--appendonly, 'no', --save, '', --protected-mode, 'no']
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: redis}
spec:
  selector: {app: redis}
  ports: [{port: 6379}]
---
";

/// The Gateway `demo` on that Redis.
#[must_use]
pub fn gateway(replicas: u32) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "Gateway",
        "metadata": {"name": "demo"},
        "spec": {
            "listeners": [{"name": "clients", "port": 8000}],
            "relay": {"authentication": {"anonymous": "Allowed"}},
            "redis": {"external": {"url": "redis://redis"}},
            "dataPlane": {
                "scaling": {"replicas": replicas},
                "drain": {"timeout": "1s"},
                "resources": {
                    "requests": {"cpu": "10m", "memory": "32Mi"},
                    "limits": {"memory": "512Mi"},
                },
            },
        },
    })
}

/// An object with one value replaced.
pub fn with(good: &Value, pointer: &str, value: Value) -> Result<Value> {
    let mut changed = good.clone();
    let (parent, field) = pointer.rsplit_once('/').context("a pointer")?;
    changed.pointer_mut(parent).context("a parent")?[field] = value;
    Ok(changed)
}

/// A namespace under the restricted security standard, with the CRDs in the cluster and the images on its nodes.
pub async fn stage(prefix: &str) -> Result<Namespace> {
    let cluster = Cluster::shared().await?;
    load_images(&cluster, &["dataplane", "redis"]).await?;
    apply_crds(&cluster).await?;
    restricted(&cluster, prefix).await
}

/// An operator of this name for a namespace.
pub async fn operator(namespace: &Namespace, name: &str) -> Result<Operator> {
    let arguments = [
        "--identity",
        name,
        "--data-plane-image",
        IMAGE,
        "--redis-image",
        REDIS_IMAGE,
    ];
    Operator::start(namespace.cluster(), namespace.name(), &arguments).await
}

/// What `kubectl get` says of these in the namespace.
pub async fn get(namespace: &Namespace, what: &[&str]) -> Result<Value> {
    let mut words = vec!["--namespace", namespace.name()];
    words.extend(what);
    namespace.cluster().get(&words).await
}

/// A condition of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    pub status: String,
    pub reason: String,
    pub message: String,
    /// It is about the spec as it is now.
    pub is_current: bool,
}

impl Said {
    /// The condition of this type, if there is one.
    #[must_use]
    pub fn of(object: &Value, kind: &str) -> Option<Self> {
        let mut conditions = object["status"]["conditions"].as_array()?.iter();
        let found = conditions.find(|condition| condition["type"] == kind)?;
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Some(Self {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
            is_current: found["observedGeneration"] == object["metadata"]["generation"],
        })
    }
}

/// A condition of `slgw/demo`, say.
pub async fn condition(namespace: &Namespace, object: &str, kind: &str) -> Result<Said> {
    let found = get(namespace, &[object]).await?;
    Said::of(&found, kind).with_context(|| format!("{object} has no condition {kind}"))
}

/// Waits until a condition about the present spec has a status and a reason, and its message holds a text. Returns the
/// message, and how long it took.
pub async fn says(
    namespace: &Namespace,
    object: &str,
    [kind, status, reason]: [&str; 3],
    text: &str,
    within: Duration,
) -> Result<(String, Duration)> {
    let began = Instant::now();
    let mut last = Said::default();
    let holds = async || {
        last = condition(namespace, object, kind).await?;
        let is_so = last.status == status && last.reason == reason && last.message.contains(text);
        ensure!(is_so && last.is_current, "{last:?}");
        Ok(true)
    };
    let what = format!("{object}: {kind}={status} because of {reason}: {text}");
    namespace.cluster().wait_for(&what, within, holds).await?;
    Ok((last.message, began.elapsed()))
}

/// Waits until the Gateway `demo` is ready, as people do.
pub async fn ready(namespace: &Namespace) -> Result<()> {
    let words = [
        "wait",
        "--for=condition=Ready",
        "slgw/demo",
        "--timeout=180s",
    ];
    namespace.kubectl(&words).await.map(drop)
}

/// Waits until just so many pods of `demo` take connections.
pub async fn slices_have_the_pods(namespace: &Namespace, pods: usize) -> Result<()> {
    let has_all = async || {
        let ready = pods_that_take_connections(namespace).await?.len();
        ensure!(ready == pods, "{ready}");
        Ok(true)
    };
    let what = format!("{pods} pods take connections");
    namespace.cluster().wait_for(&what, SOON, has_all).await
}

/// Names of the pods that the EndpointSlices of `demo` send connections to.
pub async fn pods_that_take_connections(namespace: &Namespace) -> Result<Vec<String>> {
    let selector = "--selector=kubernetes.io/service-name=demo";
    let slices = get(namespace, &["endpointslices", selector]).await?;
    let slices = slices["items"].as_array().context("items")?;
    let endpoints = slices
        .iter()
        .filter_map(|slice| slice["endpoints"].as_array());
    let ready = endpoints
        .flatten()
        .filter(|endpoint| endpoint["conditions"]["ready"] == true);
    let names = ready.filter_map(|endpoint| endpoint["targetRef"]["name"].as_str());
    Ok(names.map(ToOwned::to_owned).collect())
}

/// What clients notice of `demo`: its configuration, pods, and where connections go.
pub async fn running(namespace: &Namespace) -> Result<Value> {
    let mut versions = Vec::new();
    for object in [
        "configmap/demo-config",
        "secret/demo-config",
        "deployment/demo",
        "service/demo",
    ] {
        let object = get(namespace, &[object]).await?;
        versions.push(json!([object["data"], object["spec"]]));
    }
    let pods = pods_that_take_connections(namespace).await?;
    Ok(json!({"objects": versions, "pods": pods}))
}

/// The configuration that the pods of `demo` are given.
pub async fn served_config(namespace: &Namespace) -> Result<Value> {
    let map = get(namespace, &["configmap/demo-config"]).await?;
    let text = map["data"]["config.json"].as_str().context("config.json")?;
    Ok(serde_json::from_str(text)?)
}

/// The applications of that configuration, by name.
pub async fn served_applications(namespace: &Namespace) -> Result<Vec<Value>> {
    let config = served_config(namespace).await?;
    let applications = &config["gateway"]["ingest"]["applications"];
    Ok(applications.as_array().cloned().unwrap_or_default())
}
