//! Reads objects from YAML files.
//!
//! A file holds any number of documents: Gateways, Applications, Secrets, ConfigMaps, and Lists of them. Files stand in
//! for the API server, so what it would refuse (unknown kinds, misspelt fields, bad base64) is a problem here too. The
//! fields of a spec are judged by `resolve`.
//!
//! `parse` is pure. `load` and `fingerprint` read files, never more than the limits in `files`, and keep nothing.

mod document;
mod files;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::objects::Objects;
use crate::problem::Problem;

/// Nesting of YAML: a Gateway in a List needs about ten levels, and the conversion below is recursive.
const DEPTH_MAX: usize = 64;

/// Reads manifests and, for references that none of them satisfies, `secrets_dir/<object name>/<key>`.
///
/// A path may name a directory: then its `.yaml`, `.yml` and `.json` files are read.
pub fn load(paths: &[PathBuf], secrets_dir: Option<&Path>) -> (Objects, Vec<Problem>) {
    let mut problems = Vec::new();
    let texts = files::manifests(paths, &mut problems);
    let (mut objects, found) = parse(&texts);
    problems.extend(found);
    if let Some(dir) = secrets_dir {
        objects.mounted = files::mounted(dir, &mut problems);
    }
    objects.incomplete = !problems.is_empty();
    (objects, problems)
}

/// Changes when anything changes that `load` of the same arguments would read.
pub fn fingerprint(paths: &[PathBuf], secrets_dir: Option<&Path>) -> u64 {
    files::fingerprint(paths, secrets_dir)
}

/// Reads manifests given as (file name, text).
pub fn parse(texts: &[(String, String)]) -> (Objects, Vec<Problem>) {
    let mut objects = Objects::default();
    let mut problems = Vec::new();
    for (name, text) in texts {
        match documents(text) {
            Ok(documents) => {
                for document in documents {
                    document::take(name, document, &mut objects, &mut problems);
                }
            }
            Err(what) => {
                problems.push(Problem::new(
                    format!("file {name}"),
                    "",
                    what,
                    "correct the YAML",
                ));
            }
        }
    }
    objects.incomplete = !problems.is_empty();
    (objects, problems)
}

fn documents(text: &str) -> Result<Vec<Value>, String> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    // YAML 1.2: only true and false are booleans.
    options.strict_booleans = true;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = DEPTH_MAX;
    }
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let message = error.without_snippet().to_string();
        let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("not YAML: {}", line.chars().take(300).collect::<String>())
    })
}
