//! The operator on a real Kubernetes: a Gateway becomes pods that serve, stays so, says how it is, and goes without a trace.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::cluster::Namespace;
use sluice_e2e::operator::stage::{
    AT_ONCE, REDIS, SOON, gateway, get, operator, ready, slices_have_the_pods, stage,
};

#[tokio::test]
async fn a_gateway_becomes_ready_is_kept_so_and_goes_whole() -> Result<()> {
    let namespace = stage("operator").await?;
    let operator = operator(&namespace, "only").await?;
    let result = async {
        namespace.apply(&format!("{REDIS}{}", gateway(2))).await?;
        ready(&namespace).await?;
        let gateway = get(&namespace, &["slgw", "demo"]).await?;
        ensure!(gateway["status"]["ready"] == "2/2", "{gateway:#}");
        slices_have_the_pods(&namespace, 2).await?;
        what_is_deleted_is_back(&namespace).await?;
        what_is_edited_is_as_it_was(&namespace).await?;
        scale(&namespace).await?;
        deleted(&namespace).await
    };
    let result = result.await.with_context(|| operator.log());
    namespace.explain(result)?;
    operator.stop().await
}

async fn what_is_deleted_is_back(namespace: &Namespace) -> Result<()> {
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
        namespace
            .cluster()
            .wait_for(&what, AT_ONCE, is_back)
            .await?;
    }
    Ok(())
}

async fn what_is_edited_is_as_it_was(namespace: &Namespace) -> Result<()> {
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
        namespace
            .cluster()
            .wait_for(&what, AT_ONCE, is_back)
            .await?;
    }
    Ok(())
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
