//! The programs of the cluster, built from the pinned modules in `e2e/cluster` once and kept in the user's cache.
//!
//! A build's folder is named after what it is built from and appears whole, by a rename, or not at all. Builds of one
//! component wait for each other.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ring::digest::{Context as Digest, SHA256};

use super::folders::{cache, locked};
use crate::sluice::root;

/// The release of Kubernetes that `e2e/cluster/kubernetes/go.mod` names; the programs do not know it by themselves.
const KUBERNETES: &str = "v1.36.3";
/// How often a build says that it is still going on.
const PROGRESS: Duration = Duration::from_secs(20);

/// One module under `e2e/cluster`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Component {
    Kubernetes,
    Containerd,
    Etcd,
    CoreDns,
    Pause,
}

/// A program of a component.
struct Target {
    name: &'static str,
    package: String,
    /// Linked with the C library.
    cgo: bool,
}

/// Where the built programs are.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) kubernetes: PathBuf,
    pub(super) containerd: PathBuf,
    pub(super) etcd: PathBuf,
    pub(super) coredns: PathBuf,
    pub(super) pause: PathBuf,
}

impl Programs {
    /// Builds what is missing.
    pub(super) fn build() -> Result<Self> {
        // The quick ones first: what is wrong with the machine shows early.
        Ok(Self {
            pause: Component::Pause.build()?,
            etcd: Component::Etcd.build()?,
            containerd: Component::Containerd.build()?,
            kubernetes: Component::Kubernetes.build()?,
            coredns: Component::CoreDns.build()?,
        })
    }

    pub(super) fn kubectl(&self) -> PathBuf {
        self.kubernetes.join("kubectl")
    }

    /// Tells these programs from those of other versions.
    pub(super) fn fingerprint(&self) -> String {
        let all = [
            &self.kubernetes,
            &self.containerd,
            &self.etcd,
            &self.coredns,
            &self.pause,
        ];
        let shown: Vec<String> = all.iter().map(|p| p.display().to_string()).collect();
        shown.join(":")
    }
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Containerd => "containerd",
            Self::Etcd => "etcd",
            Self::CoreDns => "coredns",
            Self::Pause => "pause",
        }
    }

    fn source(self) -> PathBuf {
        root().join("e2e/cluster").join(self.name())
    }

    fn targets(self) -> Vec<Target> {
        let target = |name, package: &str, cgo| Target {
            name,
            package: package.to_owned(),
            cgo,
        };
        let of = |prefix: &str, names: &[&'static str]| -> Vec<Target> {
            let all = names.iter();
            all.map(|name| target(name, &format!("{prefix}/{name}"), *name == "kubelet"))
                .collect()
        };
        match self {
            Self::Kubernetes => {
                let names = [
                    "kube-apiserver",
                    "kube-controller-manager",
                    "kube-scheduler",
                    "kube-proxy",
                    "kubectl",
                    "kubelet",
                ];
                let mut all = of("k8s.io/kubernetes/cmd", &names);
                // Our own, on the same libraries.
                all.push(target("local-volumes", "./local-volumes", false));
                all
            }
            Self::Containerd => of(
                "github.com/containerd/containerd/v2/cmd",
                &["containerd", "containerd-shim-runc-v2", "ctr"],
            ),
            Self::Etcd => vec![target("etcd", ".", false)],
            Self::CoreDns => vec![target("coredns", ".", false)],
            Self::Pause => Vec::new(),
        }
    }

    fn link_flags(self) -> String {
        let mut flags = "-s -w".to_owned();
        if self == Self::Kubernetes {
            let mut parts = KUBERNETES.trim_start_matches('v').split('.');
            let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
            let package = "k8s.io/component-base/version";
            flags += &format!(
                " -X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
            );
        }
        flags
    }

    fn tags(self) -> &'static str {
        match self {
            // File systems that need libraries of their own.
            Self::Containerd => "no_btrfs,no_devmapper,no_zfs,no_aufs",
            Self::Kubernetes | Self::Etcd | Self::CoreDns | Self::Pause => "",
        }
    }

    /// Names what it is built from.
    fn hash(self) -> Result<String> {
        let source = self.source();
        let names = files(&source)?;
        let mut digest = Digest::new(&SHA256);
        digest.update(self.link_flags().as_bytes());
        digest.update(self.tags().as_bytes());
        for path in names {
            let text = std::fs::read(&path)?;
            let name = path.strip_prefix(&source)?;
            digest.update(name.as_os_str().as_encoded_bytes());
            digest.update(&(text.len() as u64).to_le_bytes());
            digest.update(&text);
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
            return Ok(built.join("bin"));
        }
        let _lock = locked(&folder.join(format!("{}.lock", self.name())))?;
        if built.is_dir() {
            return Ok(built.join("bin"));
        }
        let started = Instant::now();
        let partial = folder.join(format!("{}.partial", self.name()));
        // Of a build that was broken off; the lock says that nobody is at it.
        let _ = std::fs::remove_dir_all(&partial);
        let bin = partial.join("bin");
        std::fs::create_dir_all(&bin)?;
        match self {
            Self::Pause => compile_pause(&self.source(), &bin)?,
            Self::Kubernetes | Self::Containerd | Self::Etcd | Self::CoreDns => {
                self.go_build(&bin)?
            }
        }
        std::fs::rename(&partial, &built)?;
        eprintln!("built {} in {:.0?}", self.name(), started.elapsed());
        Ok(built.join("bin"))
    }

    fn go_build(self, bin: &Path) -> Result<()> {
        let targets = self.targets();
        for (number, target) in targets.iter().enumerate() {
            let what = format!("{} ({} of {})", target.name, number + 1, targets.len());
            eprintln!("building {what}");
            let mut command = Command::new("go");
            command
                .args(["build", "-v", "-trimpath", "-buildvcs=false"])
                .args(["-mod=readonly", "-tags", self.tags()])
                .args(["-ldflags", &self.link_flags(), "-o"])
                .arg(bin.join(target.name))
                .arg(&target.package)
                .current_dir(self.source())
                .env("CGO_ENABLED", if target.cgo { "1" } else { "0" })
                .env("GOFLAGS", "")
                .env_remove("GOWORK");
            watched(command, &what)?;
        }
        Ok(())
    }
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

/// Runs a Go build and says from time to time how far it is.
fn watched(mut command: Command, what: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("the cluster's programs are built with Go; ./test.sh installs it")?;
    let stderr = child.stderr.take().context("stderr is piped")?;
    let started = Instant::now();
    let mut said = started;
    let mut packages = 0;
    let mut complaints = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        // A package's path as it is compiled; all else is worth showing should the build fail.
        if line.contains(' ') || line.is_empty() {
            complaints.push(line);
        } else {
            packages += 1;
        }
        if said.elapsed() > PROGRESS {
            said = Instant::now();
            let elapsed = started.elapsed();
            eprintln!("  {what}: {packages} packages compiled in {elapsed:.0?}");
        }
    }
    let status = child.wait()?;
    let shown = &complaints[complaints.len().saturating_sub(40)..];
    ensure!(
        status.success(),
        "building {what} failed with {status}:\n{}",
        shown.join("\n")
    );
    Ok(())
}

fn compile_pause(source: &Path, bin: &Path) -> Result<()> {
    let mut command = Command::new("cc");
    command
        .args(["-static", "-Os", "-s", "-Wall", "-Wextra", "-o"])
        .arg(bin.join("pause"))
        .arg(source.join("pause.c"));
    super::command::text(&mut command)
        .map(drop)
        .context("pause is compiled with the C compiler and its static library")
}
