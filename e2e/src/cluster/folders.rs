//! Where things are: programs built once in the user's cache, and a folder per cluster with all of its state.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Nodes have their own of these, so a cluster cannot be kept in them.
const OF_NODES: [&str; 4] = ["/var/lib", "/var/log", "/run", "/sys"];

/// The cache of this project.
pub(super) fn cache() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let cache = cache.join("sluice");
    std::fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let cache = cache.canonicalize()?;
    for taken in OF_NODES {
        ensure!(
            !cache.starts_with(taken),
            "{} is below {taken}, of which every node has its own: set XDG_CACHE_HOME to another folder",
            cache.display()
        );
    }
    Ok(cache)
}

/// Where the clusters are.
pub(super) fn clusters() -> Result<PathBuf> {
    let folder = cache()?.join("clusters");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The folder of one cluster.
#[derive(Debug, Clone)]
pub(super) struct Home(PathBuf);

impl Home {
    pub(super) fn of(name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            (1..=30).contains(&name.len()) && name.chars().all(plain),
            "the name of a cluster is 1 to 30 of a-z, 0-9 and -: {name:?}"
        );
        Ok(Self(clusters()?.join(name)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// What a shell that uses the cluster has in its path.
    pub(super) fn bin(&self) -> PathBuf {
        self.0.join("bin")
    }

    pub(super) fn record(&self) -> PathBuf {
        self.0.join("cluster.json")
    }

    pub(super) fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    pub(super) fn control(&self) -> PathBuf {
        self.0.join("control")
    }

    pub(super) fn nodes(&self) -> PathBuf {
        self.0.join("nodes")
    }

    pub(super) fn node(&self, node: u8) -> PathBuf {
        self.nodes().join(super::addresses::node_name(node))
    }

    pub(super) fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// Whoever changes the cluster holds this.
    pub(super) fn lock(&self) -> Result<File> {
        locked(&self.0.with_extension("lock"))
    }
}

/// Waits for a lock, which ends with the file's closing or the process.
pub(super) fn locked(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    file.lock()?;
    Ok(file)
}

/// Writes a file so that nobody ever sees half of it.
pub(super) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let named = || path.display().to_string();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(named)?;
    }
    let partial = path.with_extension(format!("{:08x}.partial", fastrand::u32(..)));
    std::fs::write(&partial, bytes).with_context(named)?;
    std::fs::rename(&partial, path).with_context(named)
}
