//! The real manager of one gateway without Kubernetes: `sluice-e2e manager` serves it, tests kill it and start it again.
//!
//! What Kubernetes would say of pods is in a file of their names, one to a line, which is followed. With `large` the only part of
//! this crate that links the manager; data planes see it over its socket.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sluice_crds::config::GatewayConfig;
use sluice_crds::config_file;
use sluice_manager::grpc::{self, Directory, Refusal};
use sluice_manager::{Fleet, PodFacts, Policy, Rebalance, Scaling, ScalingMode};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_service::Service;

pub mod large;

/// How often the file of pods is looked at.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct ManagerArgs {
    /// Where data planes find it, without TLS.
    #[arg(long)]
    listen: SocketAddr,
    /// A resolved configuration, as of a data plane.
    #[arg(long)]
    config: PathBuf,
    /// Its secrets, one file each.
    #[arg(long)]
    secrets_dir: PathBuf,
    /// Names of the pods that exist, one to a line; without it those that report are all there are.
    #[arg(long)]
    pods: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Rebalancing::Steer)]
    rebalance: Rebalancing,
    /// Clients that may be closed per second.
    #[arg(long)]
    moves_per_second: Option<f64>,
    /// Milliseconds between fencing a pod and closing its clients.
    #[arg(long, default_value_t = 500)]
    fence_delay_ms: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Rebalancing {
    Steer,
    Move,
    Off,
}

/// Whoever can reach the port may speak for any pod.
struct Everybody(Fleet);

#[async_trait::async_trait]
impl Directory for Everybody {
    async fn admit(&self, _: Option<&str>, _: &str, _: &str) -> Result<Fleet, Refusal> {
        Ok(self.0.clone())
    }
}

/// Serves until it is killed.
pub async fn serve(args: ManagerArgs) -> Result<()> {
    let config = config_file::read(&args.config, &args.secrets_dir)
        .map_err(|problems| anyhow!("{}: {problems:?}", args.config.display()))?;
    let term = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let (fleet, actor) = Fleet::start(u64::try_from(term)?, policy(&args, &config));
    let mut tasks = JoinSet::new();
    tasks.spawn(actor);
    tasks.spawn(tell(fleet.clone()));
    if let Some(pods) = args.pods {
        tasks.spawn(follow(fleet.clone(), pods));
    }
    let service = grpc::service(Arc::new(Everybody(fleet)));
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let service = service.clone();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        let service = service_fn(move |request| service.clone().call(request));
        let connection = builder.serve_connection(TokioIo::new(tcp), service);
        tasks.spawn(async move {
            // A data plane that is gone comes again.
            let _ = connection.await;
        });
    }
}

fn policy(args: &ManagerArgs, config: &GatewayConfig) -> Policy {
    Policy {
        applications: std::collections::BTreeSet::new(),
        caps: Policy::caps_of(config),
        scaling: Scaling {
            mode: ScalingMode::Fixed,
            min: 1,
            max: config.data_planes_max,
            connections_per_replica: 10_000,
            connections_target: 0.8,
            cpu_target: 0.8,
            queue_delay_target: Duration::from_secs(5),
            scale_down_window: Duration::from_secs(300),
            paused: false,
        },
        rebalance: match args.rebalance {
            Rebalancing::Steer => Rebalance::Steer,
            Rebalancing::Move => Rebalance::Move,
            Rebalancing::Off => Rebalance::Off,
        },
        moves_per_second: args.moves_per_second,
        fence_delay: Duration::from_millis(args.fence_delay_ms),
        steering: true,
    }
}

/// Tells the fleet of the pods that the file names.
async fn follow(fleet: Fleet, pods: PathBuf) {
    let mut known = None;
    loop {
        let names = read(&pods);
        if names != known {
            let facts = names.iter().flatten().map(|name| PodFacts {
                name: name.as_str().into(),
                ready: true,
                terminating: false,
                node: None,
                zone: None,
                current_revision: true,
                drain_requested: false,
            });
            fleet.set_facts(facts.collect::<Vec<_>>());
            known = names;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn read(pods: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(pods).ok()?;
    let lines = text.lines().map(str::trim);
    Some(
        lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

/// What is under way, for the reader of a test's output.
async fn tell(fleet: Fleet) {
    let mut plans = fleet.plans();
    drop(fleet);
    let mut told = None;
    while plans.changed().await.is_ok() {
        let plan = Arc::clone(&plans.borrow_and_update());
        let now = (plan.learning, plan.activity.clone());
        if told.as_ref() != Some(&now) {
            eprintln!("manager: learning: {}, {:?}", now.0, now.1);
            told = Some(now);
        }
    }
}
