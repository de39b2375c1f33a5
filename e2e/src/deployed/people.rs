//! People of the cluster, as accounts, who look at the monitor.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Deployed, OPERATORS, Pod};
use crate::http::{self, Answer};

const MONITOR_PORT: u16 = 8082;
const OPERATOR_PODS: &str = "--selector=app.kubernetes.io/name=sluice-operator";

/// Somebody with a role in the namespace of the gateway, or with none.
pub async fn token(deployed: &Deployed, name: &str, role: Option<&str>) -> Result<String> {
    let namespace = &deployed.namespace;
    namespace
        .kubectl(&["create", "serviceaccount", name])
        .await?;
    if let Some(role) = role {
        let account = format!("--serviceaccount={}:{name}", namespace.name());
        let role = format!("--clusterrole={role}");
        let words = ["create", "rolebinding", name, &role, &account];
        namespace.kubectl(&words).await?;
    }
    let token = namespace.kubectl(&["create", "token", name]).await?;
    Ok(token.trim().to_owned())
}

/// Where the operators show the monitor: the one that leads first.
pub async fn monitors(deployed: &Deployed) -> Result<Vec<SocketAddr>> {
    let cluster = deployed.namespace.cluster();
    let words = ["--namespace", OPERATORS, "pods", OPERATOR_PODS];
    let list = cluster.get(&words).await?;
    let pods = list["items"].as_array().context("a list")?;
    let lease = ["--namespace", OPERATORS, "lease/sluice"];
    let lease = cluster.get(&lease).await?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let leads = |pod: &Pod| holder.starts_with(&pod.name);
    let mut pods: Vec<Pod> = pods.iter().filter_map(Pod::of).collect();
    pods.sort_by_key(|pod| !leads(pod));
    ensure!(pods.first().is_some_and(leads), "nobody leads: {holder:?}");
    let addresses = pods.iter().map(|pod| (pod.ip, MONITOR_PORT).into());
    Ok(addresses.collect())
}

/// Asks the API as somebody; `path` below `/api/v1`.
pub async fn ask(
    monitor: SocketAddr,
    token: &str,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Answer> {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let headers = if token.is_empty() {
        &headers[1..]
    } else {
        &headers
    };
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let path = format!("/api/v1{path}");
    http::request(monitor, method, &path, headers, body.as_bytes()).await
}
