//! The watches that fill the [`World`], and what they tell of.
//!
//! One task per kind and namespace, or per kind when all namespaces are watched. A watch that breaks begins anew with a
//! list; nothing is forgotten meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use sluice_crds::application::Application;
use sluice_crds::gateway::Gateway;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::{Reference, World, owner_of, target_of};
use crate::kinds::Kind;
use crate::object::GATEWAY_LABEL;
use crate::packed::Packed;
use crate::pods::PodView;
use crate::shelf::Key;

/// What changed, by whom it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A Gateway, or something that belongs to it.
    Gateway(Key),
    /// A Secret or ConfigMap, to which some Gateways may refer.
    Reference(Reference),
    /// The labels of this namespace, by which Gateways may choose whose Applications they take.
    Namespace(String),
}

/// Takes changes; must not wait.
pub type Sink = Arc<dyn Fn(Change) + Send + Sync>;

/// What one watch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Gateways,
    Applications,
    Pods,
    Made(Kind),
    Secrets,
    ConfigMaps,
    Namespaces,
}

/// The running watches; dropping them ends them.
pub struct Watches {
    tasks: JoinSet<()>,
    synced: watch::Receiver<usize>,
}

impl Watches {
    /// Waits until every watch has listed what there is. Returns early when a watch has ended, which is a fault.
    pub async fn synced(&mut self) {
        let wanted = self.tasks.len();
        let mut synced = self.synced.clone();
        // The senders live in the tasks, which do not end.
        let _ = synced.wait_for(|synced| *synced >= wanted).await;
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// Watches these namespaces, or all when there are none.
pub fn start(client: &Client, namespaces: &[String], world: &Arc<World>, sink: &Sink) -> Watches {
    let (sender, synced) = watch::channel(0);
    let mut starter = Starter {
        client,
        world,
        sink,
        sender: Arc::new(sender),
        tasks: JoinSet::new(),
    };
    if namespaces.is_empty() {
        starter.namespace(None);
        // Labels of namespaces may be seen by those only who may see all namespaces.
        starter.metadata(
            Sort::Namespaces,
            &ApiResource::erase::<Namespace>(&()),
            None,
        );
    }
    for namespace in namespaces {
        starter.namespace(Some(namespace));
    }
    Watches {
        tasks: starter.tasks,
        synced,
    }
}

struct Starter<'a> {
    client: &'a Client,
    world: &'a Arc<World>,
    sink: &'a Sink,
    sender: Arc<watch::Sender<usize>>,
    tasks: JoinSet<()>,
}

impl Starter<'_> {
    fn namespace(&mut self, namespace: Option<&str>) {
        let all = Config::default();
        let of_gateways = Config::default().labels(GATEWAY_LABEL);
        let gateways = ApiResource::erase::<Gateway>(&());
        self.objects(Sort::Gateways, &gateways, namespace, all.clone());
        let applications = ApiResource::erase::<Application>(&());
        self.objects(Sort::Applications, &applications, namespace, all);
        let pods = ApiResource::erase::<Pod>(&());
        self.objects(Sort::Pods, &pods, namespace, of_gateways.clone());
        for kind in Kind::ALL {
            let resource = kind.resource();
            self.objects(Sort::Made(kind), &resource, namespace, of_gateways.clone());
        }
        self.metadata(Sort::Secrets, &ApiResource::erase::<Secret>(&()), namespace);
        self.metadata(
            Sort::ConfigMaps,
            &ApiResource::erase::<ConfigMap>(&()),
            namespace,
        );
    }

    fn api(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        let client = self.client.clone();
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        }
    }

    fn objects(
        &mut self,
        sort: Sort,
        resource: &ApiResource,
        namespace: Option<&str>,
        config: Config,
    ) {
        let events = watcher(self.api(resource, namespace), config).default_backoff();
        self.spawn(sort, namespace, events);
    }

    fn metadata(&mut self, sort: Sort, resource: &ApiResource, namespace: Option<&str>) {
        let client = self.client.clone();
        let api: Api<PartialObjectMeta<DynamicObject>> = match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        };
        let events = watcher(api, Config::default()).default_backoff();
        let events = events.map(|event| event.map(whole));
        self.spawn(sort, namespace, events);
    }

    fn spawn(
        &mut self,
        sort: Sort,
        namespace: Option<&str>,
        events: impl Stream<Item = watcher::Result<Event<DynamicObject>>> + Send + 'static,
    ) {
        let follower = Follower {
            sort,
            namespace: namespace.map(str::to_owned),
            world: Arc::clone(self.world),
            sink: Arc::clone(self.sink),
            listed: None,
        };
        let synced = Arc::clone(&self.sender);
        self.tasks.spawn(follower.follow(events, synced));
    }
}

fn whole(event: Event<PartialObjectMeta<DynamicObject>>) -> Event<DynamicObject> {
    let object = |part: PartialObjectMeta<DynamicObject>| DynamicObject {
        types: part.types,
        metadata: part.metadata,
        data: serde_json::Value::Null,
    };
    match event {
        Event::Apply(part) => Event::Apply(object(part)),
        Event::Delete(part) => Event::Delete(object(part)),
        Event::Init => Event::Init,
        Event::InitApply(part) => Event::InitApply(object(part)),
        Event::InitDone => Event::InitDone,
    }
}

struct Follower {
    sort: Sort,
    namespace: Option<String>,
    world: Arc<World>,
    sink: Sink,
    /// What a list that is under way has shown.
    listed: Option<BTreeSet<Key>>,
}

impl Follower {
    async fn follow(
        mut self,
        events: impl Stream<Item = watcher::Result<Event<DynamicObject>>>,
        synced: Arc<watch::Sender<usize>>,
    ) {
        pin_mut!(events);
        let mut is_synced = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let done = matches!(event, Event::InitDone);
                    self.event(event);
                    if done && !is_synced {
                        is_synced = true;
                        debug!(sort = ?self.sort, "listed");
                        synced.send_modify(|synced| *synced += 1);
                    }
                }
                Err(failure) => warn!(sort = ?self.sort, %failure, "watch broken, begun anew"),
            }
        }
    }

    fn event(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listed = Some(BTreeSet::new()),
            Event::InitApply(object) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key(&object));
                }
                self.put(object);
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                self.keep(&listed);
            }
            Event::Apply(object) => self.put(object),
            Event::Delete(object) => self.remove(&key(&object), &object),
        }
    }

    fn put(&self, mut object: DynamicObject) {
        // They are about half of an object, and nobody here reads them.
        object.metadata.managed_fields = None;
        let key = key(&object);
        let world = &self.world;
        let version = |object: &DynamicObject| {
            let version = object.metadata.resource_version.clone();
            version.unwrap_or_default()
        };
        match self.sort {
            Sort::Gateways => {
                world.gateways.put(key.clone(), Packed::new(&object, None));
                self.tell(Change::Gateway(key));
            }
            Sort::Applications => {
                let packed = Packed::new(&object, target_of(&object));
                self.tell_gateway(packed.gateway());
                if let Some(former) = world.applications.put(key, packed) {
                    self.tell_gateway(former.gateway());
                }
            }
            Sort::Pods => {
                let pod = PodView::of(&object);
                let gateway = (pod.namespace.clone(), pod.gateway.clone());
                let same = world
                    .pods
                    .get(&key.0, &key.1)
                    .is_some_and(|had| *had == pod);
                if !same {
                    world.pods.put(key, pod);
                    self.tell(Change::Gateway(gateway));
                }
            }
            Sort::Made(kind) => {
                let packed = Packed::new(&object, owner_of(&object));
                self.tell_gateway(packed.gateway());
                let shelf = world.made.get(&kind);
                if let Some(former) = shelf.and_then(|shelf| shelf.put(key, packed)) {
                    self.tell_gateway(former.gateway());
                }
            }
            Sort::Secrets => {
                world.secrets.put(key.clone(), version(&object));
                self.tell(Change::Reference(Reference::Secret(key.0, key.1)));
            }
            Sort::ConfigMaps => {
                world.config_maps.put(key.clone(), version(&object));
                self.tell(Change::Reference(Reference::ConfigMap(key.0, key.1)));
            }
            Sort::Namespaces => {
                let labels = object.metadata.labels.unwrap_or_default();
                let same = world
                    .namespaces
                    .get(&key.0, &key.1)
                    .is_some_and(|had| *had == labels);
                if !same {
                    world.namespaces.put(key.clone(), labels);
                    self.tell(Change::Namespace(key.1));
                }
            }
        }
    }

    fn remove(&self, key: &Key, last: &DynamicObject) {
        let world = &self.world;
        let gone = key.clone();
        match self.sort {
            Sort::Gateways => {
                world.gateways.remove(key);
                self.tell(Change::Gateway(gone));
            }
            Sort::Applications => {
                let former = world.applications.remove(key);
                self.tell_gateway(
                    former.map_or_else(|| target_of(last), |former| former.gateway()),
                );
            }
            Sort::Pods => {
                if let Some(pod) = world.pods.remove(key) {
                    self.tell(Change::Gateway((
                        pod.namespace.clone(),
                        pod.gateway.clone(),
                    )));
                }
            }
            Sort::Made(kind) => {
                let former = world.made.get(&kind).and_then(|shelf| shelf.remove(key));
                self.tell_gateway(former.map_or_else(|| owner_of(last), |former| former.gateway()));
            }
            Sort::Secrets => {
                world.secrets.remove(key);
                self.tell(Change::Reference(Reference::Secret(gone.0, gone.1)));
            }
            Sort::ConfigMaps => {
                world.config_maps.remove(key);
                self.tell(Change::Reference(Reference::ConfigMap(gone.0, gone.1)));
            }
            Sort::Namespaces => {
                world.namespaces.remove(key);
                self.tell(Change::Namespace(gone.1));
            }
        }
    }

    /// Removes what a new list does not have.
    fn keep(&self, listed: &BTreeSet<Key>) {
        let world = &self.world;
        let namespace = self.namespace.as_deref();
        match self.sort {
            Sort::Gateways => {
                for (key, _) in world.gateways.keep(namespace, listed) {
                    self.tell(Change::Gateway(key));
                }
            }
            Sort::Applications => {
                for (_, application) in world.applications.keep(namespace, listed) {
                    self.tell_gateway(application.gateway());
                }
            }
            Sort::Pods => {
                for (_, pod) in world.pods.keep(namespace, listed) {
                    self.tell(Change::Gateway((
                        pod.namespace.clone(),
                        pod.gateway.clone(),
                    )));
                }
            }
            Sort::Made(kind) => {
                let shelf = world.made.get(&kind).into_iter();
                for (_, object) in shelf.flat_map(|shelf| shelf.keep(namespace, listed)) {
                    self.tell_gateway(object.gateway());
                }
            }
            Sort::Secrets => {
                for ((namespace, name), _) in world.secrets.keep(namespace, listed) {
                    self.tell(Change::Reference(Reference::Secret(namespace, name)));
                }
            }
            Sort::ConfigMaps => {
                for ((namespace, name), _) in world.config_maps.keep(namespace, listed) {
                    self.tell(Change::Reference(Reference::ConfigMap(namespace, name)));
                }
            }
            Sort::Namespaces => {
                for ((_, name), _) in world.namespaces.keep(None, listed) {
                    self.tell(Change::Namespace(name));
                }
            }
        }
    }

    fn tell(&self, change: Change) {
        (self.sink)(change);
    }

    fn tell_gateway(&self, gateway: Option<Key>) {
        if let Some(gateway) = gateway {
            self.tell(Change::Gateway(gateway));
        }
    }
}

/// Namespace, which is empty for what has none, and name.
fn key(object: &DynamicObject) -> Key {
    let metadata = &object.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}
