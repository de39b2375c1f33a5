//! What others think of the manifests: kube-score's verdict on the chart and on what the operator makes of Gateways.
//!
//! Whether an API server takes them is tried on one, strictly (`cluster_chart_rendered`, and every test that applies them).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_e2e::chart;
use sluice_e2e::cluster::Tool;
use sluice_e2e::sluice::root;
use tokio::task::spawn_blocking;

/// Checks whose complaints are meant, and why.
const EXCEPTIONS: [(&str, &str); 7] = [
    (
        "container-image-pull-policy",
        "images have versions; a pod that starts while the registry is away is worth more",
    ),
    (
        "container-ephemeral-storage-request-and-limit",
        "roots are read-only, and the kubelet bounds the logs",
    ),
    (
        "container-resources",
        "memory has requests and limits; a limit of CPU throttles what shares a core with nobody",
    ),
    (
        "pod-networkpolicy",
        "what data planes call (upstreams, key servers) is anywhere; the pod of `helm test` ends by itself",
    ),
    (
        "deployment-has-host-podantiaffinity",
        "topology spread constraints say the same, and do not keep pods from being scheduled",
    ),
    (
        "deployment-strategy",
        "a Gateway without Redis has its store in one pod, which two must not have at a time",
    ),
    ("deployment-replicas", "how many is the user's choice"),
];

/// kube-score's opinion of a file, as it says it itself.
async fn score(file: PathBuf, ignored: &[&str]) -> Result<Vec<Value>> {
    let ignored: Vec<String> = ignored
        .iter()
        .map(|id| format!("--ignore-test={id}"))
        .collect();
    let output = spawn_blocking(move || {
        let mut command = Command::new(Tool::KubeScore.build()?);
        command
            .args(["score", "--output-format=json"])
            .args(ignored);
        command.arg(&file).output().context("kube-score")
    })
    .await??;
    // It fails when it complains, which it says in its output too.
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What it complains of, by object and check.
fn complaints(objects: &[Value]) -> Vec<String> {
    const FINE: u64 = 10;
    let mut complaints = Vec::new();
    for object in objects {
        for check in object["checks"].as_array().into_iter().flatten() {
            if check["skipped"] == false && check["grade"].as_u64().is_none_or(|grade| grade < FINE)
            {
                complaints.push(format!(
                    "{}: {}: {}",
                    object["object_name"], check["check"]["id"], check["comments"]
                ));
            }
        }
    }
    complaints
}

fn manifests() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(chart::folder().join("tests/golden"))? {
        files.push(entry?.path());
    }
    for entry in fs::read_dir(root().join("operator/tests/golden"))? {
        files.push(entry?.path().join("out.yaml"));
    }
    ensure!(files.len() >= 6, "{files:?}");
    Ok(files)
}

#[tokio::test]
async fn kube_score_complains_of_nothing_but_what_is_meant() -> Result<()> {
    let ignored = EXCEPTIONS.map(|(id, _)| id);
    let mut unmeant = Vec::new();
    let mut met = Vec::new();
    for file in manifests()? {
        let judged = score(file.clone(), &ignored).await?;
        ensure!(!judged.is_empty(), "{}: nothing was judged", file.display());
        unmeant.extend(complaints(&judged));
        met.extend(complaints(&score(file, &[]).await?));
    }
    ensure!(unmeant.is_empty(), "{unmeant:#?}");
    for (id, reason) in EXCEPTIONS {
        ensure!(
            met.iter().any(|complaint| complaint.contains(id)),
            "nothing needs the exception of {id} any more: {reason}"
        );
    }
    Ok(())
}
