//! `sluice requests` in a pod of the gateway: any of them sees the queue that they share.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::args::Args;

pub(crate) async fn run(
    client: &Client,
    args: &Args,
    namespace: &str,
    gateway: &str,
    arguments: &[String],
) -> Result<ExitCode> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = format!("sluice.dev/gateway={gateway},app.kubernetes.io/component=dataplane");
    let listed = pods.list(&ListParams::default().labels(&selector)).await;
    let listed = listed.context("pods cannot be listed")?;
    let pod = listed
        .into_iter()
        .find(is_ready)
        .with_context(|| format!("gateway {namespace}/{gateway} has no pod that is ready"))?;
    let mut command = Command::new("kubectl");
    if let Some(context) = &args.context {
        command.args(["--context", context]);
    }
    command.args(["--namespace", namespace, "exec", "--quiet", &pod.name_any()]);
    command.args(["--container", "sluice", "--", "/sluice", "requests"]);
    let status = command.args(arguments).status();
    let status = status.context("kubectl cannot be started: is it on the PATH?")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
