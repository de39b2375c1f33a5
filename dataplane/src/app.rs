//! Composition root: makes every part, in order, and returns what it bound.

mod ingest;
mod queue;
mod stores;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;
use sluice_crds::config::GatewayConfig;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::ingest::Ingest;
use self::stores::{StoreParts, Stores};
use crate::admin::{Admin, AdminState, Readiness};
use crate::args::{ManagerArgs, RunArgs, ServeArgs, StandaloneArgs};
use crate::auth::Authenticator;
use crate::config::{ConfigFile, ConfigWatch, Manifests, Source};
use crate::drain::{Drain, Outcome};
use crate::fleet::{self, Links, Member, Sides};
use crate::limits::CONFIG_POLL_INTERVAL;
use crate::listener::Listener;
use crate::pressure::Pressure;
use crate::relay::{Metrics, Parts, Relay, Router, Shared, WORKERS_MAX};
use crate::resources::{self, MemoryBudget};
use crate::standalone::{Access, Monitor};
use crate::store::Holder;
use crate::telemetry;
use crate::tls::Certificates;

/// Certificates in use, by listener name.
type CertificatesByListener = HashMap<String, Arc<Certificates>>;

/// A process that serves.
pub struct Running {
    /// Name and address of each listener.
    pub addresses: Vec<(String, SocketAddr)>,
    pub admin: SocketAddr,
    pub drain: Drain,
    config: watch::Receiver<Arc<GatewayConfig>>,
    ingest: Option<Ingest>,
    tasks: JoinSet<()>,
}

/// Serves the gateway of manifests.
pub async fn standalone(args: StandaloneArgs) -> anyhow::Result<Running> {
    let source = Manifests {
        paths: args.manifests,
        secrets_dir: args.secrets_dir,
    };
    let password = args.monitor_password_file.as_deref().map(password);
    let access = Access::new(args.serve.admin, password.transpose()?);
    start(args.serve, source, ManagerArgs::default(), Some(access)).await
}

/// Serves the gateway of a resolved configuration.
pub async fn run(args: RunArgs) -> anyhow::Result<Running> {
    let source = ConfigFile::new(args.config, args.secrets_dir);
    start(args.serve, source, args.manager, None).await
}

/// Whoever knows it can look at the monitor.
fn password(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("--monitor-password-file {}", file.display()))?;
    let password = text.trim();
    anyhow::ensure!(
        !password.is_empty(),
        "--monitor-password-file {}: it is empty; write a password into it",
        file.display()
    );
    Ok(password.to_owned())
}

async fn start(
    args: ServeArgs,
    source: impl Source,
    manager: ManagerArgs,
    monitor: Option<Access>,
) -> anyhow::Result<Running> {
    let mut registry = Registry::default();
    let mut tasks = JoinSet::new();
    resources::register(&mut registry);
    if let Some(dir) = &args.data_dir {
        resources::prepare_data_dir(dir)?;
    }
    let config_watch = ConfigWatch::start(source, &mut registry)?;
    let config = config_watch.subscribe();
    let drain = Drain::new();
    let readiness = Readiness::default();
    let listening = readiness.guard("listeners");

    let workers = args.workers.unwrap_or_else(resources::cores);
    let workers = workers.get().min(WORKERS_MAX);
    let memory = MemoryBudget::detect(args.memory_limit_bytes);
    let pressure = Pressure::new(workers, memory, &mut registry);
    let links = Links::new(manager.url.is_some(), &config.borrow());
    let (relay, ingest) = start_parts(ServingParts {
        args: &args,
        links: &links,
        workers,
        config: &config,
        pressure: &pressure,
        drain: &drain,
        readiness: &readiness,
        registry: &mut registry,
        tasks: &mut tasks,
    })?;
    let sides = sides(&config, &relay, &pressure, &drain, ingest.as_ref());
    let requests = ingest.as_ref().map(Ingest::requests);
    let monitor =
        monitor.map(|access| Monitor::start(sides.clone(), requests.clone(), access, &mut tasks));
    let member = fleet::Parts {
        args: manager,
        sides,
        links,
    };
    let member = Member::join(member, &mut registry)?;
    let (listeners, certificates) = bind_listeners(&args, &config.borrow())?;
    let state = AdminState {
        readiness: readiness.clone(),
        drain: drain.clone(),
        registry: Arc::new(registry),
        config: config.clone(),
        log: telemetry::control(),
        routes: requests
            .into_iter()
            .chain(monitor.map(|monitor| monitor as _))
            .collect(),
    };
    let (admin, admin_address) = bind_admin(args.admin, state).await?;

    tasks.spawn(admin.serve());
    tasks.spawn(config_watch.run(CONFIG_POLL_INTERVAL));
    tasks.spawn(pressure.run());
    keep_relay(&relay, &config, certificates, member, &mut tasks);
    if let Some(ingest) = &ingest {
        keep_ingest(ingest, &config, &drain, &readiness, &mut tasks);
    }
    let addresses = accept_all(listeners, &relay, &drain, &mut tasks);
    listening.release();
    tracing::info!(gateway = %config.borrow().name, admin = %admin_address, "serving");
    Ok(Running {
        addresses,
        admin: admin_address,
        drain,
        config,
        ingest,
        tasks,
    })
}

/// What the manager and the monitor are told about.
fn sides(
    config: &watch::Receiver<Arc<GatewayConfig>>,
    relay: &Relay,
    pressure: &Arc<Pressure>,
    drain: &Drain,
    ingest: Option<&Ingest>,
) -> Sides {
    Sides {
        config: config.clone(),
        relay: Arc::clone(relay.shared()),
        pressure: Arc::clone(pressure),
        drain: drain.clone(),
        ingest: ingest.map(Ingest::side),
    }
}

async fn bind_admin(address: SocketAddr, state: AdminState) -> anyhow::Result<(Admin, SocketAddr)> {
    let admin = Admin::bind(address, state)
        .await
        .with_context(|| format!("admin port {address}"))?;
    let bound = admin.local_addr()?;
    Ok((admin, bound))
}

/// What has to be done all the time for clients, and what the manager says of them.
fn keep_relay(
    relay: &Relay,
    config: &watch::Receiver<Arc<GatewayConfig>>,
    certificates: CertificatesByListener,
    member: Option<Member>,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(follow_config(
        config.clone(),
        Arc::clone(relay.shared()),
        certificates,
    ));
    tasks.spawn(relay.clone().keep());
    if let Some(member) = member {
        tasks.spawn(member.attend());
    }
}

/// What has to be done all the time for ingest, beside what its own threads do.
fn keep_ingest(
    ingest: &Ingest,
    config: &watch::Receiver<Arc<GatewayConfig>>,
    drain: &Drain,
    readiness: &Readiness,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(ingest.follow_config(config.clone()));
    tasks.spawn(ingest.drain(drain.subscribe()));
    tasks.spawn(ingest.say_trouble(readiness.clone()));
}

/// Starts accepting; returns each listener's name and address.
fn accept_all(
    listeners: Vec<Listener>,
    relay: &Relay,
    drain: &Drain,
    tasks: &mut JoinSet<()>,
) -> Vec<(String, SocketAddr)> {
    let mut addresses = Vec::new();
    for listener in listeners {
        tracing::info!(listener = %listener.name, address = %listener.address, "listening");
        addresses.push((listener.name.clone(), listener.address));
        tasks.spawn(listener.accept(relay.clone(), drain.subscribe()));
    }
    addresses
}

struct ServingParts<'a> {
    args: &'a ServeArgs,
    links: &'a Links,
    workers: usize,
    config: &'a watch::Receiver<Arc<GatewayConfig>>,
    pressure: &'a Arc<Pressure>,
    drain: &'a Drain,
    readiness: &'a Readiness,
    registry: &'a mut Registry,
    tasks: &'a mut JoinSet<()>,
}

/// The stores, and on them ingest and the relay, with its workers running.
fn start_parts(parts: ServingParts<'_>) -> anyhow::Result<(Relay, Option<Ingest>)> {
    let ServingParts {
        args,
        links,
        workers,
        config,
        pressure,
        drain,
        readiness,
        registry,
        tasks,
    } = parts;
    let current = config.borrow().clone();
    let router = Arc::new(Router::new(workers));
    let surveys = Arc::default();
    let holder = Holder(uuid::Uuid::new_v4().to_string().into());
    let stores = Stores::start(StoreParts {
        config: &current,
        cores: resources::cores().get(),
        router: &router,
        surveys: &surveys,
        holder: &holder,
        readiness,
        registry,
        tasks,
    })?;
    let shared_queue = (stores.redis.as_ref(), &holder);
    let delivery = links.delivery();
    let ingest = Ingest::start(args, config, pressure, shared_queue, delivery, registry)?;
    let authenticator = Authenticator::new(&current.relay.authentication, &Handle::current())
        .context("authentication")?;
    let parts = Parts {
        config: config.clone(),
        broker: stores.broker,
        presence: stores.presence,
        peers: stores.peers,
        surveys,
        router,
        pressure: Arc::clone(pressure),
        metrics: Metrics::register(registry),
        drain: drain.clone(),
        gate: Arc::clone(&links.gate),
        leave: links.leave.subscribe(),
        holder,
        descriptors_max: resources::descriptor_limit(),
        ingest: ingest.as_ref().map(|ingest| Arc::clone(&ingest.accept)),
    };
    let relay = Relay::start(parts, authenticator).context("relay workers")?;
    Ok((relay, ingest))
}

fn bind_listeners(
    args: &ServeArgs,
    config: &GatewayConfig,
) -> anyhow::Result<(Vec<Listener>, CertificatesByListener)> {
    let mut listeners = Vec::new();
    let mut certificates = CertificatesByListener::new();
    for listener in &config.listeners {
        let held = match &listener.tls {
            None => None,
            Some(material) => {
                let held = Certificates::new(material)
                    .with_context(|| format!("listener {}", listener.name))?;
                Some(Arc::new(held))
            }
        };
        if let Some(held) = &held {
            certificates.insert(listener.name.clone(), Arc::clone(held));
        }
        let bound = Listener::bind(&listener.name, &args.bind_candidates(), listener.port, held)
            .with_context(|| format!("listener {}: port {}", listener.name, listener.port))?;
        listeners.push(bound);
    }
    Ok((listeners, certificates))
}

/// Gives a changed configuration to what does not read it by itself: token keys and certificates.
async fn follow_config(
    mut config: watch::Receiver<Arc<GatewayConfig>>,
    shared: Arc<Shared>,
    certificates: CertificatesByListener,
) {
    while config.changed().await.is_ok() {
        let current = config.borrow_and_update().clone();
        match shared.authenticator().renew(&current.relay.authentication) {
            Ok(renewed) => shared.replace_authenticator(renewed),
            Err(error) => tracing::error!(%error, "authentication not renewed, the old keys stay"),
        }
        for listener in &current.listeners {
            let (Some(held), Some(material)) = (certificates.get(&listener.name), &listener.tls)
            else {
                continue;
            };
            if let Err(error) = held.replace(material) {
                tracing::error!(%error, listener = %listener.name, "certificate not replaced, the old one stays");
            }
        }
    }
}

impl Running {
    /// Waits for the end: a finished drain, or a second signal.
    pub async fn wait(self) -> anyhow::Result<ExitCode> {
        let Self {
            drain,
            config,
            ingest,
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
        if let Some(ingest) = ingest {
            ingest.close().await;
        }
        Ok(code)
    }
}
