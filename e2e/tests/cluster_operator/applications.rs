//! Applications on a real Kubernetes: they come and change within seconds, say how they are, and do not take from each other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::cluster::Namespace;
use sluice_e2e::operator::Operator;
use sluice_e2e::operator::stage::{
    AT_ONCE, IMAGE, REDIS, gateway, get, operator, ready, says, served_applications, stage,
};
use tokio::time::sleep;

/// The API server tells ages in whole seconds.
const OLDER: Duration = Duration::from_millis(1100);

/// `demo`, which takes requests for this upstream.
fn with_ingest() -> Value {
    let mut gateway = gateway(1);
    gateway["spec"]["ingest"] = json!({"upstreams": [{"name": "main", "url": "http://upstream"}]});
    gateway
}

fn application(name: &str, keys: &[&str]) -> Value {
    let keys: Vec<Value> = keys.iter().map(|key| json!({"value": key})).collect();
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Application", "metadata": {"name": name},
        "spec": {"gatewayRef": {"name": "demo"}, "keys": keys},
    })
}

/// An application as its pods know it.
async fn served(namespace: &Namespace, name: &str) -> Result<Option<Value>> {
    let all = served_applications(namespace).await?;
    Ok(all
        .into_iter()
        .find(|application| application["name"] == name))
}

/// Waits until the pods' configuration answers a question about an application with yes. Returns how long it took.
async fn until_served(
    namespace: &Namespace,
    name: &str,
    is: impl Fn(Option<&Value>) -> bool,
) -> Result<Duration> {
    let began = Instant::now();
    let holds = async || {
        let served = served(namespace, name).await?;
        ensure!(is(served.as_ref()), "{served:?}");
        Ok(true)
    };
    let what = format!("the pods know how {name} is");
    namespace.cluster().wait_for(&what, AT_ONCE, holds).await?;
    Ok(began.elapsed())
}

#[tokio::test]
async fn applications_come_change_and_go_within_seconds() -> Result<()> {
    let namespace = stage("applications").await?;
    let operator = operator(&namespace, "only").await?;
    let result = async {
        missing_gateway(&namespace).await?;
        edits(&namespace).await?;
        contested_key(&namespace).await?;
        wrong_application(&namespace).await
    };
    let result = result.await.with_context(|| operator.log());
    namespace.explain(result)
}

/// An Application may be there before its Gateway.
async fn missing_gateway(namespace: &Namespace) -> Result<()> {
    namespace
        .apply(&application("first", &["one"]).to_string())
        .await?;
    let missing = ["Accepted", "False", "TargetNotFound"];
    let text = "add it, or name one that exists";
    says(namespace, "slapp/first", missing, text, AT_ONCE).await?;
    namespace
        .apply(&format!("{REDIS}{}", with_ingest()))
        .await?;
    ready(namespace).await?;
    for condition in [
        ["Accepted", "True", "Accepted"],
        ["ResolvedRefs", "True", "ResolvedRefs"],
        ["Ready", "True", "Ready"],
    ] {
        says(namespace, "slapp/first", condition, "", AT_ONCE).await?;
    }
    let shown = namespace.kubectl(&["get", "slapp", "first"]).await?;
    let columns: Vec<&str> = shown
        .lines()
        .nth(1)
        .context("a row")?
        .split_whitespace()
        .collect();
    ensure!(
        columns.get(..4) == Some(&["first", "demo", "True", "Ready"]),
        "{shown}"
    );
    Ok(())
}

async fn edits(namespace: &Namespace) -> Result<()> {
    let mut slowest = Duration::ZERO;
    for rate in 1..=10 {
        let patch = json!({"spec": {"throttle": {"requestsPerMinute": rate}}}).to_string();
        let words = ["patch", "slapp/first", "--type=merge", "--patch", &patch];
        namespace.kubectl(&words).await?;
        let is_known = |served: Option<&Value>| {
            served.is_some_and(|served| served["requestsPerMinute"] == rate)
        };
        slowest = slowest.max(until_served(namespace, "first", is_known).await?);
    }
    eprintln!("edits of an Application were in the ConfigMap after at most {slowest:?}");
    namespace
        .apply(&application("second", &["two", "three"]).to_string())
        .await?;
    until_served(namespace, "second", |served| served.is_some()).await?;
    let is_counted = async || {
        let gateway = get(namespace, &["slgw", "demo"]).await?;
        Ok(gateway["status"]["attachedApplications"] == 2)
    };
    // Numbers in a status are written every ten seconds at most.
    let within = 3 * AT_ONCE;
    namespace
        .cluster()
        .wait_for("both are counted", within, is_counted)
        .await?;
    namespace.kubectl(&["delete", "slapp", "second"]).await?;
    until_served(namespace, "second", |served| served.is_none()).await?;
    Ok(())
}

/// A key belongs to the oldest that claims it; when that one is gone, to the next.
async fn contested_key(namespace: &Namespace) -> Result<()> {
    sleep(OLDER).await;
    // Of the two names it is the later one.
    namespace
        .apply(&application("zoe", &["contested"]).to_string())
        .await?;
    until_served(namespace, "zoe", |served| served.is_some()).await?;
    sleep(OLDER).await;
    namespace
        .apply(&application("adam", &["contested"]).to_string())
        .await?;
    namespace
        .apply(&application("eve", &["contested", "own"]).to_string())
        .await?;
    let told = format!(
        "belongs to Application {}/zoe (spec.keys[0].value), which is older; ",
        namespace.name()
    );
    for (name, said) in [
        ("adam", ["Accepted", "False", "Conflicted"]),
        ("adam", ["Ready", "False", "Conflicted"]),
        ("eve", ["ConfigurationWarning", "True", "Conflicted"]),
    ] {
        says(namespace, &format!("slapp/{name}"), said, &told, AT_ONCE).await?;
    }
    is_ready(namespace, "eve").await?;
    let keys = async |name| {
        let served = served(namespace, name).await?;
        Ok::<_, anyhow::Error>(served.and_then(|served| served["keys"].as_array().map(Vec::len)))
    };
    ensure!(
        keys("zoe").await? == Some(1),
        "the oldest one keeps its key"
    );
    ensure!(keys("eve").await? == Some(1), "another keeps the rest");
    ensure!(
        keys("adam").await?.is_none(),
        "one without a key is not served"
    );
    namespace.kubectl(&["delete", "slapp", "zoe"]).await?;
    until_served(namespace, "adam", |served| served.is_some()).await?;
    is_ready(namespace, "adam").await
}

async fn is_ready(namespace: &Namespace, name: &str) -> Result<()> {
    for said in [["Accepted", "True", "Accepted"], ["Ready", "True", "Ready"]] {
        says(namespace, &format!("slapp/{name}"), said, "", AT_ONCE).await?;
    }
    Ok(())
}

/// One that becomes wrong is served as it was: its clients have done nothing wrong.
async fn wrong_application(namespace: &Namespace) -> Result<()> {
    let good = served(namespace, "first").await?;
    ensure!(good.is_some(), "it is served");
    let wrong = [
        (
            json!({"keys": [{"secretRef": {"name": "missing", "key": "k"}}]}),
            "RefNotFound",
            "spec.keys[0].secretRef.name: Secret",
        ),
        (
            json!({"keys": [{"value": "one"}, {"secretRef": {"name": "missing", "key": "k"}}]}),
            "RefNotFound",
            "does not exist; add the Secret",
        ),
        (
            json!({"delivery": {"backoff": {"initial": "2m"}}}),
            "Invalid",
            "is longer than max, 1m of the Gateway; write a shorter initial",
        ),
        (
            json!({"upstreams": [{"name": "own", "url": "http://[1:2:3]"}]}),
            "Invalid",
            "spec.upstreams[0].url: the host is no host; write http://",
        ),
    ];
    for (part, reason, text) in wrong {
        let mut bad = application("first", &["one"]);
        for (field, value) in part.as_object().context("fields")? {
            bad["spec"][field] = value.clone();
        }
        namespace.apply(&bad.to_string()).await?;
        let condition = ["Accepted", "False", reason];
        says(namespace, "slapp/first", condition, text, AT_ONCE).await?;
        let ready = ["Ready", "False", reason];
        says(namespace, "slapp/first", ready, "served as it was", AT_ONCE).await?;
        ensure!(
            served(namespace, "first").await? == good,
            "{text}: not as it was"
        );
    }
    // The Gateway has nothing to do with it.
    says(
        namespace,
        "slgw/demo",
        ["Accepted", "True", "Accepted"],
        "",
        AT_ONCE,
    )
    .await?;
    let other = json!({"spec": {"gatewayRef": {"name": "other"}}}).to_string();
    let words = ["patch", "slapp/first", "--type=merge", "--patch", &other];
    namespace.kubectl(&words).await?;
    until_served(namespace, "first", |served| served.is_none()).await?;
    Ok(())
}

#[tokio::test]
async fn applications_of_other_namespaces_need_consent() -> Result<()> {
    let namespace = stage("host").await?;
    let guests = namespace.cluster().namespace("guests").await?;
    let watched = format!("{},{}", namespace.name(), guests.name());
    let arguments = ["--watch-namespaces", &watched, "--data-plane-image", IMAGE];
    let operator = Operator::start_with(namespace.cluster(), namespace.name(), &arguments).await?;
    let result = consent(&namespace, &guests).await;
    let result = result.with_context(|| operator.log());
    namespace.explain(result)
}

async fn consent(namespace: &Namespace, guests: &Namespace) -> Result<()> {
    let mut host = with_ingest();
    namespace.apply(&format!("{REDIS}{host}")).await?;
    let mut guest = application("guest", &["of-a-guest"]);
    guest["spec"]["gatewayRef"]["namespace"] = namespace.name().into();
    guests.apply(&guest.to_string()).await?;
    let refused = ["Accepted", "False", "NotAllowed"];
    let text = "have its owner allow it in spec.allowedApplications";
    says(guests, "slapp/guest", refused, text, AT_ONCE).await?;
    ensure!(
        served_applications(namespace).await?.is_empty(),
        "served without consent"
    );
    host["spec"]["allowedApplications"] = json!({"namespaces": {"from": "All"}});
    namespace.apply(&host.to_string()).await?;
    says(
        guests,
        "slapp/guest",
        ["Accepted", "True", "Accepted"],
        "",
        AT_ONCE,
    )
    .await?;
    let name = format!("{}/guest", guests.name());
    until_served(namespace, &name, |served| served.is_some()).await?;
    // Consent may be withdrawn.
    host["spec"]["allowedApplications"] = json!({"namespaces": {"from": "Same"}});
    namespace.apply(&host.to_string()).await?;
    says(guests, "slapp/guest", refused, text, AT_ONCE).await?;
    until_served(namespace, &name, |served| served.is_none()).await?;
    Ok(())
}
