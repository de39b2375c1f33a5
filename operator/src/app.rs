//! Composition root: makes every part in order, runs them, and ends them in order.

use std::sync::Arc;

use anyhow::Context;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::admin::{Admin, Health};
use crate::args::{Args, Election};
use crate::cluster::Writer;
use crate::events::Events;
use crate::external::{Externals, PROBES_MAX};
use crate::fleet::identity::{self, Cluster, Shown};
use crate::fleet::{FleetMetrics, Fleets, server};
use crate::gateway::Reconciler;
use crate::gateway::validate::Defaults;
use crate::leader::{self, Leadership};
use crate::limits::{SHUTDOWN_TIMEOUT, SYNC_WARNING};
use crate::managed::{Minder, Wake};
use crate::metrics::Metrics;
use crate::monitor::leader::Leader;
use crate::monitor::viewers::Viewers;
use crate::monitor::{self, Asker, Monitor};
use crate::web;
use crate::work::{self, Work};
use crate::world::{self, Sink, World};

/// Runs until a signal ends the process.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let told_to_end = told_to_end()?;
    let identity = args.identity();
    let client = client(&identity).await?;
    info!(identity, version = env!("CARGO_PKG_VERSION"), "operator");
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let health = Arc::new(Health::default());
    let leadership = leadership(&args, &identity);
    let work = Arc::new(Work::default());
    let (shown, certificate, trusted) = certificates();
    let reconciler = reconciler(&args, &client, &identity, &leadership, &work, trusted);
    let monitor = monitor(&args, &identity, &leadership, &reconciler).await?;
    let fleets = Arc::clone(&reconciler.fleets);
    registry.register_collector(Box::new(FleetMetrics(fleets)));
    let admin = Admin {
        health: Arc::clone(&health),
        registry: Arc::new(registry),
        fleets: Arc::clone(&reconciler.fleets),
    };
    let admin = serve_admin(&args, admin).await?;
    let managers = managers(
        &args,
        &reconciler.fleets,
        &leadership,
        certificate,
        &monitor,
    )
    .await?;
    let kept = certificate_kept(&args, &client, &leadership, shown);
    let followed = follow_certificate(Arc::clone(&work), Arc::clone(&reconciler));
    let world = &reconciler.world;
    let sink = sink(&work, &reconciler);
    let mut watches = world::start(&client, &args.watch_namespaces, world, &sink);
    let (stop, stopped) = watch::channel(false);
    let (idle, mut is_idle) = watch::channel(false);
    let elected = leader::run(
        leadership.clone(),
        client.clone(),
        &args.namespace,
        &args.lease,
        async move {
            let _ = is_idle.wait_for(|idle| *idle).await;
        },
    );
    let worked = async {
        synced(&mut watches).await;
        health.ready();
        let leading = leadership.subscribe();
        work::run(work, Arc::clone(&reconciler), leading, stopped, metrics).await;
        reconciler.minder.stop().await;
        idle.send_replace(true);
    };
    let ended = async {
        told_to_end.await;
        info!("ending");
        stop.send_replace(true);
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(elected, worked) } => {}
        () = leader::announce(leadership.clone()) => {}
        () = managers => {}
        () = kept => {}
        () = followed => {}
        () = ended => warn!("something did not end in time"),
    }
    admin.abort();
    Ok(())
}

fn told_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminated = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    })
}

/// Who of the operators writes, as far as this one has to do with it.
fn leadership(args: &Args, identity: &str) -> Leadership {
    match args.election {
        Election::Enabled => Leadership::contested(identity, &args.asked_at()),
        Election::Disabled => Leadership::alone(),
    }
}

fn reconciler(
    args: &Args,
    client: &Client,
    identity: &str,
    leadership: &Leadership,
    work: &Arc<Work>,
    trusted: watch::Receiver<Arc<str>>,
) -> Arc<Reconciler> {
    let writer = Writer::new(client.clone(), leadership.clone());
    let wake: Wake = {
        let work = Arc::clone(work);
        Arc::new(move |key| work.add(key))
    };
    let defaults = Defaults {
        data_plane_image: args.data_plane_image.clone(),
        redis_image: args.redis_image.clone(),
        manager: args.manager(),
        operators: args.namespace.clone(),
    };
    let world = Arc::new(World::default());
    let keys = Cluster::new(client.clone());
    let fleets = Fleets::new(Arc::clone(&world), keys, trusted, Arc::clone(&wake));
    Arc::new(Reconciler::new(
        writer.clone(),
        world,
        defaults,
        Events::new(client.clone(), identity),
        Minder::new(writer, Arc::clone(&wake)),
        Externals::new(wake, PROBES_MAX),
        Arc::new(fleets),
    ))
}

async fn serve_admin(args: &Args, admin: Admin) -> anyhow::Result<JoinHandle<()>> {
    let listener = Admin::bind(args.admin).await;
    let listener = listener.with_context(|| format!("admin port {}", args.admin))?;
    info!(address = %listener.local_addr()?, "admin port");
    Ok(tokio::spawn(admin.serve(listener)))
}

type Certificate = watch::Receiver<Option<Arc<ServerConfig>>>;

/// What the managers' port shows, and what data planes are told to trust.
fn certificates() -> (Shown, Certificate, watch::Receiver<Arc<str>>) {
    let (server, certificate) = watch::channel(None);
    let (trusted, trusts) = watch::channel(Arc::from(""));
    (Shown { server, trusted }, certificate, trusts)
}

/// The ports at which managers are attended, and looked at.
async fn managers(
    args: &Args,
    fleets: &Arc<Fleets>,
    leadership: &Leadership,
    certificate: Certificate,
    monitor: &Arc<Monitor>,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let attended = TcpListener::bind(args.fleet).await;
    let attended = attended.with_context(|| format!("port of data planes {}", args.fleet))?;
    info!(address = %attended.local_addr()?, "data planes may attend");
    let looked_at = TcpListener::bind(args.monitor).await;
    let looked_at = looked_at.with_context(|| format!("port of the monitor {}", args.monitor))?;
    info!(address = %looked_at.local_addr()?, "monitor");
    let (fleets, leading) = (Arc::clone(fleets), leadership.subscribe());
    let directory = Arc::clone(&fleets) as _;
    let (operator, person) = (
        monitor.handler(Asker::Operator),
        monitor.handler(Asker::Person),
    );
    Ok(async move {
        tokio::join!(
            server::serve(attended, certificate, directory, operator),
            web::serve(looked_at, monitor::LIMITS, person),
            fleets.follow(leading),
        );
    })
}

fn certificate_kept(
    args: &Args,
    client: &Client,
    leadership: &Leadership,
    shown: Shown,
) -> impl Future<Output = ()> + use<> {
    let (client, leading) = (client.clone(), leadership.subscribe());
    let (namespace, lease) = (args.namespace.clone(), args.lease.clone());
    async move { identity::keep(client, &namespace, &lease, leading, shown).await }
}

async fn monitor(
    args: &Args,
    identity: &str,
    leadership: &Leadership,
    reconciler: &Reconciler,
) -> anyhow::Result<Arc<Monitor>> {
    Ok(Arc::new(Monitor {
        world: Arc::clone(&reconciler.world),
        fleets: Arc::clone(&reconciler.fleets),
        viewers: Viewers::new(config(identity).await?).context("client of viewers")?,
        leader: Leader {
            leadership: leadership.clone(),
            trusted: reconciler.fleets.watch_trusted(),
            name: identity::host(&args.namespace, &args.lease),
        },
    }))
}

/// Data planes are told of another certificate by their configuration.
async fn follow_certificate(work: Arc<Work>, reconciler: Arc<Reconciler>) {
    let mut trusted = reconciler.fleets.watch_trusted();
    while trusted.changed().await.is_ok() {
        work.all(&reconciler);
    }
    std::future::pending().await
}

/// A way to the API server, from within a pod or by kubeconfig. Its audit log tells by the identity who of several
/// operators asked for what.
pub async fn client(identity: &str) -> anyhow::Result<Client> {
    Client::try_from(config(identity).await?).context("client")
}

async fn config(identity: &str) -> anyhow::Result<Config> {
    let mut config = Config::infer().await.context("no way to a Kubernetes")?;
    config.headers.push((USER_AGENT, user_agent(identity)?));
    // Every request has a time within which it must be over, and tries again in its own way.
    config.default_retry = false;
    Ok(config)
}

/// The identity comes from outside, and stands as a comment: what would end that is left out.
fn user_agent(identity: &str) -> anyhow::Result<HeaderValue> {
    let is_fit = |c: &char| c.is_ascii_graphic() && !matches!(c, '(' | ')' | '\\');
    let identity: String = identity.chars().filter(is_fit).collect();
    let agent = format!("sluice-operator/{} ({identity})", env!("CARGO_PKG_VERSION"));
    HeaderValue::from_str(&agent).context("user agent")
}

/// Changes go to the queue.
fn sink(work: &Arc<Work>, reconciler: &Arc<Reconciler>) -> Sink {
    let (work, reconciler) = (Arc::clone(work), Arc::clone(reconciler));
    Arc::new(move |change| work.changed(&reconciler, change))
}

/// Nothing is decided before everything was seen once.
async fn synced(watches: &mut world::Watches) {
    loop {
        match tokio::time::timeout(SYNC_WARNING, watches.synced()).await {
            Ok(()) => return info!(watches = watches.len(), "everything was seen"),
            Err(_) => warn!(
                "not everything could be seen yet; are the CRDs applied, and may this account watch them?"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_agent_names_version_and_identity() {
        let agent = user_agent("a(b)\n\u{fc} c_1").unwrap();
        let wanted = concat!("sluice-operator/", env!("CARGO_PKG_VERSION"), " (abc_1)");
        assert_eq!(agent, wanted);
    }
}
