//! The programs of clusters, built from the pinned modules in `e2e/cluster` once and kept in the user's cache.
//!
//! A build's folder is named after what it is built from and appears whole, by a rename, or not at all. Builds of one
//! module wait for each other. What a cluster consists of is one module and one build, since most of its time goes into
//! packages that several of its programs share; tools beside it are built when something asks for them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use ring::digest::{Context as Digest, SHA256};

use super::command::text;
use super::folders::{cache, locked};
use super::go_build::{self, BuildArgs};
use crate::sluice::root;

/// One module under `e2e/cluster`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    /// What a cluster consists of.
    Programs,
    Helm,
    Kubeconform,
    KubectlValidate,
    KubeScore,
    Kwok,
    Promtool,
}

/// A program that clusters do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Installs charts.
    Helm,
    /// Holds manifests against JSON schemas.
    Kubeconform,
    /// Does what an API server would with manifests: it has the schemas of Kubernetes itself.
    KubectlValidate,
    /// Judges manifests.
    KubeScore,
    /// Keeps up nodes and pods that are nothing but objects, for tests of scale.
    Kwok,
    /// Judges alert rules.
    Promtool,
}

impl Tool {
    /// Where the program is, built if need be.
    pub fn build(self) -> Result<PathBuf> {
        let (module, name) = match self {
            Self::Helm => (Module::Helm, "helm"),
            Self::Kubeconform => (Module::Kubeconform, "kubeconform"),
            Self::KubectlValidate => (Module::KubectlValidate, "kubectl-validate"),
            Self::KubeScore => (Module::KubeScore, "kube-score"),
            Self::Kwok => (Module::Kwok, "kwok"),
            Self::Promtool => (Module::Promtool, "promtool"),
        };
        Ok(module.build()?.join(name))
    }
}

/// The folder with the programs of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs(PathBuf);

impl Programs {
    /// Builds what is missing.
    pub(super) fn build() -> Result<Self> {
        Module::Programs.build().map(Self)
    }

    /// Those that a cluster was started with.
    pub(super) fn at(folder: &str) -> Self {
        Self(folder.into())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Tells these programs from those of other versions.
    pub(super) fn fingerprint(&self) -> String {
        self.0.display().to_string()
    }
}

impl Module {
    fn name(self) -> &'static str {
        match self {
            Self::Programs => "programs",
            Self::Helm => "helm",
            Self::Kubeconform => "kubeconform",
            Self::KubectlValidate => "kubectl-validate",
            Self::KubeScore => "kube-score",
            Self::Kwok => "kwok",
            Self::Promtool => "promtool",
        }
    }

    fn source(self) -> PathBuf {
        root().join("e2e/cluster").join(self.name())
    }

    /// A program each, named after the last part.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Programs => &[
                "./coredns",
                "./etcd",
                "./fetch",
                "./local-volumes",
                "github.com/containerd/containerd/v2/cmd/containerd",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/ctr",
                "k8s.io/kubernetes/cmd/kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-proxy",
                "k8s.io/kubernetes/cmd/kube-scheduler",
                "k8s.io/kubernetes/cmd/kubectl",
                "k8s.io/kubernetes/cmd/kubelet",
            ],
            Self::Helm => &["helm.sh/helm/v4/cmd/helm"],
            Self::Kubeconform => &["github.com/yannh/kubeconform/cmd/kubeconform"],
            Self::KubectlValidate => &["sigs.k8s.io/kubectl-validate"],
            Self::KubeScore => &["github.com/zegl/kube-score/cmd/kube-score"],
            Self::Kwok => &["sigs.k8s.io/kwok/cmd/kwok"],
            Self::Promtool => &["github.com/prometheus/prometheus/cmd/promtool"],
        }
    }

    /// Kubernetes does not know its own release; `go.mod` does.
    fn link_flags(self) -> Result<String> {
        let mut flags = "-s -w".to_owned();
        if self == Self::Programs {
            let path = self.source().join("go.mod");
            let text = std::fs::read_to_string(&path)?;
            let release = required(&text, "k8s.io/kubernetes")
                .with_context(|| format!("{} names no Kubernetes", path.display()))?;
            let mut parts = release.trim_start_matches('v').split('.');
            let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
            for (name, value) in [
                ("gitVersion", release),
                ("gitMajor", major),
                ("gitMinor", minor),
            ] {
                flags += &format!(" -X k8s.io/component-base/version.{name}={value}");
            }
        }
        Ok(flags)
    }

    fn arguments(self) -> Result<BuildArgs> {
        Ok(BuildArgs {
            link_flags: self.link_flags()?,
            // File systems that need libraries of their own.
            tags: match self {
                Self::Programs => "no_btrfs,no_devmapper,no_zfs,no_aufs",
                // Where Prometheus finds what it scrapes: clients of all clouds.
                Self::Promtool => "remove_all_sd",
                Self::Helm
                | Self::Kubeconform
                | Self::KubectlValidate
                | Self::KubeScore
                | Self::Kwok => "",
            },
            packages: self.packages(),
        })
    }

    /// Names what it is built from.
    fn hash(self) -> Result<String> {
        let mut digest = Digest::new(&SHA256);
        digest.update(format!("{:?}", self.arguments()?).as_bytes());
        for folder in [self.source(), pause_source()] {
            for path in files(&folder)? {
                let text = std::fs::read(&path)?;
                let name = path.strip_prefix(&folder)?;
                digest.update(name.as_os_str().as_encoded_bytes());
                digest.update(&(text.len() as u64).to_le_bytes());
                digest.update(&text);
            }
            if self != Self::Programs {
                break;
            }
        }
        let digest = digest.finish();
        Ok(digest.as_ref()[..6]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect())
    }

    /// The folder with its programs, built if need be.
    fn build(self) -> Result<PathBuf> {
        let folder = cache()?.join("cluster");
        std::fs::create_dir_all(&folder)?;
        let built = folder.join(format!("{}-{}", self.name(), self.hash()?));
        if built.is_dir() {
            return Ok(built);
        }
        let _lock = locked(&folder.join(format!("{}.lock", self.name())))?;
        if built.is_dir() {
            return Ok(built);
        }
        let started = Instant::now();
        let partial = folder.join(format!("{}.partial", self.name()));
        // Of a build that was broken off; the lock says that nobody is at it.
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&partial)?;
        if self == Self::Programs {
            // First, as it is quick: a machine without a C compiler is told so at once.
            compile_pause(&partial)?;
        }
        go_build::run(self.name(), &self.source(), &self.arguments()?, &partial)?;
        std::fs::rename(&partial, &built)?;
        eprintln!("built {} in {:.0?}", self.name(), started.elapsed());
        Ok(built)
    }
}

/// The version of a module that a `go.mod` requires.
fn required<'a>(text: &'a str, module: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        let (name, version) = line.split_once(' ')?;
        (name == module && version.starts_with('v'))
            .then(|| version.split_whitespace().next())
            .flatten()
    })
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn pause_source() -> PathBuf {
    root().join("e2e/cluster/pause")
}

fn compile_pause(bin: &Path) -> Result<()> {
    let mut command = Command::new("cc");
    command
        .args(["-static", "-Os", "-s", "-Wall", "-Wextra", "-o"])
        .arg(bin.join("pause"))
        .arg(pause_source().join("pause.c"));
    text(&mut command)
        .map(drop)
        .context("pause is compiled with the C compiler and its static library")
}

#[cfg(test)]
mod tests {
    use super::required;

    #[test]
    fn a_required_version_is_found() {
        let text = "require k8s.io/api v0.36.3\nrequire (\n\tk8s.io/kubernetes v1.36.3 // indirect\n)\n\
                    replace k8s.io/kms => k8s.io/kms v0.36.3\n";
        assert_eq!(required(text, "k8s.io/kubernetes"), Some("v1.36.3"));
        assert_eq!(required(text, "k8s.io/api"), Some("v0.36.3"));
        assert_eq!(required(text, "k8s.io/kms"), None);
    }
}
