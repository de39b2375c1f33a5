//! What the cluster needs of the machine: programs and rights; and kernel settings that a kubelet changes, put back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::command::find;
use super::folders::{clusters, write};
use super::node::CNI_PLUGINS;

const PROGRAMS: [(&str, &str); 12] = [
    ("go", "golang-go"),
    ("cc", "build-essential"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("mount", "mount"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("runc", "runc"),
    ("busybox", "busybox-static"),
];
const PLUGINS: [&str; 4] = ["ptp", "host-local", "portmap", "loopback"];

/// Settings of the whole machine that a kubelet sets and that no namespace keeps apart.
const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Everything that is missing, at once.
pub(super) fn check() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a cluster needs root: namespaces, mounts and control groups are made"
    );
    let mut missing = Vec::new();
    for (program, package) in PROGRAMS {
        if find(program).is_none() {
            missing.push(format!("{program} (Debian: {package})"));
        }
    }
    for plugin in PLUGINS {
        if !Path::new(CNI_PLUGINS).join(plugin).exists() {
            missing.push(format!(
                "{CNI_PLUGINS}/{plugin} (Debian: containernetworking-plugins)"
            ));
        }
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems")?;
    if !filesystems.lines().any(|line| line.ends_with("\toverlay")) && !has_module("overlay") {
        missing.push("the file system overlay, of the kernel".to_owned());
    }
    ensure!(
        missing.is_empty(),
        "missing for a cluster; ./test.sh installs what is a package:\n  {}",
        missing.join("\n  ")
    );
    Ok(())
}

/// A module that is loaded when it is asked for.
fn has_module(name: &str) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = format!("/lib/modules/{}/modules.dep", release.trim());
    std::fs::read_to_string(list).is_ok_and(|text| text.contains(&format!("/{name}.ko")))
}

fn saved() -> Result<PathBuf> {
    Ok(clusters()?.join("machine.json"))
}

fn setting(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// Remembers the settings as they are before the first cluster; its caller holds the lock of all clusters.
pub(super) fn remember() -> Result<()> {
    let path = saved()?;
    if path.exists() {
        return Ok(());
    }
    let read = |name: &&str| {
        let value = std::fs::read_to_string(setting(name)).ok()?;
        Some(((*name).to_owned(), value.trim().to_owned()))
    };
    let values: BTreeMap<String, String> = SETTINGS.iter().filter_map(read).collect();
    write(&path, serde_json::to_vec_pretty(&values)?)
}

/// Puts them back after the last cluster.
pub(super) fn restore() -> Result<()> {
    let path = saved()?;
    let Ok(bytes) = std::fs::read(&path) else {
        return Ok(());
    };
    let values: BTreeMap<String, String> = serde_json::from_slice(&bytes)?;
    for (name, value) in values {
        let file = setting(&name);
        let now = std::fs::read_to_string(&file).unwrap_or_default();
        if now.trim() != value {
            std::fs::write(&file, value)?;
        }
    }
    Ok(std::fs::remove_file(&path)?)
}
