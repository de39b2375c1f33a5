//! The front against real sockets: a listener on the loopback, a relay with one worker, a queue in memory.

mod fuzz;
mod http2;
mod limits;
mod requests;
mod smuggling;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sluice_crds::config::{GatewayConfig, Ingest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::auth::Authenticator;
use crate::drain::Drain;
use crate::ingest::accept::{self, Accept};
use crate::ingest::entry::StoredRequest;
use crate::ingest::metrics;
use crate::ingest::proxy::{Call, Proxy};
use crate::listener::Listener;
use crate::pressure::Pressure;
use crate::relay::{Metrics, Parts, Relay, Router, api};
use crate::resources::MemoryBudget;
use crate::store::Holder;
use crate::store::embedded::Embedded;
use crate::store::queue::{
    ClaimLimits, Claimed, EntryId, Filter, Found, Horizon, Lane, LaneStats, NewEntry, Page, Queue,
    QueueError, QueueStats, Token, Verdict,
};

/// Longer than anything here takes, shorter than the patience of who waits for the tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// When nothing has come for so long, nothing will.
const QUIET: Duration = Duration::from_millis(150);
const MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// Keeps what is appended, or refuses it.
#[derive(Default)]
pub(crate) struct TestQueue {
    entries: Mutex<Vec<NewEntry>>,
    refusal: Mutex<Option<QueueError>>,
    pub(crate) delay: Mutex<Duration>,
    /// Appends that began.
    begun: AtomicUsize,
    /// Held by a test: appends wait.
    gate: tokio::sync::RwLock<()>,
}

impl TestQueue {
    async fn until_begun(&self, appends: usize) {
        while self.begun.load(Ordering::Relaxed) < appends {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn take(&self) -> Vec<(NewEntry, StoredRequest)> {
        let entries = std::mem::take(&mut *self.entries.lock());
        let decoded = entries.into_iter().map(|entry| {
            let request = StoredRequest::decode(entry.request.clone()).expect("just encoded");
            (entry, request)
        });
        decoded.collect()
    }
}

#[async_trait]
impl Queue for TestQueue {
    async fn append(&self, entry: NewEntry) -> Result<(), QueueError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let _open = self.gate.read().await;
        let delay = *self.delay.lock();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(refusal) = self.refusal.lock().clone() {
            return Err(refusal);
        }
        self.entries.lock().push(entry);
        Ok(())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    fn lanes(&self) -> Vec<LaneStats> {
        Vec::new()
    }

    fn stats(&self) -> QueueStats {
        QueueStats::default()
    }

    async fn claim(&self, _: &Lane, _: ClaimLimits) -> Result<Vec<Claimed>, QueueError> {
        Ok(Vec::new())
    }

    async fn load(&self, _: &[Token]) -> Result<Vec<Option<Bytes>>, QueueError> {
        Ok(Vec::new())
    }

    async fn settle(&self, _: Vec<(Token, Verdict)>) -> Result<(), QueueError> {
        Ok(())
    }

    async fn record_attempts(&self, _: Token, _: u32) -> Result<(), QueueError> {
        Ok(())
    }

    async fn dismiss(&self, _: EntryId, _: Verdict) -> Result<bool, QueueError> {
        Ok(false)
    }

    async fn find(&self, _: &Filter, _: Option<EntryId>, _: usize) -> Result<Page, QueueError> {
        Ok(Page::default())
    }

    async fn get(&self, _: EntryId) -> Result<Option<(Found, Bytes)>, QueueError> {
        Ok(None)
    }

    async fn trim(&self, _: &Horizon, _: u64) -> Result<(), QueueError> {
        Ok(())
    }
}

struct Server {
    address: SocketAddr,
    queue: Arc<TestQueue>,
    calls: Mutex<Option<tokio::sync::mpsc::Receiver<Call>>>,
    drain: Drain,
    registry: Registry,
    config: watch::Sender<Arc<GatewayConfig>>,
    relay: Relay,
}

/// What a server is started with, beyond what is usual.
struct Setup {
    ingest: Option<Arc<Ingest>>,
    anonymous: bool,
    connections_max: usize,
    tls: Option<Arc<crate::tls::Certificates>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            ingest: Some(accept::countly::tests::config(|_| {})),
            anonymous: true,
            connections_max: 100,
            tls: None,
        }
    }
}

pub(crate) fn gateway(ingest: Option<Arc<Ingest>>, anonymous: bool) -> GatewayConfig {
    let mut config = api::tests::config(Some("secret"));
    config.relay.authentication.anonymous = anonymous;
    config.ingest = ingest;
    config
}

fn start() -> Server {
    start_with(Setup::default())
}

fn start_ingest(change: impl FnOnce(&mut Ingest)) -> Server {
    start_with(Setup {
        ingest: Some(accept::countly::tests::config(change)),
        ..Setup::default()
    })
}

/// To be called within a runtime, on which the listener runs.
fn start_with(setup: Setup) -> Server {
    let mut registry = Registry::default();
    let config = gateway(setup.ingest, setup.anonymous);
    let (sender, config) = watch::channel(Arc::new(config));
    let router = Arc::new(Router::new(1));
    let store = Arc::new(Embedded::new(Arc::clone(&router) as _));
    let authentication = config.borrow().relay.authentication.clone();
    let authenticator = Authenticator::new(&authentication, &tokio::runtime::Handle::current());
    let memory = MemoryBudget::detect(Some(MEMORY_BYTES));
    let pressure = Pressure::new(1, memory, &mut registry);
    let queue = Arc::new(TestQueue::default());
    let (proxy, calls) = Proxy::new();
    let ids = AtomicU64::new(0);
    let accept = Accept::new(accept::Parts {
        config: config.clone(),
        queue: Arc::clone(&queue) as _,
        ids: Arc::new(move || EntryId(u128::from(ids.fetch_add(1, Ordering::Relaxed)))),
        proxy: Some(proxy),
        metrics: metrics::Metrics::register(&mut registry),
        pressure: Arc::clone(&pressure),
        connections_max: setup.connections_max,
    });
    let drain = Drain::new();
    let parts = Parts {
        config,
        broker: Arc::clone(&store) as _,
        presence: store as _,
        peers: Arc::new(crate::store::embedded::Alone),
        surveys: Arc::default(),
        router,
        pressure,
        metrics: Metrics::register(&mut registry),
        gate: Arc::default(),
        leave: watch::Sender::default().subscribe(),
        drain: drain.clone(),
        holder: Holder("node-1".into()),
        descriptors_max: 1_024,
        ingest: Some(accept),
    };
    let relay = Relay::start(parts, authenticator.expect("no key sets to load"));
    let relay = relay.expect("threads can be started");
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let listener = Listener::bind("test", &loopback, 0, setup.tls).expect("a free port");
    let address = listener.address;
    tokio::spawn(listener.accept(relay.clone(), drain.subscribe()));
    Server {
        address,
        queue,
        calls: Mutex::new(Some(calls)),
        drain,
        registry,
        config: sender,
        relay,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("listening")
    }

    /// Everything that is answered to these bytes until the server closes, or says nothing more.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> Exchange {
        let mut socket = self.connect().await;
        // The server may refuse and close before it has read all.
        let _ = socket.write_all(bytes.as_ref()).await;
        read_all(&mut socket).await
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("metrics are encodable");
        text
    }

    fn assert_counted(&self, line: &str) {
        let text = self.metrics();
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

struct Exchange {
    text: String,
    /// The server closed the connection.
    closed: bool,
}

impl Exchange {
    /// Of each answer, in order.
    fn statuses(&self) -> Vec<u16> {
        let lines = self.text.split("HTTP/1.1 ").skip(1);
        lines
            .map(|line| line[..3].parse().expect("a status"))
            .collect()
    }
}

async fn read_all(socket: &mut TcpStream) -> Exchange {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let mut wait = PATIENCE;
    let closed = loop {
        match timeout(wait, socket.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break true,
            Ok(Ok(read)) => text.extend_from_slice(&buffer[..read]),
            Err(_) => break false,
        }
        wait = QUIET;
    };
    Exchange {
        text: String::from_utf8_lossy(&text).into_owned(),
        closed,
    }
}

/// A POST of a form to `/i` that would be queued, as the application `shop`.
fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /i HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

const FORM: &str = "app_key=abc&device_id=d";
