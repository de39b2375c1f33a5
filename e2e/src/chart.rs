//! The chart `charts/sluice`: rendered, and installed on a cluster as people do it, with `helm`.
//!
//! Helm's own files are in a folder that goes with each call, so a user's repositories and caches play no part.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use tokio::task::spawn_blocking;

use crate::cluster::{Cluster, Tool};
use crate::sdk::describe;
use crate::sluice::{Scratch, root};

/// How long pods may take until they are ready, and a test until it has ended.
const TIMEOUT: &str = "180s";

/// Where the chart is.
#[must_use]
pub fn folder() -> PathBuf {
    root().join("charts/sluice")
}

/// Values for the images of this build.
#[must_use]
pub fn images() -> PathBuf {
    root().join("e2e/cluster/values.yaml")
}

/// Installs a release with the images of this build, or upgrades it to these values and the chart's own, and waits until
/// its operators are ready.
///
/// Values have paths such as `image.tag`. One that is JSON (`2`, `false`, `["a"]`) is taken as that, all else as text.
/// The custom resources may be there already, whoever brought them: the release takes them over.
pub async fn install(
    cluster: &Cluster,
    namespace: &str,
    release: &str,
    values: &[(&str, &str)],
) -> Result<()> {
    let scratch = Scratch::new()?;
    let values = scratch.write("values.json", &tree(values)?.to_string())?;
    let words = [
        "upgrade",
        release,
        "--install",
        "--create-namespace",
        "--take-ownership",
        "--server-side=true",
        "--force-conflicts",
        "--reset-values",
        "--wait",
        "--timeout",
        TIMEOUT,
        "--values",
    ];
    let mut arguments: Vec<OsString> = words.map(OsString::from).into();
    arguments.extend([images().into(), "--values".into(), values.into()]);
    arguments.push(folder().into());
    on(cluster, namespace, arguments).await.map(drop)
}

/// Removes a release, and waits until its pods are gone.
pub async fn uninstall(cluster: &Cluster, namespace: &str, release: &str) -> Result<()> {
    let words = ["uninstall", release, "--wait", "--timeout", TIMEOUT];
    on(cluster, namespace, words.map(OsString::from).into())
        .await
        .map(drop)
}

/// Runs the tests that are in the chart, and returns what helm says of them.
pub async fn test(cluster: &Cluster, namespace: &str, release: &str) -> Result<String> {
    let words = ["test", release, "--timeout", TIMEOUT];
    on(cluster, namespace, words.map(OsString::from).into()).await
}

/// What the chart makes of a file of values, tests and custom resources included.
pub async fn render(namespace: &str, release: &str, values: &Path) -> Result<String> {
    let words = ["template", release, "--namespace", namespace, "--values"];
    let mut arguments: Vec<OsString> = words.map(OsString::from).into();
    arguments.push(values.into());
    arguments.push(folder().into());
    helm(arguments).await
}

/// The objects of a text in YAML.
pub fn objects(text: &str) -> Result<Vec<Value>> {
    let texts = text.split("\n---\n").map(str::trim);
    let texts = texts.filter(|text| text.lines().any(|line| !line.starts_with(['#', '-'])));
    texts
        .map(|text| serde_saphyr::from_str(text).with_context(|| text.to_owned()))
        .collect()
}

/// Runs helm as the cluster's administrator, in a namespace; fails as it fails.
pub async fn on(
    cluster: &Cluster,
    namespace: &str,
    mut arguments: Vec<OsString>,
) -> Result<String> {
    arguments.push("--kubeconfig".into());
    arguments.push(cluster.kubeconfig().into());
    arguments.push("--namespace".into());
    arguments.push(namespace.into());
    helm(arguments).await
}

/// Runs helm without a cluster, and returns what it prints; fails as it fails.
pub async fn helm(arguments: Vec<OsString>) -> Result<String> {
    spawn_blocking(move || {
        let scratch = Scratch::new()?;
        let mut command = Command::new(Tool::Helm.build()?);
        for (name, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(name, scratch.path().join(folder));
        }
        command.env_remove("KUBECONFIG").stdin(Stdio::null());
        let output = command.args(&arguments).output().context("helm")?;
        ensure!(
            output.status.success(),
            "helm {arguments:?}: {}",
            describe(&output)
        );
        Ok(String::from_utf8(output.stdout)?)
    })
    .await?
}

/// Values by their paths as the tree that a file of values is.
fn tree(values: &[(&str, &str)]) -> Result<Value> {
    let mut tree = Map::new();
    for (path, text) in values {
        let mut parts: Vec<&str> = path.split('.').collect();
        let last = parts.pop().context("a path has a part")?;
        let mut at = &mut tree;
        for part in parts {
            let below = at
                .entry(part)
                .or_insert_with(|| Value::Object(Map::new()))
                .as_object_mut();
            at = below.with_context(|| format!("{path} is below a value"))?;
        }
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(*text));
        at.insert(last.to_owned(), value);
    }
    Ok(Value::Object(tree))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::tree;

    #[test]
    fn values_get_where_their_paths_say() {
        let values = [
            ("image.repository", "localhost/a"),
            ("image.tag", "0.1.0"),
            ("replicas", "1"),
            ("watchNamespaces", r#"["n"]"#),
            ("priorityClassName", r#""1""#),
        ];
        let wanted = json!({
            "image": {"repository": "localhost/a", "tag": "0.1.0"},
            "replicas": 1, "watchNamespaces": ["n"], "priorityClassName": "1",
        });
        assert_eq!(tree(&values).unwrap(), wanted);
        assert!(tree(&[("a", "1"), ("a.b", "2")]).is_err());
    }
}
