//! The plan, asked of the operators' pods through the API server: only the one that leads has it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::plan::Fleet;

const OPERATORS: &str = "app.kubernetes.io/name=sluice-operator";
const ADMIN_PORT: u16 = 8081;
/// The API server waits long for a pod that has just died; another one may have the answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn fleets(client: &Client) -> Result<Vec<Fleet>> {
    ask(client, "fleets").await
}

pub(crate) async fn fleet(client: &Client, namespace: &str, gateway: &str) -> Result<Fleet> {
    ask(client, &format!("fleets/{namespace}/{gateway}"))
        .await
        .with_context(|| format!("gateway {namespace}/{gateway}"))
}

async fn ask<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T> {
    let pods: Api<Pod> = Api::all(client.clone());
    let operators = pods.list(&ListParams::default().labels(OPERATORS)).await;
    let operators = operators.context("operators cannot be listed")?;
    let mut said = Vec::new();
    for operator in operators {
        let (namespace, name) = (
            operator.namespace().unwrap_or_default(),
            operator.name_any(),
        );
        let url = format!("/api/v1/namespaces/{namespace}/pods/{name}:{ADMIN_PORT}/proxy/{path}");
        let request = Request::get(url).body(Vec::new())?;
        match timeout(PATIENCE, client.request_text(request)).await {
            Ok(Ok(answer)) => {
                return serde_json::from_str(&answer)
                    .with_context(|| format!("{namespace}/{name} said what cannot be read"));
            }
            Ok(Err(failure)) => said.push(format!("{namespace}/{name}: {failure}")),
            Err(_) => said.push(format!("{namespace}/{name}: no answer within {PATIENCE:?}")),
        }
    }
    if said.is_empty() {
        bail!("no operator runs: no pod has the label {OPERATORS}");
    }
    bail!("no operator has a plan: {}", said.join("; "))
}
