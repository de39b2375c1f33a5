//! Composition root: makes every part, in order, and returns what it bound.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use sluice_crds::config::GatewayConfig;

use crate::admin::{Admin, AdminState, Readiness};
use crate::args::StandaloneArgs;
use crate::config::{ConfigWatch, Manifests};
use crate::drain::{Drain, Outcome};
use crate::limits::CONFIG_POLL_INTERVAL;
use crate::pressure::Pressure;
use crate::resources::{self, MemoryBudget};
use crate::telemetry;

/// A process that serves.
pub struct Running {
    /// Name and address of each listener.
    pub addresses: Vec<(String, SocketAddr)>,
    pub admin: SocketAddr,
    pub drain: Drain,
    config: watch::Receiver<Arc<GatewayConfig>>,
    tasks: JoinSet<()>,
}

pub async fn start(args: StandaloneArgs) -> anyhow::Result<Running> {
    let mut registry = Registry::default();
    resources::register(&mut registry);
    if let Some(dir) = &args.data_dir {
        resources::prepare_data_dir(dir)?;
    }
    let manifests = Manifests {
        paths: args.manifests,
        secrets_dir: args.secrets_dir,
    };
    let config_watch = ConfigWatch::start(manifests, &mut registry)?;
    let config = config_watch.subscribe();
    let workers = args.workers.unwrap_or_else(resources::cores).get();
    let pressure = Pressure::new(
        workers,
        MemoryBudget::detect(args.memory_limit_bytes),
        &mut registry,
    );
    let (readiness, drain) = (Readiness::default(), Drain::new());
    let state = AdminState {
        readiness,
        drain: drain.clone(),
        registry: Arc::new(registry),
        config: config.clone(),
        log: telemetry::control(),
    };
    let admin = Admin::bind(args.admin, state)
        .await
        .with_context(|| format!("admin port {}", args.admin))?;
    let admin_address = admin.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(admin.serve());
    tasks.spawn(pressure.run());
    tasks.spawn(config_watch.run(CONFIG_POLL_INTERVAL));
    Ok(Running {
        addresses: Vec::new(),
        admin: admin_address,
        drain,
        config,
        tasks,
    })
}

impl Running {
    /// Waits for the end: a finished drain, or a second signal.
    pub async fn wait(self) -> anyhow::Result<ExitCode> {
        let Self {
            drain,
            config,
            tasks,
            ..
        } = self;
        let signals = drain
            .signals(|| config.borrow().drain.timeout)
            .context("signal handlers")?;
        let code = tokio::select! {
            () = signals => ExitCode::FAILURE,
            outcome = drain.complete() => match outcome {
                Outcome::Finished => ExitCode::SUCCESS,
                Outcome::DeadlinePassed { remaining } => {
                    tracing::warn!(remaining, "drain deadline passed");
                    ExitCode::SUCCESS
                }
            },
        };
        drop(tasks);
        Ok(code)
    }
}
