//! What tests of deployments find on a cluster: images on the nodes, custom resources, a namespace as strict as there is.
//!
//! The images are those that `just images` made; they are not made here, as that is cargo's and the user's, and the
//! cluster is root's.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, Namespace};
use crate::sluice::{root, target};

/// Generous: the machine may be busy with everything else.
const SOON: Duration = Duration::from_secs(90);

/// Puts images into the nodes: the project's, and those of the tests.
pub async fn load_images(cluster: &Cluster, names: &[&str]) -> Result<()> {
    for name in names {
        let archive = target().join(format!("images/{name}.tar"));
        ensure!(
            archive.is_file(),
            "{} is missing: `just images` makes it",
            archive.display()
        );
        cluster.load_image(&archive).await?;
    }
    Ok(())
}

/// Makes the API server know what a Gateway and an Application are.
pub async fn apply_crds(cluster: &Cluster) -> Result<()> {
    let crds = std::fs::read_to_string(root().join("charts/sluice/files/crds.yaml"))?;
    cluster.apply(&crds).await?;
    for name in ["gateways", "applications"] {
        let crd = format!("crd/{name}.sluice.dev");
        // One that has just come has no conditions that could be waited for.
        let is_established = async || {
            let path = r#"--output=jsonpath={.status.conditions[?(@.type=="Established")].status}"#;
            Ok(cluster.kubectl(&["get", &crd, path]).await?.trim() == "True")
        };
        cluster.wait_for(&crd, SOON, is_established).await?;
    }
    Ok(())
}

/// A namespace whose pods may do as little as pods can.
pub async fn restricted(cluster: &Cluster, prefix: &str) -> Result<Namespace> {
    let namespace = cluster.namespace(prefix).await?;
    let label = "pod-security.kubernetes.io/enforce=restricted";
    let words = ["label", "namespace", namespace.name(), label];
    cluster.kubectl(&words).await?;
    Ok(namespace)
}
