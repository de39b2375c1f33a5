//! The configuration in force, kept equal to the manifests or the configuration file.
//!
//! [`ConfigWatch`] owns the one `watch` channel that all modules read the [`GatewayConfig`] from. It looks at the files
//! every second; a change that resolves replaces the configuration whole, one that does not is refused with all its
//! problems and the old one stays. It never changes a socket: what needs a restart it only says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sluice_crds::config::{GatewayConfig, Listener};
use sluice_crds::{config_file, manifest, resolve};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

/// Where a configuration comes from. Both methods may block on files.
pub trait Source: Send + Sync + 'static {
    /// Differs when `load` might answer differently.
    fn fingerprint(&self) -> u64;

    /// The configuration, or everything that is wrong.
    fn load(&self) -> Result<GatewayConfig, Vec<String>>;
}

/// YAML files, and secrets as mounted files.
#[derive(Debug, Clone)]
pub struct Manifests {
    pub paths: Vec<PathBuf>,
    pub secrets_dir: Option<PathBuf>,
}

impl Source for Manifests {
    fn fingerprint(&self) -> u64 {
        manifest::fingerprint(&self.paths, self.secrets_dir.as_deref())
    }

    fn load(&self) -> Result<GatewayConfig, Vec<String>> {
        let (objects, problems) = manifest::load(&self.paths, self.secrets_dir.as_deref());
        let resolution = resolve::resolve(&objects);
        let problems: Vec<String> = problems
            .iter()
            .chain(&resolution.problems)
            .map(ToString::to_string)
            .collect();
        match resolution.config {
            Some(config) if problems.is_empty() => Ok(config),
            None if problems.is_empty() => Err(vec!["the manifests hold no Gateway".to_owned()]),
            Some(_) | None => Err(problems),
        }
    }
}

/// A resolved configuration, and its secrets as files.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    pub path: PathBuf,
    pub secrets_dir: PathBuf,
}

impl ConfigFile {
    /// Without a directory of secrets, the one that is written beside a file.
    pub fn new(path: PathBuf, secrets_dir: Option<PathBuf>) -> Self {
        let beside = || {
            let dir = path.parent().unwrap_or(Path::new(""));
            dir.join(config_file::SECRETS_DIR)
        };
        let secrets_dir = secrets_dir.unwrap_or_else(beside);
        Self { path, secrets_dir }
    }
}

impl Source for ConfigFile {
    fn fingerprint(&self) -> u64 {
        config_file::fingerprint(&self.path, &self.secrets_dir)
    }

    fn load(&self) -> Result<GatewayConfig, Vec<String>> {
        config_file::read(&self.path, &self.secrets_dir)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }
}

#[derive(Debug, Error)]
#[error("{} in the configuration:\n  {}", count(.problems.len()), .problems.join("\n  "))]
pub struct ConfigError {
    pub problems: Vec<String>,
}

fn count(problems: usize) -> String {
    if problems == 1 {
        "1 problem".to_owned()
    } else {
        format!("{problems} problems")
    }
}

/// Publishes the configuration in force.
pub struct ConfigWatch {
    source: Arc<dyn Source>,
    /// Of the files as last judged, well or ill.
    fingerprint: u64,
    sender: watch::Sender<Arc<GatewayConfig>>,
    metrics: Metrics,
}

impl ConfigWatch {
    /// Loads for the first time, when there is no older configuration to fall back to.
    pub fn start(source: impl Source, registry: &mut Registry) -> Result<Self, ConfigError> {
        // Taken first: a change during the load shows as a change at the next look.
        let fingerprint = source.fingerprint();
        let config = source.load().map_err(|problems| ConfigError { problems })?;
        let metrics = Metrics::register(registry);
        metrics.generation.set(1);
        Ok(Self {
            source: Arc::new(source),
            fingerprint,
            sender: watch::Sender::new(Arc::new(config)),
            metrics,
        })
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<GatewayConfig>> {
        self.sender.subscribe()
    }

    /// Follows the files until it is dropped.
    pub async fn run(mut self, poll_interval: Duration) {
        let mut ticks = tokio::time::interval(poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let source = Arc::clone(&self.source);
        let seen = self.fingerprint;
        let looked = tokio::task::spawn_blocking(move || {
            let before = source.fingerprint();
            (before != seen).then(|| (before, source.load(), source.fingerprint()))
        });
        match looked.await {
            Ok(None) => {}
            // Half-written files look wrong; they are judged when they hold still.
            Ok(Some((before, Err(_), after))) if before != after => {}
            Ok(Some((before, loaded, _))) => {
                self.fingerprint = before;
                self.judge(loaded);
            }
            Err(failure) => error!(%failure, "reading the configuration failed"),
        }
    }

    fn judge(&self, loaded: Result<GatewayConfig, Vec<String>>) {
        let config = match loaded {
            Ok(config) => config,
            Err(problems) => {
                self.metrics.refused.inc();
                for problem in &problems {
                    error!(%problem, "configuration problem");
                }
                error!(
                    problems = problems.len(),
                    "new configuration refused, the old one stays in force"
                );
                return;
            }
        };
        self.metrics.applied.inc();
        let old = Arc::clone(&self.sender.borrow());
        if *old == config {
            info!("files changed, their meaning did not");
            return;
        }
        for change in needs_restart(&old, &config) {
            warn!(%change, "takes effect at the next start only");
        }
        self.sender.send_replace(Arc::new(config));
        let generation = self.metrics.generation.inc() + 1;
        info!(generation, "new configuration in force");
    }
}

/// Changes that the running process does not follow.
pub fn needs_restart(old: &GatewayConfig, new: &GatewayConfig) -> Vec<String> {
    let mut changes = Vec::new();
    if (&old.namespace, &old.name) != (&new.namespace, &new.name) {
        changes.push(format!(
            "gateway {}/{} became {}/{}",
            old.namespace, old.name, new.namespace, new.name
        ));
    }
    match (&old.ingest, &new.ingest) {
        (None, Some(_)) => changes.push("ingest added".to_owned()),
        (Some(_), None) => {
            changes.push("ingest removed: its queue is closed".to_owned());
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    match (&old.redis, &new.redis) {
        (None, Some(_)) => changes.push("redis added".to_owned()),
        (Some(_), None) => changes.push("redis removed".to_owned()),
        (Some(old), Some(new)) if old != new => changes.push("redis changed".to_owned()),
        (None | Some(_), None | Some(_)) => {}
    }
    let find = |listeners: &[Listener], name: &str| {
        listeners.iter().position(|listener| listener.name == name)
    };
    for listener in &old.listeners {
        let Listener { name, port, tls } = listener;
        let Some(new) = find(&new.listeners, name).map(|index| &new.listeners[index]) else {
            changes.push(format!("listener {name} removed"));
            continue;
        };
        if *port != new.port {
            changes.push(format!(
                "listener {name} moved from port {port} to {}",
                new.port
            ));
        }
        if tls.is_some() != new.tls.is_some() {
            let protocol = if new.tls.is_some() { "HTTPS" } else { "HTTP" };
            changes.push(format!("listener {name} became {protocol}"));
        }
    }
    for listener in &new.listeners {
        if find(&old.listeners, &listener.name).is_none() {
            changes.push(format!(
                "listener {} added on port {}",
                listener.name, listener.port
            ));
        }
    }
    changes
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

struct Metrics {
    generation: Gauge,
    applied: Counter,
    refused: Counter,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let reloads = Family::<ResultLabel, Counter>::default();
        let generation = Gauge::default();
        registry.register(
            "sluice_config_reloads",
            "Changed files of the configuration, by what became of them",
            reloads.clone(),
        );
        registry.register(
            "sluice_config_generation",
            "Configurations put in force since the start",
            generation.clone(),
        );
        let of = |result| reloads.get_or_create_owned(&ResultLabel { result });
        Self {
            generation,
            applied: of("applied"),
            refused: of("refused"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
