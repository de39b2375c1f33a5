//! What was right last goes on while a Gateway is wrong: where the API server refuses what it asks for, and where another
//! operator begins meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::cluster::Namespace;
use sluice_e2e::operator::stage::{
    AT_ONCE, REDIS, SOON, gateway, get, operator, pods_that_take_connections, ready, running, says,
    slices_have_the_pods, stage, with,
};
use tokio::time::sleep;

/// What only the API server knows to be wrong, and only when it is asked to make it.
#[tokio::test]
async fn pods_that_cannot_be_made_are_said_and_the_others_stay() -> Result<()> {
    let namespace = stage("template").await?;
    let operator = operator(&namespace, "only").await?;
    let good = gateway(1);
    let result = async {
        namespace.apply(&format!("{REDIS}{good}")).await?;
        ready(&namespace).await?;
        slices_have_the_pods(&namespace, 1).await?;
        let before = running(&namespace).await?;
        let container = json!({"name": "sluice", "imagePullPolicy": "Sometimes"});
        let template = json!({"spec": {"containers": [container]}});
        let bad = with(&good, "/spec/dataPlane/podTemplate", template)?;
        namespace.apply(&bad.to_string()).await?;
        let refused = ["Programmed", "False", "Refused"];
        let text = "Deployment demo: ";
        let (message, _) = says(&namespace, "slgw/demo", refused, text, AT_ONCE).await?;
        ensure!(message.contains("imagePullPolicy"), "{message}");
        let stalled = ["Stalled", "True", "Refused"];
        says(&namespace, "slgw/demo", stalled, text, AT_ONCE).await?;
        let now = running(&namespace).await?;
        ensure!(now == before, "{before:#}\n{now:#}");
        namespace.apply(&good.to_string()).await?;
        ready(&namespace).await
    };
    let result = result.await.with_context(|| operator.log());
    namespace.explain(result)
}

/// An operator that begins while a Gateway is wrong does not know from itself what was right: it looks at what is there.
#[tokio::test]
async fn a_new_operator_goes_on_with_what_was_right() -> Result<()> {
    let namespace = stage("resumed").await?;
    let good = gateway(2);
    let first = operator(&namespace, "first").await?;
    let result = async {
        namespace.apply(&format!("{REDIS}{good}")).await?;
        ready(&namespace).await?;
        slices_have_the_pods(&namespace, 2).await?;
        let listeners = json!([{"name": "clients", "port": 8081}]);
        let bad = with(&good, "/spec/listeners", listeners)?;
        namespace.apply(&bad.to_string()).await?;
        let invalid = ["Accepted", "False", "Invalid"];
        says(
            &namespace,
            "slgw/demo",
            invalid,
            "write another port",
            AT_ONCE,
        )
        .await
    };
    let result = result.await.with_context(|| first.log());
    namespace.explain(result)?;
    first.stop().await?;
    let second = operator(&namespace, "second").await?;
    let result = with_another_operator(&namespace).await;
    let result = result.with_context(|| second.log());
    namespace.explain(result)
}

async fn with_another_operator(namespace: &Namespace) -> Result<()> {
    let before = pods_that_take_connections(namespace).await?;
    let pod = before.first().context("a pod")?;
    namespace
        .kubectl(&["delete", "pod", pod, "--wait=false"])
        .await?;
    // The one that comes in its place takes connections.
    let is_replaced = async || {
        let now = pods_that_take_connections(namespace).await?;
        ensure!(now.len() == 2 && !now.contains(pod), "{now:?}");
        Ok(true)
    };
    let what = "a new pod takes connections";
    let cluster = namespace.cluster();
    cluster.wait_for(what, SOON, is_replaced).await?;
    for object in ["service/demo", "configmap/demo-config"] {
        let before = get(namespace, &[object]).await?;
        namespace.kubectl(&["delete", object]).await?;
        let is_back = async || {
            let now = get(namespace, &[object]).await?;
            Ok(now["data"] == before["data"] && now["spec"]["ports"] == before["spec"]["ports"])
        };
        let what = format!("{object} is made again");
        cluster.wait_for(&what, AT_ONCE, is_back).await?;
    }
    sleep(Duration::from_secs(1)).await;
    let invalid = ["Accepted", "False", "Invalid"];
    says(
        namespace,
        "slgw/demo",
        invalid,
        "write another port",
        AT_ONCE,
    )
    .await?;
    Ok(())
}
