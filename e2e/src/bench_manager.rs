//! What a manager uses for a large fleet: its own process, one HTTP/2 connection and one report per second of each pod, no TLS.
//!
//! Pods are pretended; what they report changes all the time, and what they are told they confirm.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::stream;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sluice_proto::fleet::{Cap, CapKey, Directive, Load, Queue, Relay, Report, Upstream, Version};
use sluice_proto::fleet_wire as wire;
use sluice_proto::fleet_wire::fleet_client::FleetClient;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::transport::Endpoint;
use tower_service::Service;

use crate::bench::process::{cpu_seconds, private_kb};
use crate::ingest::Ingest;
use crate::ports::free_port;
use crate::sluice::{Scratch, run};
use crate::upstream::handle::binary;

/// Applications with caps, for each of which every pod has something to send.
const APPLICATIONS: usize = 20;
const PER_MINUTE: u32 = 600_000;
const CLIENTS: u64 = 10_000;
const EVERY: Duration = Duration::from_secs(1);
/// Learning is over, and every pod has its shares.
const SETTLES: Duration = Duration::from_secs(20);
const COUNTED: Duration = Duration::from_secs(30);

struct Manager {
    child: Child,
    port: u16,
    _scratch: Scratch,
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(pods: usize) -> Result<Manager> {
    let scratch = Scratch::new()?;
    let ingest = (0..APPLICATIONS).fold(
        Ingest::new("http://127.0.0.1:1").without_applications(),
        |ingest, n| {
            let throttle = json!({ "throttle": { "requestsPerMinute": PER_MINUTE } });
            ingest.application(&name(n), &format!("key{n}"), throttle)
        },
    );
    let manifest = scratch.write("manifest.yaml", &ingest.render(free_port()?))?;
    let resolved = scratch.path().join("resolved");
    let words = [
        manifest.display().to_string(),
        resolved.display().to_string(),
    ];
    let checked = run(&["check", &words[0], "--write", &words[1]])?;
    ensure!(checked.status.success(), "{checked:?}");
    let names: Vec<String> = (0..pods).map(pod).collect();
    let names: PathBuf = scratch.write("pods", &names.join("\n"))?;
    let port = free_port()?;
    let child = Command::new(binary("sluice-e2e")?)
        .args(["manager", "--listen", &format!("127.0.0.1:{port}")])
        .arg("--config")
        .arg(resolved.join("config.json"))
        .arg("--secrets-dir")
        .arg(resolved.join("secrets"))
        .arg("--pods")
        .arg(names)
        .stdin(Stdio::null())
        .spawn()?;
    Ok(Manager {
        child,
        port,
        _scratch: scratch,
    })
}

fn name(application: usize) -> String {
    format!("app{application}")
}

fn pod(number: usize) -> String {
    format!("front-{number:04}")
}

/// What a busy pod says in its second `second`.
fn report(pod: &str, second: u64, applied: Version) -> Report {
    let cap = |n: usize| Cap {
        key: CapKey::Application(name(n).into()),
        arrived_total: second * 30,
        sent_total: second * 10,
        waiting: 100 + second,
        oldest: Duration::from_secs(second),
        allowed_per_minute: 600.0,
        lease_left: Duration::from_secs(12),
        safe_per_minute: Some(150.0),
    };
    Report {
        gateway: "default/test".into(),
        pod: pod.into(),
        instance: pod.into(),
        sequence: second,
        release: env!("CARGO_PKG_VERSION").into(),
        applied,
        cpu_request_cores: Some(1.0),
        connections_max: Some(50_000),
        relay: Relay {
            connections: CLIENTS + fastrand::u64(..200),
            opened_total: CLIENTS + second,
            messages_in_total: second * 1_000,
            messages_out_total: second * 9_000,
            ..Relay::default()
        },
        load: Load {
            cpu_seconds_total: second as f64 * 0.4,
            memory_bytes: 300 << 20,
            memory_limit_bytes: 1 << 30,
            loop_delay: Duration::from_millis(2),
            overload_level: 0,
        },
        caps: (0..APPLICATIONS).map(cap).collect(),
        upstreams: vec![Upstream {
            name: "main".into(),
            succeeded_total: second * 200,
            failed_total: 0,
            in_flight: 8,
            in_flight_limit: 16.0,
            pace_per_second: Some(400.0),
            closed: false,
            wanted: true,
        }],
        queue: Queue {
            waiting: 2_000,
            arrived_total: second * 600,
            delivered_total: second * 200,
            ..Queue::default()
        },
        ..Report::default()
    }
}

/// Connects without TLS.
struct Plain(u16);

impl Service<Uri> for Plain {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let port = self.0;
        Box::pin(async move { Ok(TokioIo::new(TcpStream::connect(("127.0.0.1", port)).await?)) })
    }
}

/// Attends until it is dropped.
async fn attend(port: u16, pod: String, heard: Arc<AtomicU64>) -> Result<()> {
    // Pods start at all times.
    sleep(EVERY.mul_f64(fastrand::f64())).await;
    let (applied, applies) = watch::channel(Version::default());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reports = stream::unfold(
        (0, ticks, applies, pod),
        |(second, mut ticks, applies, pod)| async move {
            ticks.tick().await;
            let applied = *applies.borrow();
            let said = report(&pod, second + 1, applied);
            Some((wire::Report::from(said), (second + 1, ticks, applies, pod)))
        },
    );
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    let channel = endpoint.connect_with_connector(Plain(port)).await?;
    let attending = FleetClient::new(channel).attend(reports).await?;
    let mut directives = attending.into_inner();
    while let Some(directive) = directives.message().await? {
        applied.send_replace(Directive::try_from(directive)?.version);
        heard.fetch_add(1, Ordering::Relaxed);
    }
    anyhow::bail!("the manager ended the stream")
}

/// CPU and memory of the manager of so many pods, in words.
pub async fn measure(pods: usize) -> Result<String> {
    let manager = start(pods)?;
    let pid = manager.child.id();
    while TcpStream::connect(("127.0.0.1", manager.port))
        .await
        .is_err()
    {
        sleep(Duration::from_millis(50)).await;
    }
    let heard = Arc::new(AtomicU64::new(0));
    let mut attending = JoinSet::new();
    for number in 0..pods {
        attending.spawn(attend(manager.port, pod(number), Arc::clone(&heard)));
    }
    sleep(SETTLES).await;
    let (cpu, before, began) = (
        cpu_seconds(pid)?,
        heard.load(Ordering::Relaxed),
        Instant::now(),
    );
    sleep(COUNTED).await;
    let seconds = began.elapsed().as_secs_f64();
    let used = (cpu_seconds(pid)? - cpu) / seconds;
    let told = (heard.load(Ordering::Relaxed) - before) as f64 / seconds;
    if let Some(ended) = attending.try_join_next() {
        ended?.context("a pod")?;
    }
    Ok(format!(
        "{pods} pods, {pods} reports per second of {APPLICATIONS} caps each: {:.1} % of a core, {told:.0} directives per second, {} MB",
        used * 100.0,
        private_kb(pid)? / 1024,
    ))
}
