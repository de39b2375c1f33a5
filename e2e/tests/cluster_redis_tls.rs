//! A managed Redis Cluster that speaks TLS alone: a gateway works on it, another certificate replaces its servers without losing
//! anything, and a Secret that is no good is told and used by nobody.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::chart;
use sluice_e2e::cluster::{Cluster, Namespace};
use sluice_e2e::deployed::{API_KEY, RELEASE, api};
use sluice_e2e::prepare::{apply_crds, load_images, restricted};
use sluice_e2e::redis::ask;
use sluice_e2e::tls::Authority;
use tokio::time::{Instant, timeout};

const SCENARIO: Duration = Duration::from_secs(400);
const READY: &str = "--timeout=180s";
/// Replicas are replaced before primaries, each after the one before has caught up.
const REPLACED: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);
const REDIS: &str = "sluice.dev/gateway=secured,app.kubernetes.io/component=redis";
const DATA_PLANE: &str = "sluice.dev/gateway=secured,app.kubernetes.io/component=dataplane";
const CHANNEL: &str = "chat:all";

#[tokio::test(flavor = "multi_thread")]
async fn servers_speak_tls_alone_and_take_another_certificate() -> Result<()> {
    let cluster = Cluster::shared().await?;
    load_images(&cluster, &["dataplane", "operator", "redis"]).await?;
    let namespace = restricted(&cluster, "redis-tls").await?;
    let scenario = timeout(SCENARIO, scenario(&namespace)).await;
    namespace.explain(scenario.context("it takes too long").flatten())
}

async fn scenario(namespace: &Namespace) -> Result<()> {
    apply_crds(namespace.cluster()).await?;
    let values = [
        ("rbac.scope", "Namespaced"),
        ("rbac.aggregateToUserRoles", "false"),
        ("crds.install", "false"),
    ];
    chart::install(namespace.cluster(), namespace.name(), RELEASE, &values).await?;
    let authority = Authority::generate()?;
    namespace
        .apply(&secret(namespace, &authority)?.to_string())
        .await?;
    namespace.apply(&manifests()).await?;
    let since = Instant::now();
    let ready = ["wait", "--for=condition=Ready", "slgw/secured", READY];
    namespace.kubectl(&ready).await?;
    eprintln!("ready after {:?}", since.elapsed());
    publish(namespace, "first").await?;
    nobody_is_heard_without(namespace).await?;

    let before = uids(namespace).await?;
    ensure!(before.len() == 6, "{before:?}");
    let since = Instant::now();
    namespace
        .apply(&secret(namespace, &authority)?.to_string())
        .await?;
    let all_are_others = async || {
        let now = uids(namespace).await?;
        Ok(now.len() == before.len() && now.is_disjoint(&before) && is_ready(namespace).await?)
    };
    namespace
        .cluster()
        .wait_for(
            "all servers have the other certificate",
            REPLACED,
            all_are_others,
        )
        .await?;
    eprintln!("another certificate is in use after {:?}", since.elapsed());
    publish(namespace, "second").await?;
    let texts = history(namespace).await?;
    ensure!(texts == ["first", "second"], "{texts:?}");
    what_is_wrong_is_told(namespace, &authority).await
}

/// With a new certificate each time.
fn secret(namespace: &Namespace, authority: &Authority) -> Result<Value> {
    let name = format!("secured-redis.{}.svc", namespace.name());
    let (certificate, key) = authority.issue(&[&name])?;
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "redis-tls" },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": certificate, "tls.key": key, "ca.crt": authority.certificate },
    }))
}

fn manifests() -> String {
    let resources = json!({
        "requests": { "cpu": "20m", "memory": "64Mi" }, "limits": { "memory": "256Mi" },
    });
    let gateway = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Gateway", "metadata": { "name": "secured" },
        "spec": {
            "listeners": [{ "name": "clients", "port": 8000 }],
            "dataPlane": { "scaling": { "mode": "Fixed", "replicas": 1 }, "resources": resources },
            "redis": { "managed": {
                "storage": { "size": "1Gi", "whenDeleted": "Delete" },
                "resources": resources,
                "tls": { "certificateRef": { "name": "redis-tls" } },
            } },
            "relay": {
                "authentication": { "anonymous": "Allowed" },
                "namespaces": [{ "name": "chat", "options": { "history": { "size": 100, "ttl": "10m" } } }],
                "serverApi": { "keySecretRef": { "name": "api", "key": "key" } },
            },
        },
    });
    let key = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "api" },
        "stringData": { "key": API_KEY },
    });
    format!("{gateway}\n---\n{key}\n")
}

async fn list(namespace: &Namespace, selector: &str) -> Result<Vec<Value>> {
    let words = [
        "--namespace",
        namespace.name(),
        "pods",
        "--selector",
        selector,
    ];
    let mut list = namespace.cluster().get(&words).await?;
    let items = list["items"].as_array_mut().context("items")?;
    items.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(std::mem::take(items))
}

async fn uids(namespace: &Namespace) -> Result<BTreeSet<String>> {
    let pods = list(namespace, REDIS).await?;
    let uids = pods
        .iter()
        .filter_map(|pod| pod["metadata"]["uid"].as_str());
    Ok(uids.map(str::to_owned).collect())
}

fn address(pod: &Value, port: u16) -> Result<SocketAddr> {
    let ip = pod["status"]["podIP"].as_str().context("an address")?;
    Ok(SocketAddr::new(ip.parse()?, port))
}

async fn is_ready(namespace: &Namespace) -> Result<bool> {
    Ok(condition(namespace, "RedisReady").await?.0 == "True")
}

/// Status and message.
async fn condition(namespace: &Namespace, kind: &str) -> Result<(String, String)> {
    let words = ["--namespace", namespace.name(), "slgw", "secured"];
    let gateway = namespace.cluster().get(&words).await?;
    let conditions = gateway["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind);
    let text = |field: &str| {
        found
            .and_then(|found| found[field].as_str())
            .unwrap_or_default()
    };
    Ok((text("status").to_owned(), text("message").to_owned()))
}

async fn call(namespace: &Namespace, method: &str, request: &Value) -> Result<Value> {
    let pods = list(namespace, DATA_PLANE).await?;
    api(
        address(pods.first().context("a data plane")?, 8000)?,
        method,
        request,
    )
    .await
}

async fn publish(namespace: &Namespace, text: &str) -> Result<()> {
    let request = json!({ "account": "acme", "channel": CHANNEL, "data": text });
    call(namespace, "publish", &request).await.map(drop)
}

async fn history(namespace: &Namespace) -> Result<Vec<String>> {
    let request = json!({ "account": "acme", "channel": CHANNEL, "limit": 10 });
    let history = call(namespace, "history", &request).await?;
    let publications = history["publications"].as_array().context("publications")?;
    let texts = publications.iter().filter_map(|one| one["data"].as_str());
    Ok(texts.map(str::to_owned).collect())
}

/// Whoever speaks plainly gets no answer from any server.
async fn nobody_is_heard_without(namespace: &Namespace) -> Result<()> {
    for pod in list(namespace, REDIS).await? {
        let answer = ask(address(&pod, 6379)?, &["operator", "x"], &["PING"]).await;
        let said = format!("{answer:?}");
        ensure!(answer.is_err() && !said.contains("WRONGPASS"), "{said}");
    }
    Ok(())
}

/// And what is in force stays so.
async fn what_is_wrong_is_told(namespace: &Namespace, authority: &Authority) -> Result<()> {
    let before = uids(namespace).await?;
    let without = r#"{"data": {"ca.crt": null}}"#;
    let words = [
        "patch",
        "secret",
        "redis-tls",
        "--type=merge",
        "--patch",
        without,
    ];
    namespace.kubectl(&words).await?;
    let is_told = async || {
        let (status, message) = condition(namespace, "ResolvedRefs").await?;
        Ok(status == "False" && message.contains("ca.crt") && message.contains("certificateRef"))
    };
    let cluster = namespace.cluster();
    cluster
        .wait_for("the missing key is told", SOON, is_told)
        .await?;
    publish(namespace, "third").await?;
    ensure!(uids(namespace).await? == before, "servers were replaced");
    let plain = r#"{"spec": {"redis": {"managed": {"tls": null}}}}"#;
    let words = ["patch", "slgw/secured", "--type=merge", "--patch", plain];
    let refused = namespace
        .kubectl(&words)
        .await
        .err()
        .context("TLS was removed")?;
    ensure!(
        format!("{refused:#}").contains("tls cannot be added or removed"),
        "{refused:#}"
    );
    namespace
        .apply(&secret(namespace, authority)?.to_string())
        .await?;
    let is_right = async || Ok(condition(namespace, "ResolvedRefs").await?.0 == "True");
    cluster.wait_for("it is right again", SOON, is_right).await
}
