//! A large fleet that is pretended, with a real manager, and its monitor on a port: what the page has to cope with.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::http::request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sluice_manager::monitor::api::{
    self, Answer, Edit, GatewayName, Host, Refusal, Rights, Written,
};
use sluice_manager::monitor::page;
use sluice_manager::{Fleet, Policy, Rebalance, Scaling};
use sluice_proto::fleet::{Application, Queue, Relay, Report, Upstream};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::interval;

const EVERY: Duration = Duration::from_secs(1);
const UPSTREAMS: usize = 3;

/// Ends when dropped.
pub struct Large {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Large {
    /// Every pod has something of every application, and all of it changes every second.
    pub async fn start(pods: usize, applications: usize) -> Result<Self> {
        let names: Vec<Arc<str>> = (0..applications)
            .map(|number| format!("application-{number:04}").into())
            .collect();
        let policy = Policy {
            caps: BTreeMap::new(),
            applications: names.iter().cloned().collect(),
            scaling: Scaling::default(),
            rebalance: Rebalance::Off,
            moves_per_second: None,
            fence_delay: Duration::ZERO,
            steering: true,
        };
        let (fleet, run) = Fleet::start(1, policy);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(run);
        tasks.spawn(report(fleet.clone(), pods, names));
        tasks.spawn(serve(listener, Arc::new(Monitor(fleet))));
        Ok(Self {
            address,
            _tasks: tasks,
        })
    }
}

async fn report(fleet: Fleet, pods: usize, names: Vec<Arc<str>>) {
    let mut ticks = interval(EVERY);
    for second in 0.. {
        ticks.tick().await;
        for pod in 0..pods {
            fleet.report(of(pod, second, &names)).await;
        }
    }
}

fn of(pod: usize, second: u64, names: &[Arc<str>]) -> Report {
    let applications = names.iter().enumerate().map(|(number, name)| Application {
        name: Arc::clone(name),
        arrived_total: second * (10 + number as u64),
        delivered_total: second * (9 + number as u64),
        waiting: (second + number as u64) % 50,
        held: "Cap".into(),
        ..Application::default()
    });
    let upstreams = (0..UPSTREAMS).map(|number| Upstream {
        name: format!("upstream-{number}").into(),
        succeeded_total: second * 1_000,
        ..Upstream::default()
    });
    Report {
        gateway: "large/fleet".into(),
        pod: format!("pod-{pod:03}").into(),
        instance: "only".into(),
        sequence: second + 1,
        relay: Relay {
            connections: 10_000 + second % 100,
            ..Relay::default()
        },
        queue: Queue {
            arrived_total: second * 10_000,
            delivered_total: second * 9_000,
            waiting: second % 1_000,
            ..Queue::default()
        },
        upstreams: upstreams.collect(),
        applications: applications.collect(),
        ..Report::default()
    }
}

struct Monitor(Fleet);

fn name() -> GatewayName {
    GatewayName {
        namespace: "large".to_owned(),
        name: "fleet".to_owned(),
    }
}

fn not_pretended() -> Refusal {
    Refusal::not_found("only the fleet is pretended")
}

#[async_trait]
impl Host for Monitor {
    async fn gateways(&self) -> Result<Vec<GatewayName>, Refusal> {
        Ok(vec![name()])
    }

    async fn rights(&self, _: &GatewayName) -> Result<Rights, Refusal> {
        Ok(Rights {
            requests: false,
            replay: false,
            edit: false,
        })
    }

    fn fleet(&self, gateway: &GatewayName) -> Option<Fleet> {
        (*gateway == name()).then(|| self.0.clone())
    }

    async fn requests(
        &self,
        _: &GatewayName,
        _: &request::Parts,
        _: &str,
    ) -> Result<Answer, Refusal> {
        Err(not_pretended())
    }

    async fn settings(&self, _: &GatewayName) -> Result<Answer, Refusal> {
        Err(not_pretended())
    }

    async fn written(&self, _: &GatewayName, _: &Written) -> Result<Answer, Refusal> {
        Err(not_pretended())
    }

    async fn edit(
        &self,
        _: &GatewayName,
        _: &Written,
        _: Edit,
        _: bool,
    ) -> Result<Answer, Refusal> {
        Err(not_pretended())
    }
}

async fn serve(listener: TcpListener, monitor: Arc<Monitor>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let monitor = Arc::clone(&monitor);
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let monitor = Arc::clone(&monitor);
            async move {
                let (head, _) = request.into_parts();
                let answer = match page::find(head.uri.path()) {
                    Some(page) => page.answer(&head.method),
                    None => api::answer(&*monitor, &head, &Bytes::new()).await,
                };
                Ok::<_, Infallible>(answer.map(Full::new))
            }
        });
        connections.spawn(async move {
            // A browser closes as it likes.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}
