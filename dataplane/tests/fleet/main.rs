//! A data plane and its manager, which is a script here: what is reported, what directives bring about, and what remains without one.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_dataplane::app::{self, Running};
use sluice_dataplane::args::{CheckArgs, ManagerArgs, RunArgs, ServeArgs};
use sluice_dataplane::check::check;
use sluice_e2e::client::Client;
use sluice_e2e::http;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use self::manager::Manager;

mod limits;
mod links;
mod manager;
mod steering;

/// For what comes in the end, on a machine that has no time.
const WAIT: Duration = Duration::from_secs(30);
const KEY: &str = "shopkey";
/// Requests per minute.
const CAP: u32 = 600;

/// A data plane in this process, with what it delivers to.
struct Plane {
    running: Running,
    upstream: Upstream,
    _dir: TempDir,
}

/// Answers everything with success and counts.
struct Upstream {
    port: u16,
    requests: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Upstream {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let counted = Arc::clone(&counted);
                connections.spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    // A request is one small write here.
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        counted.fetch_add(1, Ordering::Relaxed);
                        let answer =
                            "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"result\":\"Success\"}";
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            port,
            requests,
            _serving: serving,
        }
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn manifest(port: u16, upstream: u16) -> String {
    let gateway = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Gateway", "metadata": { "name": "game" },
        "spec": {
            "listeners": [{ "name": "web", "port": port }],
            "relay": { "authentication": { "anonymous": "Allowed" } },
            "ingest": { "upstreams": [{ "name": "main", "url": format!("http://127.0.0.1:{upstream}") }] },
            "dataPlane": { "drain": { "timeout": "1s" } },
        },
    });
    let application = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Application", "metadata": { "name": "shop" },
        "spec": {
            "gatewayRef": { "name": "game" }, "keys": [{ "value": KEY }],
            "throttle": { "requestsPerMinute": CAP },
        },
    });
    format!("{gateway}\n---\n{application}\n")
}

/// What `sluice run` is given.
fn written(dir: &Path, port: u16, upstream: u16) -> PathBuf {
    let manifests = dir.join("gateway.yaml");
    std::fs::write(&manifests, manifest(port, upstream)).unwrap();
    let args = CheckArgs {
        manifests: vec![manifests],
        secrets_dir: None,
        write: Some(dir.join("pod")),
    };
    // It makes a runtime of its own, which is not possible on this thread.
    let checked = std::thread::spawn(move || {
        let mut said = Vec::new();
        let well = check(args, &mut said).unwrap();
        assert!(well, "{}", String::from_utf8_lossy(&said));
    });
    checked.join().unwrap();
    dir.join("pod/config.json")
}

impl Plane {
    async fn start(manager: &Manager) -> Self {
        Self::start_with(ManagerArgs {
            url: Some(
                format!("http://127.0.0.1:{}", manager.port)
                    .parse()
                    .unwrap(),
            ),
            ..ManagerArgs::default()
        })
        .await
    }

    async fn start_with(manager: ManagerArgs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let args = RunArgs {
            config: written(dir.path(), free_port(), upstream.port),
            secrets_dir: None,
            manager: ManagerArgs {
                pod: Some("front-0".to_owned()),
                cpu_request_millicores: Some(1_500),
                ..manager
            },
            serve: ServeArgs {
                bind: Some(std::net::Ipv4Addr::LOCALHOST.into()),
                admin: SocketAddr::from(([127, 0, 0, 1], 0)),
                workers: std::num::NonZeroUsize::new(2),
                data_dir: Some(dir.path().join("data")),
                ..ServeArgs::default()
            },
        };
        let running = app::run(args).await.expect("the process starts");
        Self {
            running,
            upstream,
            _dir: dir,
        }
    }

    fn address(&self) -> SocketAddr {
        self.running.addresses[0].1
    }

    /// Takes in events of as many devices.
    async fn events(&self, count: usize) {
        for device in 0..count {
            let target = format!("/i?app_key={KEY}&device_id=d{device}&begin_session=1");
            let answer = http::get(self.address(), &target).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }

    fn delivered(&self) -> usize {
        self.upstream.requests.load(Ordering::Relaxed)
    }

    async fn client(&self) -> Client {
        let mut client = Client::open(self.address()).await.unwrap();
        client.call("connect", json!({})).await.unwrap();
        client
    }

    /// What a new client is told.
    async fn upgrade(&self) -> Result<Client, sluice_e2e::client::Refused> {
        Client::try_open(self.address()).await.unwrap()
    }

    async fn admin(&self, path: &str) -> String {
        let answer = http::get(self.running.admin, path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    }

    async fn metric(&self, name: &str) -> Option<f64> {
        let page = self.admin("/metrics").await;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    }

    /// The application's cap as the admin port shows it.
    async fn cap(&self) -> Value {
        let lanes: Value = serde_json::from_str(&self.admin("/lanes").await).unwrap();
        lanes["caps"][0].clone()
    }
}
