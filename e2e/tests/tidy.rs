//! The sources keep the rules of the house: sizes, who imports whom, nothing of the machine they were written on.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sluice_e2e::sluice::root;

/// Longer files are two files.
const LINES_MAX: usize = 500;

/// The files git knows or would know, without lock files.
fn files(suffixes: &[&str]) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("git ls-files")?;
    ensure!(output.status.success(), "git ls-files failed");
    let files: Vec<PathBuf> = String::from_utf8(output.stdout)?
        .lines()
        .filter(|name| suffixes.iter().any(|s| name.ends_with(s)))
        .map(|name| root().join(name))
        .filter(|path| path.is_file())
        .collect();
    Ok(files)
}

fn all_texts() -> Result<Vec<PathBuf>> {
    let mut all = files(&[""])?;
    ensure!(
        all.len() > 30,
        "only {} files found: not a git repository?",
        all.len()
    );
    all.retain(|path| std::fs::read_to_string(path).is_ok());
    Ok(all)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The lines of a Rust file before its inline tests.
fn code(text: &str) -> usize {
    text.lines()
        .take_while(|line| line.trim_end() != "#[cfg(test)]")
        .count()
}

fn fail_on(complaints: &[String]) -> Result<()> {
    ensure!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    Ok(())
}

#[test]
fn files_are_of_a_readable_length_and_say_what_they_are() -> Result<()> {
    let mut complaints = Vec::new();
    for path in files(&[".rs"])? {
        let text = std::fs::read_to_string(&path)?;
        let lines = code(&text);
        let is_test =
            path.components().any(|c| c.as_os_str() == "tests") || path.ends_with("tests.rs");
        if lines > LINES_MAX && !is_test {
            complaints.push(format!("{}: {lines} lines", shown(&path)));
        }
        let documented = text.starts_with("//!");
        if !documented && !is_test {
            complaints.push(format!("{}: no module documentation", shown(&path)));
        }
        if path.ends_with("mod.rs") {
            complaints.push(format!("{}: modules are foo.rs + foo/", shown(&path)));
        }
    }
    fail_on(&complaints)
}

/// Crates, and what their sources must not name.
const FORBIDDEN: [(&str, &[&str]); 6] = [
    (
        "proto",
        &[
            "sluice_crds",
            "sluice_manager",
            "sluice_dataplane",
            "sluice_operator",
        ],
    ),
    (
        "crds",
        &[
            "sluice_proto",
            "sluice_manager",
            "sluice_dataplane",
            "sluice_operator",
        ],
    ),
    (
        "manager",
        &[
            "sluice_dataplane",
            "sluice_operator",
            "kube::",
            "k8s_openapi::",
            "fred::",
        ],
    ),
    (
        "dataplane",
        &[
            "sluice_manager",
            "sluice_operator",
            "sluice_e2e",
            "kube::",
            "k8s_openapi::",
        ],
    ),
    ("operator", &["sluice_dataplane", "sluice_proto"]),
    (
        "e2e",
        &["sluice_dataplane", "sluice_manager", "sluice_operator"],
    ),
];

/// Whether the crate is named; metrics begin with the names of some.
fn uses(line: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let is_whole = |at: usize| name.ends_with(':') || ends(&line[at + name.len()..]);
    line.match_indices(name).any(|(at, _)| is_whole(at))
}

#[test]
fn crates_point_one_way() -> Result<()> {
    let mut complaints = Vec::new();
    for path in files(&[".rs"])? {
        // This file names them all.
        if path.ends_with("e2e/tests/tidy.rs") {
            continue;
        }
        let name = shown(&path);
        for (folder, words) in FORBIDDEN {
            if !name.starts_with(&format!("{folder}/")) {
                continue;
            }
            // Tests of the stores start real servers with it.
            let is_test = name.contains("/tests");
            // And the manager is served without Kubernetes in two places.
            let serves_manager = ["e2e/src/manager", "dataplane/src/standalone"]
                .iter()
                .any(|place| name.starts_with(place));
            let allowed = |word: &str| {
                is_test && word == "sluice_e2e" || serves_manager && word == "sluice_manager"
            };
            for (number, line) in std::fs::read_to_string(&path)?.lines().enumerate() {
                let comment = line.trim_start().starts_with("//");
                for word in words
                    .iter()
                    .filter(|word| !comment && !allowed(word) && uses(line, word))
                {
                    complaints.push(format!(
                        "{name}:{}: {folder} must not use {word}",
                        number + 1
                    ));
                }
            }
        }
    }
    fail_on(&complaints)
}

#[test]
fn the_environment_is_read_at_the_command_line_only() -> Result<()> {
    let mut complaints = Vec::new();
    for path in files(&[".rs"])? {
        let name = shown(&path);
        if !["proto/src", "crds/src", "dataplane/src", "operator/src"]
            .iter()
            .any(|p| name.starts_with(p))
            || name.ends_with("args.rs")
            || name.contains("/tests/")
            || name.ends_with("/tests.rs")
        {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        for (number, line) in text.lines().take(code(&text)).enumerate() {
            if line.contains("env::var") {
                complaints.push(format!("{name}:{}: reads the environment", number + 1));
            }
        }
    }
    fail_on(&complaints)
}

#[test]
fn nothing_names_the_machine_it_was_written_on() -> Result<()> {
    // Put together here, so that this file does not hold them.
    let forbidden = [
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/ho", "me/"].concat(),
        ["registry.npm", "js.org"].concat(),
        ["index.crates", ".io"].concat(),
        ["static.crates", ".io"].concat(),
        ["files.python", "hosted"].concat(),
        ["proxy.golang", ".org"].concat(),
    ];
    let mut complaints = Vec::new();
    for path in all_texts()? {
        for (number, line) in std::fs::read_to_string(&path)?.lines().enumerate() {
            for word in forbidden.iter().filter(|word| line.contains(word.as_str())) {
                complaints.push(format!("{}:{}: {word}", shown(&path), number + 1));
            }
        }
    }
    fail_on(&complaints)
}

#[test]
fn generated_files_and_secrets_are_not_checked_in() -> Result<()> {
    let mut complaints = Vec::new();
    for path in files(&[
        ".pyc", ".pem", ".key", ".crt", ".partial", ".orig", ".rej", ".log",
    ])? {
        complaints.push(shown(&path));
    }
    fail_on(&complaints)
}
