//! Manifests in `tests/resolve` against what they resolve to; `UPDATE_GOLDEN=1` rewrites. And the examples.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panic")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use sluice_crds::{config, manifest, resolve};

fn yaml_files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    assert!(!files.is_empty(), "no manifests in {}", dir.display());
    files
}

#[test]
fn manifests_resolve_as_recorded() {
    let mut stale = Vec::new();
    for file in yaml_files("tests/resolve") {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let (objects, mut problems) =
            manifest::parse(&[(name.clone(), fs::read_to_string(&file).unwrap())]);
        let resolution = resolve::resolve(&objects);
        problems.extend(resolution.problems);
        let mut out = String::new();
        for problem in &problems {
            writeln!(out, "{problem}").unwrap();
        }
        if let Some(config) = resolution.config {
            writeln!(out, "{config:#?}").unwrap();
        }
        assert!(
            !out.contains("hidden"),
            "{name} shows what is secret:\n{out}"
        );
        let golden = file.with_extension("out");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &out).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != out {
            stale.push(format!("{name} resolves to:\n{out}"));
        }
    }
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

#[test]
fn examples_and_profiles_resolve() {
    for file in [yaml_files("../examples"), yaml_files("../e2e/profiles")].concat() {
        let (objects, mut problems) = manifest::load(std::slice::from_ref(&file), None);
        let resolution = resolve::resolve(&objects);
        problems.extend(resolution.problems);
        assert!(
            problems.is_empty() && resolution.config.is_some(),
            "{}: {problems:#?}",
            file.display()
        );
    }
}

#[test]
fn the_example_for_kubernetes_resolves_where_there_is_an_operator() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kubernetes/gateway.yaml");
    let (mut objects, mut problems) = manifest::load(std::slice::from_ref(&file), None);
    // How the Redis that it runs is reached.
    let redis = config::Redis {
        seeds: Vec::new(),
        tls: None,
        username: None,
        password: None,
    };
    let key = ("default".to_owned(), "demo".to_owned());
    objects.managed_redis.insert(key, redis);
    let resolution = resolve::resolve(&objects);
    problems.extend(resolution.problems);
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(
        resolution
            .config
            .is_some_and(|config| config.redis.is_some())
    );
}
