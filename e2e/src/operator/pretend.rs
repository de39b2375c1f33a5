//! Nodes that are nothing but objects, and pods on them that are ready without running: for more Gateways than a machine
//! has room for.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::cluster::{Cluster, Tool};
use crate::sluice::Scratch;

const STAGES: &str = include_str!("../../cluster/manifests/pretended.yaml");
/// Of pretended nodes: no pod gets onto one by chance, nor another node into the hands of KWOK.
const LABEL: &str = "sluice.dev/pretended";
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What keeps them up. Ends when dropped.
#[derive(Debug)]
pub struct Pretence {
    child: Child,
    scratch: Scratch,
}

impl Pretence {
    /// Returns when the nodes are ready. Builds KWOK before its first start.
    pub async fn start(cluster: &Cluster, nodes: usize) -> Result<Self> {
        let program = spawn_blocking(|| Tool::Kwok.build()).await??;
        let scratch = Scratch::new()?;
        let stages = scratch.write("stages.yaml", STAGES)?;
        let log = std::fs::File::create(scratch.path().join("log"))?;
        let child = Command::new(program)
            .arg("--config")
            .arg(stages)
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig())
            .arg(format!("--manage-nodes-with-label-selector={LABEL}=yes"))
            .args(["--cidr=10.100.0.0/16", "--node-ip=10.100.0.1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("KWOK")?;
        let pretence = Self { child, scratch };
        let list: Vec<Value> = (0..nodes).map(node).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": list});
        cluster.apply(&list.to_string()).await?;
        let selector = format!("--selector={LABEL}=yes");
        let within = format!("--timeout={}s", READY_WITHIN.as_secs());
        let words = ["wait", "--for=condition=Ready", "nodes", &selector, &within];
        let ready = cluster.kubectl(&words).await;
        ready.with_context(|| pretence.log())?;
        Ok(pretence)
    }

    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// What brings pods onto these nodes: a part of a PodTemplateSpec.
    #[must_use]
    pub fn template() -> Value {
        json!({"spec": {
            "nodeSelector": {LABEL: "yes"},
            "tolerations": [{"key": LABEL, "operator": "Exists"}],
        }})
    }
}

fn node(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": format!("pretended{number}"),
            "labels": {LABEL: "yes", "kubernetes.io/hostname": format!("pretended{number}")},
        },
        "spec": {"taints": [{"key": LABEL, "value": "yes", "effect": "NoSchedule"}]},
    })
}

impl Drop for Pretence {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
