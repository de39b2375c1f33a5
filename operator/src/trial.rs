//! `sluice-operator test`: whether an installation works, as `helm test` asks.
//!
//! It asks the operator whether it is ready, and the API server whether it takes a Gateway and refuses a wrong one. Nothing
//! is left behind: both are dry runs.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::api::PostParams;
use kube::{Api, Client, Error};
use serde_json::json;
use sluice_crds::gateway::Gateway;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

/// An operator that was just installed has pods to start and a cluster to look at.
const READY_WITHIN: Duration = Duration::from_secs(90);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);

/// Fails with what does not work.
pub async fn run(client: Client, operator: &Uri) -> anyhow::Result<()> {
    let (ready, deadline) = (
        Http::builder(TokioExecutor::new()).build_http(),
        Instant::now() + READY_WITHIN,
    );
    while let Err(failure) = is_ready(&ready, operator).await {
        ensure!(
            Instant::now() < deadline,
            "the operator is not ready after {READY_WITHIN:?}: {failure:#}"
        );
        sleep(PAUSE).await;
    }
    info!("the operator is ready");
    let gateways = Api::<Gateway>::default_namespaced(client);
    match dry_run(&gateways, 8000).await? {
        Ok(()) => info!("the API server takes a Gateway"),
        Err(refusal) => bail!("the API server refuses a Gateway: {refusal}"),
    }
    match dry_run(&gateways, 0).await? {
        Err(refusal) if refusal.contains("port") => info!("the API server refuses a wrong Gateway"),
        Err(refusal) => {
            bail!("the API server refuses a listener at port 0 for another reason: {refusal}")
        }
        Ok(()) => bail!(
            "the API server takes a listener at port 0: the custom resources are not those of this version"
        ),
    }
    Ok(())
}

async fn is_ready(http: &Http<HttpConnector, Empty<Bytes>>, operator: &Uri) -> anyhow::Result<()> {
    let asked = timeout(ANSWER_TIMEOUT, http.get(operator.clone())).await;
    let status = asked.context("no answer")??.status();
    ensure!(status == StatusCode::OK, "{operator} answers {status}");
    Ok(())
}

/// What the API server would say to a Gateway with a listener at this port.
async fn dry_run(gateways: &Api<Gateway>, port: i32) -> anyhow::Result<Result<(), String>> {
    let gateway = serde_json::from_value(json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "Gateway",
        "metadata": {"generateName": "sluice-test-"},
        "spec": {
            "listeners": [{"name": "clients", "port": port}],
            "relay": {"authentication": {"anonymous": "Allowed"}},
        },
    }))?;
    let how = PostParams {
        dry_run: true,
        field_manager: None,
    };
    match timeout(ANSWER_TIMEOUT, gateways.create(&how, &gateway)).await {
        Ok(Ok(_)) => Ok(Ok(())),
        Ok(Err(Error::Api(status))) if status.code == 422 => Ok(Err(status.message)),
        Ok(Err(failure)) => Err(failure).context("a Gateway cannot be tried"),
        Err(_) => bail!("no answer from the API server within {ANSWER_TIMEOUT:?}"),
    }
}
