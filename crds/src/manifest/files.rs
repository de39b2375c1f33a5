//! The files behind a load: what is read, in which order, and how much of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::Secret;
use crate::objects::Data;
use crate::problem::Problem;

/// Largest manifest: an object in etcd is at most 1.5 MiB, a file may hold several.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// Largest mounted key: Kubernetes allows a Secret of 1 MiB.
const KEY_BYTES_MAX: u64 = 1 << 20;
/// Files read from one directory tree; more than that is not a directory of manifests or secrets.
const FILES_MAX: usize = 4096;

/// Name and text of every manifest.
pub(super) fn manifests(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for path in paths {
        let files = if path.is_dir() {
            yaml_files(path)
        } else {
            Ok(vec![path.clone()])
        };
        match files {
            Err(error) => problems.push(unreadable(path, &error)),
            Ok(files) if files.is_empty() => {
                let object = format!("file {}", path.display());
                let instead = "put .yaml files into it, or name the files";
                problems.push(Problem::new(
                    object,
                    "",
                    "the directory holds no manifest",
                    instead,
                ));
            }
            Ok(files) => {
                for file in files {
                    match read(&file, MANIFEST_BYTES_MAX).and_then(utf8) {
                        Ok(text) => texts.push((file.display().to_string(), text)),
                        Err(error) => problems.push(unreadable(&file, &error)),
                    }
                }
            }
        }
    }
    texts
}

/// `DIR/<object name>/<key>`, as Kubernetes mounts Secrets and ConfigMaps.
pub(super) fn mounted(dir: &Path, problems: &mut Vec<Problem>) -> BTreeMap<String, Data> {
    let mut objects: BTreeMap<String, Data> = BTreeMap::new();
    let keys = match mounted_keys(dir) {
        Ok(keys) => keys,
        Err(error) => {
            problems.push(unreadable(dir, &error));
            return objects;
        }
    };
    for (object, key, path) in keys {
        match read(&path, KEY_BYTES_MAX) {
            Ok(bytes) => {
                objects
                    .entry(object)
                    .or_default()
                    .insert(key, Secret::new(bytes));
            }
            Err(error) => problems.push(unreadable(&path, &error)),
        }
    }
    objects
}

pub(super) fn fingerprint(paths: &[PathBuf], secrets_dir: Option<&Path>) -> u64 {
    let mut hash = DefaultHasher::new();
    for path in paths {
        let files = if path.is_dir() {
            yaml_files(path).unwrap_or_default()
        } else {
            vec![path.clone()]
        };
        for file in files {
            file.hash(&mut hash);
            read(&file, MANIFEST_BYTES_MAX).ok().hash(&mut hash);
        }
    }
    for (object, key, path) in secrets_dir
        .and_then(|dir| mounted_keys(dir).ok())
        .unwrap_or_default()
    {
        (object, key, read(&path, KEY_BYTES_MAX).ok()).hash(&mut hash);
    }
    hash.finish()
}

fn yaml_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = entries(dir)?;
    files.retain(|path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file()
    });
    Ok(files)
}

/// Object name, key and path of every mounted key.
fn mounted_keys(dir: &Path) -> io::Result<Vec<(String, String, PathBuf)>> {
    let mut keys = Vec::new();
    for object in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        let Some(name) = file_name(&object) else {
            continue;
        };
        for path in entries(&object)?.into_iter().filter(|path| path.is_file()) {
            let Some(key) = file_name(&path) else {
                continue;
            };
            if keys.len() >= FILES_MAX {
                return Err(io::Error::other(format!("more than {FILES_MAX} files")));
            }
            keys.push((name.clone(), key, path));
        }
    }
    Ok(keys)
}

/// Sorted, without hidden ones: Kubernetes keeps its versions of a mount in `..data` and the like.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if file_name(&path).is_some_and(|name| !name.starts_with('.')) {
            if paths.len() >= FILES_MAX {
                return Err(io::Error::other(format!("more than {FILES_MAX} files")));
            }
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
}

fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that fits from one that does not.
    File::open(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let object = format!("file {}", path.display());
    Problem::new(
        object,
        "",
        format!("cannot be read: {error}"),
        "name a file that exists and may be read",
    )
}
