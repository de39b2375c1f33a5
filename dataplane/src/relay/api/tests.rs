//! The server API over an in-process store; no worker runs, the tests look into the mailboxes themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use sluice_crds::config::{
    Allowed, Authentication, Drain as DrainConfig, Feature, GatewayConfig, Heartbeat, History,
    Limits, Namespace, Relay, Secret,
};
use tokio::sync::watch;

use super::*;
use crate::auth::Authenticator;
use crate::drain::Drain;
use crate::pressure::Pressure;
use crate::relay::metrics::Metrics;
use crate::relay::router::Router;
use crate::relay::shared::Parts;
use crate::resources::MemoryBudget;
use crate::store::embedded::{Alone, Embedded};
use crate::store::{Holder, Peers, Presence};

mod http;
mod orders;
mod stores;

pub(super) const KEY: &str = "secret-key";
pub(super) const WORKERS: usize = 2;

pub(super) fn namespace(history: bool, presence: bool) -> Arc<Namespace> {
    Arc::new(Namespace {
        presence,
        join_leave: Feature::Disabled,
        history: history.then_some(History {
            size: 10,
            ttl: Duration::from_secs(60),
        }),
        recovery: Feature::Disabled,
        positioning: Feature::Disabled,
        delta: false,
        subscribe: Allowed::Anyone,
        publish: Allowed::Anyone,
        ask_presence: Allowed::Anyone,
        ask_history: Allowed::Anyone,
    })
}

/// No namespace: neither history nor presence; `full:` has both.
pub(in crate::relay) fn config(key: Option<&str>) -> GatewayConfig {
    GatewayConfig {
        name: "edge".to_owned(),
        namespace: "default".to_owned(),
        listeners: Vec::new(),
        relay: Relay {
            authentication: Authentication {
                jwt: None,
                anonymous: true,
                expiry_grace: Duration::from_secs(25),
            },
            default_namespace: namespace(false, false),
            namespaces: BTreeMap::from([("full".to_owned(), namespace(true, true))]),
            personal_channel: false,
            limits: Limits {
                message_bytes: 65_536,
                queue_bytes_per_client: 1 << 20,
                channels_per_client: 128,
                channel_name_bytes: 255,
                connections: None,
                connections_per_account: None,
                connections_per_second: None,
                messages_per_second_per_client: None,
                commands_per_second_per_client: None,
                messages_per_second_per_account: None,
            },
            heartbeat: Heartbeat {
                interval: Duration::from_secs(25),
                timeout: Duration::from_secs(8),
            },
            server_api_key: key.map(|key| Secret::new(key.as_bytes())),
        },
        ingest: None,
        redis: None,
        data_planes_max: 1,
        drain: DrainConfig {
            timeout: Duration::from_secs(30),
        },
    }
}

pub(super) fn shared_with(key: Option<&str>) -> Arc<Shared> {
    make_shared(key, Arc::new(Alone))
}

pub(in crate::relay) fn shared_with_peers(peers: Arc<dyn Peers>) -> Arc<Shared> {
    make_shared(Some(KEY), peers)
}

fn make_shared(key: Option<&str>, peers: Arc<dyn Peers>) -> Arc<Shared> {
    let registry = &mut Registry::default();
    let (_, config) = watch::channel(Arc::new(config(key)));
    let router = Arc::new(Router::new(WORKERS));
    let store = Arc::new(Embedded::new(Arc::clone(&router) as _));
    let authenticator = Authenticator::new(
        &config.borrow().relay.authentication,
        &tokio::runtime::Handle::current(),
    );
    let parts = Parts {
        config,
        broker: Arc::clone(&store) as _,
        presence: store as _,
        peers,
        surveys: Arc::default(),
        router,
        pressure: Pressure::new(WORKERS, MemoryBudget::detect(None), registry),
        metrics: Metrics::register(registry),
        gate: Arc::default(),
        leave: watch::Sender::default().subscribe(),
        drain: Drain::new(),
        holder: Holder("node-1".into()),
        descriptors_max: 1_024,
        ingest: None,
    };
    Shared::new(parts, authenticator.expect("no key sets to load"))
}

pub(in crate::relay) fn shared() -> Arc<Shared> {
    shared_with(Some(KEY))
}

pub(super) async fn send(
    shared: &Arc<Shared>,
    request: Request<Full<Bytes>>,
) -> (StatusCode, String) {
    let response = handle(shared, request).await;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a full body")
        .to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

pub(super) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder()
        .method("POST")
        .uri(path)
        .header("X-API-Key", KEY);
    request.body(Full::new(body.into())).expect("a request")
}

/// The text of the answer to a good request.
pub(super) async fn call_text(
    shared: &Arc<Shared>,
    method: &str,
    body: impl Into<Bytes>,
) -> String {
    let (status, text) = send(shared, post(&format!("/api/{method}"), body)).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    text
}

pub(in crate::relay) async fn call(shared: &Arc<Shared>, method: &str, body: Value) -> Value {
    let text = call_text(shared, method, body.to_string()).await;
    serde_json::from_str(&text).expect("JSON")
}

pub(super) fn error(code: u32, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

pub(super) fn bad_request() -> Value {
    error(107, "bad request")
}
