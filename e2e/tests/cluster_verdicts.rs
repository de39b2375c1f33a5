//! What others think of the manifests: kube-score's verdict on the chart and on what the operator makes of Gateways, and the schemas of
//! Kubernetes as kubectl-validate brings them along and as the cluster itself has them (kubeconform).
//!
//! Whether an API server takes them is tried on one, strictly (`cluster_chart_rendered`, and every test that applies them).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use sluice_e2e::chart;
use sluice_e2e::cluster::{Cluster, Tool};
use sluice_e2e::prepare::apply_crds;
use sluice_e2e::sluice::{Scratch, root};
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

/// The manifests of people, too.
fn all_manifests() -> Result<Vec<PathBuf>> {
    let mut files = manifests()?;
    for entry in fs::read_dir(root().join("examples/kubernetes"))? {
        files.push(entry?.path());
    }
    Ok(files)
}

/// What it cannot judge, and why.
const NOT_JUDGED: [(&str, &str); 2] = [
    (
        "monitoring.coreos.com/v1",
        "kinds of the Prometheus operator, whose schemas it has not",
    ),
    (
        "ControllerRevision",
        "whose data it takes for one without fields",
    ),
];

#[tokio::test]
async fn kubectl_validate_finds_nothing_wrong() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut objects = Vec::new();
    for file in all_manifests()? {
        objects.extend(chart::objects(&fs::read_to_string(file)?)?);
    }
    let count = objects.len();
    let is_not_judged =
        |object: &Value, what: &str| object["apiVersion"] == what || object["kind"] == what;
    for (what, reason) in NOT_JUDGED {
        let before = objects.len();
        objects.retain(|object| !is_not_judged(object, what));
        ensure!(
            objects.len() < before,
            "nothing needs the exception of {what}: {reason}"
        );
    }
    ensure!(
        objects.len() > count * 2 / 3,
        "{} of {count}",
        objects.len()
    );
    let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    let file = scratch.write("all.yaml", &texts.join("\n---\n"))?;
    let crds = root().join("crds/yaml");
    let output = spawn_blocking(move || {
        let mut command = Command::new(Tool::KubectlValidate.build()?);
        command.arg("--local-crds").arg(crds).arg(file);
        command.output().context("kubectl-validate")
    })
    .await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.contains("OK"),
        "{said}{failed}"
    );
    Ok(())
}

/// Kinds that a cluster has by the Prometheus operator alone.
const NOT_HERE: &str = "PodMonitor,PrometheusRule,ServiceMonitor";

#[tokio::test]
async fn kubeconform_finds_everything_as_the_cluster_has_it() -> Result<()> {
    let cluster = Cluster::shared().await?;
    apply_crds(&cluster).await?;
    let document = cluster.kubectl(&["get", "--raw", "/openapi/v2"]).await?;
    let scratch = Scratch::new()?;
    let schemas = schemas(&serde_json::from_str(&document)?)?;
    ensure!(schemas.len() > 50, "{} schemas", schemas.len());
    for (name, schema) in schemas {
        scratch.write(&name, &schema.to_string())?;
    }
    let schemas = scratch
        .path()
        .join("{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json");
    let (fits, said) = conform(schemas.clone(), all_manifests()?).await?;
    ensure!(fits, "{said}");
    ensure!(
        said["summary"]["valid"].as_u64() > Some(50),
        "{}",
        said["summary"]
    );
    let wrong = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "wrong" }, "spec": { "port": 1 },
    });
    let wrong = scratch.write("wrong.yaml", &wrong.to_string())?;
    let (fits, said) = conform(schemas, vec![wrong]).await?;
    ensure!(!fits && said.to_string().contains("port"), "{said}");
    Ok(())
}

/// Whether all files do, and what kubeconform says.
async fn conform(schemas: PathBuf, files: Vec<PathBuf>) -> Result<(bool, Value)> {
    let output = spawn_blocking(move || {
        let mut command = Command::new(Tool::Kubeconform.build()?);
        command
            .args([
                "-strict",
                "-summary",
                "-output",
                "json",
                "-skip",
                NOT_HERE,
                "-schema-location",
            ])
            .arg(schemas)
            .args(files);
        command.output().context("kubeconform")
    })
    .await??;
    let said = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.success(), said))
}

/// Of each kind a file, by its name; all refer to one with the definitions, which know no fields but their own.
fn schemas(document: &Value) -> Result<Vec<(String, Value)>> {
    const DEFINITIONS: &str = "definitions.json";
    let mut definitions: Map<String, Value> = document["definitions"]
        .as_object()
        .context("definitions")?
        .clone();
    let mut schemas = Vec::new();
    for (name, definition) in &definitions {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        for kind in kinds.into_iter().flatten() {
            let part = |part: &str| kind[part].as_str().unwrap_or_default().to_lowercase();
            // The core has no group, which kubeconform calls by the version.
            let group = match part("group") {
                group if group.is_empty() => part("version"),
                group => group,
            };
            let file = format!("{group}_{}_{}.json", part("version"), part("kind"));
            let reference = format!("{DEFINITIONS}#/definitions/{name}");
            schemas.push((file, json!({ "$ref": reference })));
        }
    }
    for definition in definitions.values_mut() {
        close(definition);
    }
    schemas.push((
        DEFINITIONS.to_owned(),
        json!({ "definitions": definitions }),
    ));
    Ok(schemas)
}

/// What OpenAPI says otherwise than JSON Schema, and what it leaves open.
fn close(schema: &mut Value) {
    if schema["format"] == "int-or-string" || schema["x-kubernetes-int-or-string"] == true {
        *schema = json!({ "type": ["string", "integer"] });
        return;
    }
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    // Formats of Kubernetes are not those of JSON Schema.
    fields.remove("format");
    let is_open = fields.contains_key("x-kubernetes-preserve-unknown-fields")
        || fields.contains_key("additionalProperties");
    if fields.contains_key("properties") && !is_open {
        fields.insert("additionalProperties".to_owned(), false.into());
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(close);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(schema) = fields.get_mut(below).filter(|schema| schema.is_object()) {
            close(schema);
        }
    }
}
