//! A double of the API server, and objects to put into it.
//!
//! It stores what is applied, merged as far as these tests need it, and remembers what it was asked. It can be told to refuse
//! what is asked of a path. Its objects are put into a [`World`] by hand, in place of the watches.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panic")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::Client;
use kube::api::DynamicObject;
use kube::client::Body;
use serde_json::{Value, json};
use sluice_crds::manifest;
use tokio::sync::watch;
use tower_service::Service;

use crate::cluster::Writer;
use crate::events::Events;
use crate::external::Externals;
use crate::fleet::Fleets;
use crate::fleet::identity::Cluster;
use crate::gateway::Reconciler;
use crate::gateway::build::Validated;
use crate::gateway::dereference::Snapshot;
use crate::gateway::validate::{self, Defaults};
use crate::kinds::Kind;
use crate::leader::Leadership;
use crate::managed::Minder;
use crate::packed::Packed;
use crate::pods::PodView;
use crate::world::{Live, World};

/// What was asked, as in `PATCH /apis/apps/v1/namespaces/n/deployments/g`.
pub(crate) type Asked = String;

#[derive(Clone, Default)]
pub(crate) struct ApiServer {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    asked: Vec<Asked>,
    /// Ends of paths, and with what their writes are answered.
    refusals: Vec<(String, u16, String)>,
    version: u64,
}

impl ApiServer {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// What was asked since the last call, without reads, events, and words to kubelets.
    pub(crate) fn writes(&self) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| {
            let is_aside = asked.contains("/events") || asked.contains("/pods/");
            !asked.starts_with("GET") && !is_aside
        });
        asked
    }

    /// All that was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state
            .lock()
            .unwrap()
            .objects
            .insert(path.to_owned(), object);
    }

    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        edit(self.state.lock().unwrap().objects.get_mut(path).unwrap());
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.lock().unwrap().objects.remove(path).unwrap();
    }

    pub(crate) fn refuse(&self, path_end: &str, code: u16, message: &str) {
        let refusal = (path_end.to_owned(), code, message.to_owned());
        self.state.lock().unwrap().refusals.push(refusal);
    }

    pub(crate) fn allow_all(&self) {
        self.state.lock().unwrap().refusals.clear();
    }

    /// Shows a world what is stored, as watches would.
    pub(crate) fn show(&self, world: &World) {
        let state = self.state.lock().unwrap();
        let none = std::collections::BTreeSet::new();
        world.gateways.keep(None, &none);
        world.applications.keep(None, &none);
        for shelf in world.made.values() {
            shelf.keep(None, &none);
        }
        for value in state.objects.values() {
            let object: DynamicObject = serde_json::from_value(value.clone()).unwrap();
            let metadata = &object.metadata;
            let key = (
                metadata.namespace.clone().unwrap(),
                metadata.name.clone().unwrap(),
            );
            match value["kind"].as_str().unwrap() {
                "Gateway" => drop(world.gateways.put(key, Packed::new(&object, None))),
                "Application" => {
                    let packed = Packed::new(&object, crate::world::target_of(&object));
                    world.applications.put(key, packed);
                }
                kind => {
                    let kind = Kind::ALL
                        .into_iter()
                        .find(|known| known.name() == kind)
                        .unwrap();
                    let version = metadata.resource_version.clone().unwrap_or_default();
                    let versions = match kind.name() {
                        "Secret" => Some(&world.secrets),
                        "ConfigMap" => Some(&world.config_maps),
                        _ => None,
                    };
                    if let Some(versions) = versions {
                        versions.put(key.clone(), version);
                    }
                    if let Some(owner) = crate::world::owner_of(&object) {
                        world.made[&kind].put(key, Packed::new(&object, Some(owner)));
                    }
                }
            }
        }
    }

    fn answer(&self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let mut state = self.state.lock().unwrap();
        state.asked.push(format!("{method} {path}"));
        if path.contains("/events") {
            return (201, body.clone());
        }
        if path.contains("/pods/") {
            return (
                200,
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}),
            );
        }
        if *method != Method::GET
            && let Some((_, code, message)) = state
                .refusals
                .iter()
                .find(|(end, _, _)| path.ends_with(end))
        {
            return (*code, failure(*code, message));
        }
        let plain = path.strip_suffix("/status").unwrap_or(path).to_owned();
        let Some(mut object) = state.objects.get(&plain).cloned() else {
            if *method != Method::PATCH || path.ends_with("/status") {
                return (404, failure(404, "not found"));
            }
            state.version += 1;
            let mut object = body.clone();
            object["metadata"]["uid"] = format!("uid-{}", state.version).into();
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.objects.insert(plain, object.clone());
            return (201, object);
        };
        match *method {
            Method::PATCH => {
                let before = object.clone();
                merge(&mut object, body);
                if object != before {
                    state.version += 1;
                    object["metadata"]["resourceVersion"] = state.version.to_string().into();
                }
                state.objects.insert(plain, object.clone());
            }
            Method::DELETE => drop(state.objects.remove(&plain)),
            _ => {}
        }
        (200, object)
    }
}

/// Lists are replaced, null removes.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, from) in from {
                if from.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), from);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn failure(code: u16, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": message,
        "reason": if code == 404 { "NotFound" } else { "Refused" }, "code": code,
    })
}

impl Service<Request<Body>> for ApiServer {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (code, answer) = server.answer(&head.method, head.uri.path(), &body);
            let answer = Full::new(Bytes::from(answer.to_string()));
            let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
            Ok(response.body(answer).unwrap())
        })
    }
}

/// A reconciler on a double, and what it sees.
pub(crate) struct Stage {
    pub(crate) server: ApiServer,
    pub(crate) world: Arc<World>,
    pub(crate) reconciler: Reconciler,
}

pub(crate) const IMAGE: &str = "example.com/sluice:1";

impl Stage {
    pub(crate) fn new() -> Self {
        Self::on(ApiServer::default())
    }

    /// Another operator begins, which remembers nothing.
    pub(crate) fn restart(&mut self) {
        *self = Self::on(self.server.clone());
    }

    fn on(server: ApiServer) -> Self {
        let world = Arc::new(World::default());
        let client = server.client();
        let writer = Writer::new(client.clone(), Leadership::alone());
        let events = Events::new(client, "test");
        // No Redis is asked.
        let minder = Minder::new(writer.clone(), Arc::new(|_| {}));
        let reconciler = Reconciler::new(
            writer,
            Arc::clone(&world),
            defaults(),
            events,
            minder,
            Externals::new(Arc::new(|_| {}), 0),
            fleets(&world, server.client()),
        );
        Self {
            server,
            world,
            reconciler,
        }
    }

    /// Shows the world, and lets the Gateway `g` be looked at.
    pub(crate) async fn pass(&self) -> Vec<Asked> {
        self.server.show(&self.world);
        self.server.writes();
        let key = ("n".to_owned(), "g".to_owned());
        self.reconciler.reconcile(&key).await;
        self.server.writes()
    }

    /// Status and reason of a condition of the Gateway `g`.
    pub(crate) fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        let gateway = self.server.get(GATEWAY_PATH)?;
        let conditions = gateway["status"]["conditions"].as_array()?;
        let found = conditions
            .iter()
            .find(|condition| condition["type"] == kind)?;
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }
}

/// Managers of nobody: nothing says that this operator leads them.
fn fleets(world: &Arc<World>, client: Client) -> Arc<Fleets> {
    let (_, trusted) = watch::channel("TRUSTED".into());
    let keys = Cluster::new(client);
    Arc::new(Fleets::new(
        Arc::clone(world),
        keys,
        trusted,
        Arc::new(|_| {}),
    ))
}

pub(crate) fn defaults() -> Defaults {
    Defaults {
        data_plane_image: IMAGE.to_owned(),
        redis_image: "example.com/valkey:8".to_owned(),
        manager: "https://sluice-manager.sluice-system.svc:8443".to_owned(),
        operators: "sluice-system".to_owned(),
    }
}

pub(crate) const GATEWAY_PATH: &str = "/apis/sluice.dev/v1alpha1/namespaces/n/gateways/g";

/// The Gateway `g` in namespace `n`, with a spec in YAML.
pub(crate) fn gateway(spec: &str) -> Value {
    let spec: Value = serde_saphyr::from_str(spec).unwrap();
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Gateway",
        "metadata": {
            "name": "g", "namespace": "n", "uid": "uid-g", "generation": 1, "resourceVersion": "1"
        },
        "spec": spec,
    })
}

/// A ready pod of `g`.
pub(crate) fn pod(name: &str, ip: &str) -> PodView {
    PodView {
        namespace: "n".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        gateway: "g".to_owned(),
        component: "dataplane".to_owned(),
        ips: vec![ip.parse().unwrap()],
        node: Some("node-1".to_owned()),
        ready: true,
        ..PodView::default()
    }
}

/// The manifest of a Gateway `g` in namespace `n`.
pub(crate) const SMALL: &str = "
apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata: {name: g, namespace: n}
spec:
  listeners: [{name: clients, port: 8000}]
  relay: {authentication: {anonymous: Allowed}}
  redis: {external: {url: 'redis://redis'}}
";

/// The Gateway of a manifest, as if an API server had it.
pub(crate) fn validated(text: &str) -> Validated {
    let (objects, problems) = manifest::parse(&[("in.yaml".to_owned(), text.to_owned())]);
    assert_eq!(problems, []);
    let gateway = &objects.gateways[0];
    let live = serde_json::json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Gateway",
        "metadata": {"name": gateway.name, "namespace": gateway.namespace, "uid": "uid-g"},
        "spec": gateway.spec,
    });
    let snapshot = Snapshot {
        key: (gateway.namespace.clone(), gateway.name.clone()),
        gateway: Arc::new(serde_json::from_value(live).unwrap()),
        applications: Vec::new(),
        objects,
        live: Live::new(),
        pods: Vec::new(),
    };
    let judgement = validate::validate(&snapshot, &defaults(), Vec::new(), None);
    assert_eq!(judgement.problems, []);
    judgement.validated.unwrap()
}
