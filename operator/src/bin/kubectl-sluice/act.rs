//! Orders: annotations that the operator reads, and waiting until they are carried out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use sluice_crds::gateway::Gateway;
use tokio::time::{Instant, sleep};

use crate::plan::Fleet;
use crate::read;

const DRAIN: &str = "sluice.dev/drain";
const REBALANCE: &str = "sluice.dev/rebalance";
const REQUESTED: &str = "requested";
const GATEWAY_LABEL: &str = "sluice.dev/gateway";

const STEP: Duration = Duration::from_secs(2);
/// The manager looks at an order within a few seconds; what has not begun by then has nothing to do.
const BEGUN_WITHIN: Duration = Duration::from_secs(45);

pub(crate) async fn drain(
    client: &Client,
    namespace: &str,
    name: &str,
    undo: bool,
    wait: bool,
) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods.get(name).await;
    let pod = pod.with_context(|| format!("pod {namespace}/{name}"))?;
    let labels = pod.metadata.labels.unwrap_or_default();
    let gateway = labels.get(GATEWAY_LABEL);
    let gateway = gateway
        .with_context(|| format!("pod {name} is of no gateway: it has no label {GATEWAY_LABEL}"))?;
    let order = if undo { Value::Null } else { REQUESTED.into() };
    let patch = annotation(DRAIN, order);
    let patched = pods.patch(name, &PatchParams::default(), &patch).await;
    patched.context("the pod cannot be annotated")?;
    if undo {
        println!("pod/{name} takes new clients again");
        return Ok(());
    }
    println!("pod/{name} is being drained");
    if !wait {
        return Ok(());
    }
    let mut last = None;
    loop {
        let fleet = read::fleet(client, namespace, gateway).await?;
        let planned = fleet.pod(name);
        let planned = planned.with_context(|| format!("pod {name} is gone"))?;
        if planned.drained {
            println!("pod/{name} is drained; `--undo` lets it take clients again");
            return Ok(());
        }
        if last.replace(planned.connections) != Some(planned.connections) {
            println!("{} clients left", planned.connections);
        }
        sleep(STEP).await;
    }
}

pub(crate) async fn rebalance(
    client: &Client,
    namespace: &str,
    name: &str,
    stop: bool,
) -> Result<()> {
    let resource = ApiResource::erase::<Gateway>(&());
    let gateways: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let order = async |order: Value| {
        let patch = annotation(REBALANCE, order);
        let patched = gateways.patch(name, &PatchParams::default(), &patch).await;
        patched.map(drop).context("the gateway cannot be annotated")
    };
    if stop {
        order(Value::Null).await?;
        println!("gateway/{name} moves nobody any more");
        return Ok(());
    }
    order(REQUESTED.into()).await?;
    println!("gateway/{name} moves clients until the pods are even");
    let moved = until_even(client, namespace, name).await;
    // Whatever came in between: the order was for once.
    order(Value::Null).await?;
    moved
}

async fn until_even(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let since = Instant::now();
    let mut begun = false;
    loop {
        let fleet = read::fleet(client, namespace, name).await?;
        match &fleet.activity {
            Some(activity) => {
                begun = true;
                println!("{activity}");
            }
            None if begun || since.elapsed() > BEGUN_WITHIN => {
                println!("{}", evenness(&fleet));
                return Ok(());
            }
            None => {}
        }
        ensure!(!fleet.pods.is_empty(), "gateway {name} has no pods");
        sleep(STEP).await;
    }
}

fn evenness(fleet: &Fleet) -> String {
    let most = fleet.pods.iter().map(|pod| pod.connections).max();
    let least = fleet.pods.iter().map(|pod| pod.connections).min();
    format!(
        "done: {} clients, between {} and {} on a pod",
        fleet.connections,
        least.unwrap_or_default(),
        most.unwrap_or_default()
    )
}

fn annotation(name: &str, value: Value) -> Patch<Value> {
    Patch::Merge(json!({"metadata": {"annotations": {name: value}}}))
}
