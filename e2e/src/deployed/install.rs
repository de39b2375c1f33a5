//! How a gateway gets onto a cluster: by the README's commands, or beside others with rights in its namespace only.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::task::spawn_blocking;

use super::{OPERATORS, RELEASE};
use crate::chart;
use crate::cluster::{Cluster, Namespace, Tool};
use crate::prepare::apply_crds;
use crate::readme::Readme;
use crate::sdk::describe;
use crate::sluice::{Scratch, root};

/// What takes its time is a Redis Cluster on a busy machine.
const READY: &str = "--timeout=180s";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    /// As pasted from the README: the operator, in a namespace of its own, looks after all namespaces. There must be no
    /// other operator.
    AsInReadme,
    /// The operator is in the namespace of its gateway, and Roles of that namespace are all the rights it has.
    Namespaced,
}

/// Removes an operator for all namespaces when dropped.
pub(super) struct Installed {
    everywhere: Option<Cluster>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        let Some(cluster) = &self.everywhere else {
            return;
        };
        // What cannot be removed is told by the next one who installs.
        if let Err(error) = remove(cluster) {
            eprintln!("the operator may be left: {error:#}");
        }
    }
}

/// Returns when the gateway of the examples is ready.
pub(super) async fn install(
    namespace: &Namespace,
    how: Install,
    upstream: SocketAddr,
) -> Result<Installed> {
    let cluster = namespace.cluster();
    match how {
        Install::AsInReadme => {
            let installed = Installed {
                everywhere: Some(cluster.clone()),
            };
            as_in_readme(namespace, upstream).await?;
            Ok(installed)
        }
        Install::Namespaced => {
            apply_crds(cluster).await?;
            let values = [
                ("rbac.scope", "Namespaced"),
                ("rbac.aggregateToUserRoles", "false"),
                ("crds.install", "false"),
            ];
            chart::install(cluster, namespace.name(), RELEASE, &values).await?;
            namespace.apply(&upstream_manifest(upstream)?).await?;
            let gateway = root().join("examples/kubernetes/gateway.yaml");
            namespace.apply(&std::fs::read_to_string(gateway)?).await?;
            let wait = ["wait", "--for=condition=Ready", "slgw/demo", READY];
            namespace.kubectl(&wait).await?;
            Ok(Installed { everywhere: None })
        }
    }
}

/// `examples/kubernetes/upstream.yaml` for this server.
fn upstream_manifest(upstream: SocketAddr) -> Result<String> {
    let manifest = std::fs::read_to_string(root().join("examples/kubernetes/upstream.yaml"))?;
    let (port, address) = ("port: 9000", "[10.200.0.1]");
    ensure!(
        manifest.contains(port) && manifest.contains(address),
        "upstream.yaml names another server"
    );
    Ok(manifest
        .replace(port, &format!("port: {}", upstream.port()))
        .replace(address, &format!("[{}]", upstream.ip())))
}

/// The README's block, in a shell whose `kubectl` speaks to the namespace.
async fn as_in_readme(namespace: &Namespace, upstream: SocketAddr) -> Result<()> {
    let cluster = namespace.cluster();
    // Helm installs what is not there yet.
    let crds = ["gateways.sluice.dev", "applications.sluice.dev"];
    let words = [&["delete", "crd", "--ignore-not-found"][..], &crds].concat();
    cluster.kubectl(&words).await?;
    let scratch = Scratch::new()?;
    let manifest = scratch.write("upstream.yaml", &upstream_manifest(upstream)?)?;
    let readme = Readme::read()?;
    let block = readme.block("sh", "helm install")?;
    let (example, apply) = ("examples/kubernetes/upstream.yaml", "kubectl apply");
    ensure!(block.contains(example) && block.contains(apply), "{block}");
    let block = block.replace(example, &manifest.display().to_string());
    let kubeconfig = scratch.path().join("kubeconfig");
    std::fs::copy(cluster.kubeconfig(), &kubeconfig)?;
    let mut command = Command::new("bash");
    let context = r#"kubectl config set-context --current --namespace="$1" >/dev/null"#;
    command
        .args(["-euo", "pipefail", "-c", &format!("{context}\n{block}")])
        .args(["bash", namespace.name()])
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", scratch.path())
        .current_dir(root())
        .stdin(Stdio::null());
    let began = Instant::now();
    let output = in_path(cluster, command).await?;
    eprintln!("{:?} for:\n{block}{output}", began.elapsed());
    Ok(())
}

/// Runs something that calls `helm` and `kubectl`, and returns what it printed; fails as it fails.
async fn in_path(cluster: &Cluster, mut command: Command) -> Result<String> {
    let programs = cluster.programs();
    spawn_blocking(move || {
        let helm = Tool::Helm.build()?;
        let helm = helm.parent().context("a program is in a folder")?;
        let mut folders = vec![programs, helm.to_owned()];
        let path = std::env::var_os("PATH").unwrap_or_default();
        folders.extend(std::env::split_paths(&path));
        let output = command
            .env("PATH", std::env::join_paths(folders)?)
            .output()?;
        ensure!(output.status.success(), "{}", describe(&output));
        Ok(String::from_utf8(output.stdout)?)
    })
    .await?
}

fn remove(cluster: &Cluster) -> Result<()> {
    let mut command = Command::new(Tool::Helm.build()?);
    command
        .args(["uninstall", RELEASE, "--namespace", OPERATORS])
        .args(["--ignore-not-found", "--wait", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .stdin(Stdio::null());
    let output = command.output()?;
    ensure!(output.status.success(), "{}", describe(&output));
    Ok(())
}
