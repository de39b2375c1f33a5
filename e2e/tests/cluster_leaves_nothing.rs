//! `cluster down` leaves the machine as it was before `up`, also after runs that died.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::cluster::{BUSYBOX, Cluster, End};
use tokio::sync::{Mutex, MutexGuard};

/// Beside the cluster that the other tests share.
const NAME: &str = "leftovers";

/// What a cluster makes on a machine.
#[derive(Debug)]
struct Machine {
    /// Of programs that clusters run.
    processes: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    routes: BTreeSet<String>,
    rules: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    settings: BTreeSet<String>,
    files: BTreeSet<String>,
}

/// One test at a time has the cluster of this name; whatever becomes of the test, it is removed.
struct Name(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Name {
    async fn take() -> Result<Self> {
        static TAKEN: Mutex<()> = Mutex::const_new(());
        let guard = TAKEN.lock().await;
        // What an earlier run may have left is not what is asked here.
        Cluster::down(NAME)?;
        Ok(Self(guard))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = Cluster::down(NAME) {
            eprintln!("{error:#}");
        }
    }
}

impl Machine {
    /// Nothing is there that was not there before, and the settings are what they were.
    fn is_clean(&self, before: &Self) -> Result<()> {
        let new = |now: &BTreeSet<String>, then: &BTreeSet<String>| -> Vec<String> {
            now.difference(then).cloned().collect()
        };
        let left: Vec<(&str, Vec<String>)> = vec![
            ("processes", new(&self.processes, &before.processes)),
            ("namespaces", new(&self.namespaces, &before.namespaces)),
            ("mounts", new(&self.mounts, &before.mounts)),
            ("links", new(&self.links, &before.links)),
            ("routes", new(&self.routes, &before.routes)),
            ("rules", new(&self.rules, &before.rules)),
            ("control groups", new(&self.cgroups, &before.cgroups)),
            ("settings", new(&self.settings, &before.settings)),
            ("files", new(&self.files, &before.files)),
        ];
        let left: Vec<_> = left.iter().filter(|(_, new)| !new.is_empty()).collect();
        ensure!(left.is_empty(), "left: {left:#?}");
        Ok(())
    }
}

/// Other programs come and go meanwhile; these are what a cluster consists of.
const PROGRAMS: [&str; 11] = [
    "etcd",
    "kube-apiserver",
    "kube-controller",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "containerd",
    "containerd-shim",
    "local-volumes",
    "pause",
    "coredns",
];

/// Without what belongs to clusters beside the one that is called `own` on this machine, if one has been started: they
/// come and go, and their pods do.
fn machine(own: Option<&str>) -> Result<Machine> {
    let foreign = |name: &str| own.is_some_and(|own| is_cluster(name) && name != own);
    let mut processes = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else {
            continue;
        };
        let pid = entry.file_name().to_string_lossy().into_owned();
        if lineage(&pid)
            .iter()
            .any(|pid| groups_of(pid).iter().any(|group| foreign(group)))
        {
            continue;
        }
        // The kernel cuts names after 15 characters.
        let own = PROGRAMS
            .iter()
            .any(|program| name.trim() == &program[..program.len().min(15)]);
        let init = std::fs::read_to_string(path.join("cmdline"))
            .is_ok_and(|line| line.contains(&format!("sluice/clusters/{NAME}/")));
        if own || init {
            processes.insert(format!("{pid} {}", name.trim()));
            for kind in ["net", "mnt", "pid", "uts", "ipc"] {
                let link = std::fs::read_link(path.join("ns").join(kind));
                namespaces.extend(link.ok().map(|target| target.display().to_string()));
            }
        }
    }
    Ok(Machine {
        processes,
        namespaces,
        mounts: lines(&std::fs::read_to_string("/proc/self/mounts")?),
        links: without(foreign, printed("ip", &["-brief", "link"], first_word)?),
        routes: without(foreign, printed("ip", &["-4", "route"], ToOwned::to_owned)?),
        rules: printed("nft", &["list", "tables"], ToOwned::to_owned)?,
        cgroups: without(foreign, groups()),
        settings: settings(),
        files: files()?,
    })
}

/// A process and all above it: a container's own control group does not say in every harness whose it is.
fn lineage(pid: &str) -> Vec<String> {
    let mut all = vec![pid.to_owned()];
    while let Some(last) = all.last() {
        let status = std::fs::read_to_string(format!("/proc/{last}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        match parent.map(str::trim) {
            Some(parent) if parent != "0" && !all.iter().any(|pid| pid == parent) => {
                all.push(parent.to_owned());
            }
            _ => break,
        }
    }
    all
}

/// The parts of the paths of a process's control groups.
fn groups_of(pid: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.split(['/', '\n']).map(ToOwned::to_owned).collect()
}

/// What clusters' links and control groups are called.
fn is_cluster(name: &str) -> bool {
    let number = name.strip_prefix("sluice");
    number.is_some_and(|number| number.parse::<u8>().is_ok())
}

fn without(foreign: impl Fn(&str) -> bool, lines: BTreeSet<String>) -> BTreeSet<String> {
    let kept = lines.into_iter();
    kept.filter(|line| !line.split_whitespace().any(&foreign))
        .collect()
}

/// The name of a cluster's link and control groups, from the address of its first node.
fn own(cluster: &Cluster) -> Result<String> {
    Ok(format!("sluice{}", cluster.node_address(1)?.octets()[2]))
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(ToOwned::to_owned).collect()
}

fn first_word(line: &str) -> String {
    line.split([' ', '@']).next().unwrap_or_default().to_owned()
}

fn printed(
    program: &str,
    arguments: &[&str],
    of: impl Fn(&str) -> String,
) -> Result<BTreeSet<String>> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{program} {arguments:?} failed");
    Ok(String::from_utf8(output.stdout)?.lines().map(of).collect())
}

/// The control groups of clusters.
fn groups() -> BTreeSet<String> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    let folders = hierarchies
        .map(|entry| entry.path())
        .chain([root.to_owned()]);
    folders
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        // The second is where a container runtime puts what nobody told it to put elsewhere.
        .filter(|name| name.starts_with("sluice") || name == "k8s.io")
        .collect()
}

fn settings() -> BTreeSet<String> {
    let names = [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
        "kernel/keys/root_maxkeys",
        "kernel/keys/root_maxbytes",
        "net/ipv4/ip_forward",
        "net/netfilter/nf_conntrack_max",
        "kernel/hostname",
    ];
    let read = |name: &str| {
        let value = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        Some(format!("{name}={}", value.trim()))
    };
    names.into_iter().filter_map(read).collect()
}

/// What is in the names of files of Kubernetes and its runtime.
const NAMES: [&str; 8] = [
    "cni",
    "containerd",
    "etcd",
    "kube",
    "netns",
    "runc",
    "sluice",
    "volume",
];

/// Where Kubernetes and containerd put things when nobody tells them otherwise, and where the cluster is kept.
fn files() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for folder in [
        "/var/lib",
        "/var/log",
        "/run",
        "/run/netns",
        "/etc",
        "/opt",
        "/usr/libexec",
    ] {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path().display().to_string();
            // Others may work on this machine.
            if NAMES.iter().any(|name| path.contains(name)) {
                found.insert(path);
            }
        }
    }
    let home = Cluster::home(NAME)?;
    if home.exists() {
        found.insert(home.display().to_string());
    }
    Ok(found)
}

/// A cluster with pods, a volume, a cut link, a dead node.
async fn disorder() -> Result<Cluster> {
    let cluster = Cluster::start(NAME, 2).await?;
    let pods = format!(
        r"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: keeper}}
spec:
  containers:
    - name: main
      image: {BUSYBOX}
      imagePullPolicy: Never
      command: [sleep, '100000']
      volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
"
    );
    let namespace = cluster.namespace("disorder").await?;
    namespace.apply(&pods).await?;
    let ready = [
        "wait",
        "--for=condition=Ready",
        "pod/keeper",
        "--timeout=90s",
    ];
    let ready = namespace.kubectl(&ready).await;
    namespace.explain(ready)?;
    cluster.cut_link(End::Node(1), End::Node(2)).await?;
    Ok(cluster)
}

#[tokio::test]
async fn down_leaves_the_machine_as_it_was() -> Result<()> {
    let _name = Name::take().await?;
    let before = machine(None)?;
    let cluster = disorder().await?;
    let own = own(&cluster)?;
    let during = machine(Some(&own))?;
    ensure!(during.is_clean(&before).is_err(), "nothing was made");
    ensure!(
        during.processes.difference(&before.processes).count() > 10,
        "{during:#?}"
    );
    ensure!(during.cgroups != before.cgroups && during.links != before.links);
    cluster.kill_node(2).await?;
    Cluster::down(NAME)?;
    machine(Some(&own))?.is_clean(&before)
}

#[tokio::test]
async fn a_run_that_died_is_cleared_away_by_the_next() -> Result<()> {
    let _name = Name::take().await?;
    let before = machine(None)?;
    let cluster = Cluster::start(NAME, 1).await?;
    let own = own(&cluster)?;
    // The record of the control plane's process is lost: nobody can tell any more what ran.
    let status = cluster.status()?;
    let init = status.nodes[0].init_pid.context("the node runs")?;
    std::fs::remove_file(Cluster::home(NAME)?.join("control/process.json"))?;
    let again = Cluster::start(NAME, 1).await?;
    ensure!(
        !Path::new(&format!("/proc/{init}")).exists(),
        "the old node still runs"
    );
    again.wait_node(1, "True", Duration::from_secs(60)).await?;
    Cluster::down(NAME)?;
    machine(Some(&own))?.is_clean(&before)
}
