//! `kubectl` as the cluster's administrator.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::command::{text, text_with_input};
use super::components::Programs;
use super::folders::Home;

#[derive(Debug, Clone)]
pub(super) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// What it learns of the API, kept with the cluster.
    cache: PathBuf,
}

impl Kubectl {
    pub(super) fn new(programs: &Programs, home: &Home) -> Self {
        Self {
            program: programs.program("kubectl"),
            kubeconfig: home.kubeconfig(),
            cache: home.path().join("kubectl"),
        }
    }

    pub(super) fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments);
        command
    }

    pub(super) fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<String> {
        text(&mut self.command(arguments))
    }

    /// Applies manifests, as their owner against earlier hands.
    pub(super) fn apply(&self, manifests: &str) -> Result<String> {
        self.apply_in(None, manifests)
    }

    /// Objects that name no namespace go to this one.
    pub(super) fn apply_in(&self, namespace: Option<&str>, manifests: &str) -> Result<String> {
        let mut arguments = vec![
            "apply",
            "--server-side",
            "--force-conflicts",
            "--filename=-",
        ];
        if let Some(namespace) = namespace {
            arguments.extend(["--namespace", namespace]);
        }
        text_with_input(&mut self.command(&arguments), manifests)
    }
}
