//! Images as files: writes a small one as an OCI archive, and reads the names of those in an archive.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Archive, Builder, EntryType, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const NAME: &str = "org.opencontainers.image.ref.name";
/// A list of names is a few hundred bytes; this is a list of names no longer.
const INDEX_BYTES_MAX: u64 = 1 << 20;

/// An image of one layer. The same content makes the same bytes.
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    layer: Builder<Vec<u8>>,
}

impl Image {
    /// With this program and arguments as what it runs; its name ends in a tag.
    #[must_use]
    pub fn new(name: &str, entrypoint: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            layer: Builder::new(Vec::new()),
        }
    }

    /// Paths have no slash at their start.
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = header(EntryType::Directory, mode, 0);
        self.layer
            .append_data(&mut header, format!("{path}/"), std::io::empty())?;
        Ok(())
    }

    /// A program of this machine, which needs no libraries.
    pub fn program(&mut self, path: &str, source: &Path) -> Result<()> {
        let bytes = std::fs::read(source).with_context(|| source.display().to_string())?;
        self.file(path, 0o755, &bytes)
    }

    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
        Ok(self.layer.append_data(&mut header, path, bytes)?)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        Ok(self.layer.append_link(&mut header, path, to)?)
    }

    /// The archive.
    pub fn finish(self) -> Result<Vec<u8>> {
        let layer = self.layer.into_inner()?;
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &layer)],
        }))?;
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["annotations"] = json!({NAME: self.name, "io.containerd.image.name": self.name});
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;
        let mut archive = Builder::new(Vec::new());
        let mut add = |path: &str, bytes: &[u8]| {
            let mut header = header(EntryType::Regular, 0o644, bytes.len() as u64);
            archive.append_data(&mut header, path, bytes)
        };
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add("index.json", &index)?;
        for blob in [&manifest, &config, &layer] {
            let name = sha256(blob).replace(':', "/");
            add(&format!("blobs/{name}"), blob)?;
        }
        Ok(archive.into_inner()?)
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The names of the images in an archive, as `docker save` or an OCI tool wrote it.
pub(super) fn names(archive: &Path) -> Result<Vec<String>> {
    let file = File::open(archive).with_context(|| archive.display().to_string())?;
    let mut names = Vec::new();
    for entry in Archive::new(file).entries_with_seek()? {
        let mut entry = entry.with_context(|| format!("{} is no archive", archive.display()))?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let is_index = matches!(
            path.trim_start_matches("./"),
            "index.json" | "manifest.json"
        );
        if !is_index {
            continue;
        }
        ensure!(entry.size() <= INDEX_BYTES_MAX, "{path} is too long");
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        names.extend(names_in(&serde_json::from_str(&text)?));
    }
    names.sort();
    names.dedup();
    ensure!(
        !names.is_empty(),
        "{} names no image: write it with a name like oci-archive:FILE:localhost/NAME:TAG",
        archive.display()
    );
    Ok(names)
}

/// Of an OCI index, or of a list by Docker. A bare tag is no name by which a pod could ask for it.
fn names_in(index: &Value) -> Vec<String> {
    let oci = index["manifests"].as_array().into_iter().flatten();
    let oci = oci.filter_map(|entry| {
        let annotations = &entry["annotations"];
        let name = annotations["io.containerd.image.name"].as_str();
        name.or_else(|| annotations[NAME].as_str())
    });
    let docker = index.as_array().into_iter().flatten();
    let docker = docker
        .flat_map(|entry| entry["RepoTags"].as_array().into_iter().flatten())
        .filter_map(Value::as_str);
    oci.chain(docker)
        .filter(|name| name.contains(['/', ':']))
        .map(ToOwned::to_owned)
        .collect()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// As images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sluice::Scratch;

    #[test]
    fn an_archive_names_its_image() -> Result<()> {
        let mut image = Image::new("localhost/a/b:1", &["/b"]);
        image.folder("tmp", 0o1777)?;
        image.file("b", 0o755, b"#!")?;
        image.link("bin/c", "../b")?;
        let scratch = Scratch::new()?;
        let path = scratch.path().join("b.tar");
        std::fs::write(&path, image.finish()?)?;
        assert_eq!(names(&path)?, ["localhost/a/b:1"]);
        Ok(())
    }

    #[test]
    fn archives_of_other_tools_are_read() {
        let docker = json!([{"Config": "x", "RepoTags": ["localhost/a:1", "localhost/a:2"]}]);
        assert_eq!(names_in(&docker), ["localhost/a:1", "localhost/a:2"]);
        let tag = json!({"manifests": [{"annotations": {NAME: "latest"}}, {}]});
        assert!(names_in(&tag).is_empty());
    }
}
