//! The images of a cluster: its own small ones and those that are loaded, kept so that every node gets them, also later.
//!
//! There is no registry: what a pod names has been loaded, or its pull policy says that it fails.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::command::{find, text};
use super::components::Programs;
use super::folders::{Home, write};
use super::oci::{Image, names, sha256};
use super::process::Process;

pub(super) const PAUSE: &str = "localhost/sluice-e2e/pause:1";
/// Must be the one in `manifests/dns.yaml`.
const COREDNS: &str = "localhost/sluice-e2e/coredns:1";
/// A shell and its tools, for pods of tests; `fetch` among them, since its `wget` does not work without a C library.
pub const BUSYBOX: &str = "localhost/sluice-e2e/busybox:1";
/// Archives of one cluster; superseded ones are removed, so this is a lot.
const ARCHIVES_MAX: usize = 200;

/// Makes those of the cluster's own images that are not there.
pub(super) fn prepare(home: &Home, programs: &Programs) -> Result<()> {
    std::fs::create_dir_all(home.images())?;
    let mut present = Vec::new();
    for kept in archives(home)? {
        present.extend(names(&kept)?);
    }
    let missing = |name: &str| !present.iter().any(|other| other == name);
    if missing(PAUSE) {
        let mut pause = Image::new(PAUSE, &["/pause"]);
        pause.program("pause", &programs.program("pause"))?;
        keep(home, &pause.finish()?)?;
    }
    if missing(COREDNS) {
        let mut coredns = Image::new(COREDNS, &["/coredns"]);
        coredns.program("coredns", &programs.program("coredns"))?;
        keep(home, &coredns.finish()?)?;
    }
    if missing(BUSYBOX) {
        keep(home, &busybox(programs)?.finish()?)?;
    }
    Ok(())
}

fn busybox(programs: &Programs) -> Result<Image> {
    let program = find("busybox").context("busybox is missing; ./test.sh installs it")?;
    let start = std::fs::read(&program)?;
    let start = &start[..start.len().min(1024)];
    ensure!(
        !start.windows(8).any(|bytes| bytes == b"ld-linux"),
        "{} needs libraries: Debian's busybox-static does not",
        program.display()
    );
    let applets = super::command::run(program.to_str().context("its path is text")?, &["--list"])?;
    let mut image = Image::new(BUSYBOX, &["/bin/sh"]);
    for folder in ["bin", "etc", "proc", "sys", "dev", "var"] {
        image.folder(folder, 0o755)?;
    }
    image.folder("tmp", 0o1777)?;
    image.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    image.file("etc/group", 0o644, b"root:x:0:\n")?;
    image.program("bin/busybox", &program)?;
    image.program("bin/fetch", &programs.program("fetch"))?;
    for applet in applets.lines().filter(|name| *name != "busybox") {
        image.link(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(image)
}

/// Keeps an archive for nodes to come and returns where it is; `None` when the latest of its name is the same.
pub(super) fn load(home: &Home, archive: &Path) -> Result<Option<PathBuf>> {
    let loaded = names(archive)?;
    let bytes = std::fs::read(archive).with_context(|| archive.display().to_string())?;
    let hash = short(&bytes);
    let mut superseded = Vec::new();
    for kept in archives(home)? {
        let same = names(&kept)?;
        if !same.iter().any(|name| loaded.contains(name)) {
            continue;
        }
        if hash_of(&kept) == Some(hash.as_str()) {
            // A later one of the same name would have removed it.
            return Ok(None);
        }
        if same.iter().all(|name| loaded.contains(name)) {
            superseded.push(kept);
        }
    }
    let path = keep(home, &bytes)?;
    for old in superseded {
        std::fs::remove_file(&old)?;
    }
    Ok(Some(path))
}

/// Imports a kept archive into a running node.
pub(super) fn import(programs: &Programs, init: Process, node: &Path, kept: &Path) -> Result<()> {
    let root = Path::new("/proc").join(init.pid.to_string()).join("root");
    let socket = root.join("run/containerd/containerd.sock");
    let mut command = Command::new(programs.program("ctr"));
    command
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io"])
        .args(["images", "import"])
        .arg(kept);
    text(&mut command)?;
    let name = kept.file_name().context("an archive has a name")?;
    write(&node.join("lib/imported").join(name), "")
}

/// In the order in which they were loaded.
fn archives(home: &Home) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(home.images())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    all.retain(|path| path.extension().is_some_and(|e| e == "tar"));
    all.sort();
    Ok(all)
}

/// The number in its name makes it the last; nodes import in the order of names.
fn keep(home: &Home, bytes: &[u8]) -> Result<PathBuf> {
    let all = archives(home)?;
    ensure!(all.len() < ARCHIVES_MAX, "{ARCHIVES_MAX} images are loaded");
    let number = |path: &PathBuf| -> Option<u32> {
        path.file_name()?.to_str()?.split('-').next()?.parse().ok()
    };
    let last = all.iter().filter_map(number).max().unwrap_or(0);
    let path = home
        .images()
        .join(format!("{:06}-{}.tar", last + 1, short(bytes)));
    write(&path, bytes)?;
    Ok(path)
}

fn short(bytes: &[u8]) -> String {
    sha256(bytes)["sha256:".len()..][..16].to_owned()
}

fn hash_of(kept: &Path) -> Option<&str> {
    kept.file_stem()?.to_str()?.split('-').nth(1)
}
