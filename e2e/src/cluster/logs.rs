//! What tells why a test failed, in one folder: objects, events, the logs of pods, of daemons and of the API server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Inner;
use crate::sluice::target;

/// Of a log only the end is kept: a run of hours would fill the disk.
const LOG_BYTES_MAX: u64 = 8 << 20;

pub(super) fn collect(inner: &Inner, what: &str) -> Result<PathBuf> {
    let folder = target().join("cluster-logs").join(&inner.name).join(what);
    // Of an earlier run.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (file, arguments) in [
        (
            "objects.txt",
            "get all,pvc,pv,nodes,endpointslices -A -o wide",
        ),
        (
            "events.txt",
            "get events -A --sort-by=.metadata.creationTimestamp",
        ),
        ("nodes.txt", "describe nodes"),
        ("pods.txt", "describe pods -A"),
    ] {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        // Without an API server the daemons' logs say why.
        let text = inner
            .kubectl
            .run(&words)
            .unwrap_or_else(|e| format!("{e:#}"));
        fs::write(folder.join(file), text)?;
    }
    pods(inner, &folder.join("pods"))?;
    copy_logs(&inner.home.control(), &folder.join("control"))?;
    for entry in fs::read_dir(inner.home.nodes()).into_iter().flatten() {
        let entry = entry?;
        copy_logs(&entry.path(), &folder.join(entry.file_name()))?;
    }
    Ok(folder)
}

/// What the containers of all pods printed, and those before them that ended.
fn pods(inner: &Inner, folder: &Path) -> Result<()> {
    let Ok(list) = inner.kubectl.run(&["get", "pods", "-A", "--output=json"]) else {
        return Ok(());
    };
    let list: Value = serde_json::from_str(&list)?;
    for pod in list["items"].as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (
            text(&pod["metadata"]["namespace"]),
            text(&pod["metadata"]["name"]),
        );
        let folder = folder.join(&namespace);
        fs::create_dir_all(&folder)?;
        for (suffix, previous) in [("log", "--previous=false"), ("previous.log", "--previous")] {
            let words = [
                "--namespace",
                &namespace,
                "logs",
                &name,
                "--all-containers",
                "--tail=20000",
                previous,
            ];
            if let Ok(text) = inner.kubectl.run(&words) {
                fs::write(folder.join(format!("{name}.{suffix}")), text)?;
            }
        }
    }
    Ok(())
}

fn copy_logs(machine: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(machine.join("logs")).into_iter().flatten() {
        let entry = entry?;
        copy_end(&entry.path(), &to.join(entry.file_name()))?;
    }
    for audit in ["audit.log", "audit-2.log"] {
        let from = machine.join(audit);
        if from.exists() {
            copy_end(&from, &to.join(audit))?;
        }
    }
    Ok(())
}

fn copy_end(from: &Path, to: &Path) -> Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = fs::File::open(from)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    // A daemon may go on writing.
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(fs::write(to, bytes)?)
}
