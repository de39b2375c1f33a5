//! Passes over managed Redis: observe, plan, execute, one at a time for each, beside everything else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::api::ApiResource;
use rustls::ClientConfig;
use sluice_crds::gateway::{RedisStatus, ShardStatus};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::shard_name;
use crate::cluster::Writer;
use crate::gateway::status::RedisFacts;
use crate::kinds::Kind;
use crate::object::Owner;
use crate::pods::PodView;
use crate::redis::config::{PORT, Passwords};
use crate::redis::{
    Connector, Decision, HoldReason, Memory, Pod, Pods, SLOTS, Wanted, execute, observe, plan,
};
use crate::shelf::Key;
use crate::world::Live;

/// After a pass that was cut off.
const AGAIN_AFTER_LOSS: Duration = Duration::from_secs(2);

/// Called with the Gateway when its Redis has something new to say.
pub type Wake = Arc<dyn Fn(Key) + Send + Sync>;

pub struct Minder {
    writer: Writer,
    states: Arc<Mutex<HashMap<Key, State>>>,
    passes: Mutex<JoinSet<()>>,
    wake: Wake,
}

/// What is remembered of a Redis.
struct State {
    is_running: bool,
    due: Instant,
    decision: Option<Decision>,
}

/// A Redis to look after.
pub struct Subject {
    pub owner: Owner,
    pub wanted: Wanted,
    pub passwords: Passwords,
    pub tls: Option<Tls>,
    pub pods: Vec<Pod>,
}

/// How its servers are told to be the right ones.
#[derive(Clone)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    pub server_name: Option<String>,
}

impl Subject {
    /// `pods` are those of the Redis.
    pub fn new(
        owner: &Owner,
        wanted: Wanted,
        passwords: Passwords,
        tls: Option<Tls>,
        pods: &[Arc<PodView>],
        live: &Live,
    ) -> Self {
        let pods = pods
            .iter()
            .filter(|pod| !pod.ended)
            .filter_map(|pod| pod_of(owner, pod, live))
            .collect();
        Self {
            owner: owner.clone(),
            wanted,
            passwords,
            tls,
            pods,
        }
    }
}

fn pod_of(owner: &Owner, pod: &PodView, live: &Live) -> Option<Pod> {
    let shard = pod.shard?;
    let set = live.get(&(Kind::StatefulSet, shard_name(owner, shard)));
    let number = |pointer: &str| set?.data.pointer(pointer)?.as_i64();
    let is_current =
        number("/status/observedGeneration") >= set.and_then(|set| set.metadata.generation);
    let revision = set.and_then(|set| set.data.pointer("/status/updateRevision")?.as_str());
    let is_outdated = is_current && revision.is_some_and(|revision| revision != pod.revision);
    let (_, ordinal) = pod.name.rsplit_once('-')?;
    Some(Pod {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        shard,
        ordinal: ordinal.parse().ok()?,
        node: pod.node.clone(),
        ip: pod.ips.first().copied(),
        is_ready: pod.ready,
        is_outdated,
        is_deleting: pod.terminating,
    })
}

impl Minder {
    pub fn new(writer: Writer, wake: Wake) -> Self {
        Self {
            writer,
            states: Arc::default(),
            passes: Mutex::default(),
            wake,
        }
    }

    /// Begins a pass, unless one is under way or it is not time yet.
    pub fn look(&self, key: &Key, subject: Subject) {
        let memory = {
            let mut states = lock(&self.states);
            let state = states.entry(key.clone()).or_insert_with(|| State {
                is_running: false,
                due: Instant::now(),
                decision: None,
            });
            if state.is_running || Instant::now() < state.due {
                return;
            }
            state.is_running = true;
            let decision = state.decision.as_ref();
            decision
                .map(|decision| decision.memory.clone())
                .unwrap_or_default()
        };
        let (writer, wake) = (self.writer.clone(), Arc::clone(&self.wake));
        let running = Running {
            key: key.clone(),
            states: Arc::clone(&self.states),
        };
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        while passes.try_join_next().is_some() {}
        passes.spawn(async move {
            let decision = pass(&writer, subject, memory).await;
            if let Some(state) = lock(&running.states).get_mut(&running.key) {
                state.due = Instant::now() + decision.again;
                state.decision = Some(decision);
            }
            let key = running.key.clone();
            drop(running);
            wake(key);
        });
    }

    /// When the next pass is due; `None` while one is under way, which wakes by itself.
    pub fn due(&self, key: &Key) -> Option<Duration> {
        let states = lock(&self.states);
        let state = states.get(key).filter(|state| !state.is_running)?;
        Some(state.due.saturating_duration_since(Instant::now()))
    }

    pub fn forget(&self, key: &Key) {
        lock(&self.states).remove(key);
    }

    /// What was remembered before another operator led is out of date.
    pub fn forget_all(&self) {
        lock(&self.states).clear();
    }

    /// Whether there was a pass since this operator leads.
    pub fn has_looked(&self, key: &Key) -> bool {
        let states = lock(&self.states);
        states
            .get(key)
            .is_some_and(|state| state.decision.is_some())
    }

    /// Pods that each shard may have; empty before the first pass.
    pub fn pods(&self, key: &Key) -> Vec<u32> {
        let states = lock(&self.states);
        let decision = states.get(key).and_then(|state| state.decision.as_ref());
        decision
            .map(|decision| decision.pods.clone())
            .unwrap_or_default()
    }

    pub fn facts(&self, key: &Key, owner: &Owner, pods: &[Arc<PodView>]) -> RedisFacts {
        let states = lock(&self.states);
        let decision = states.get(key).and_then(|state| state.decision.as_ref());
        facts(decision, owner, pods)
    }

    /// Cuts off what is under way: every step is safe to be left half done.
    pub async fn stop(&self) {
        let mut passes =
            std::mem::take(&mut *self.passes.lock().unwrap_or_else(PoisonError::into_inner));
        passes.shutdown().await;
    }
}

fn lock(states: &Mutex<HashMap<Key, State>>) -> MutexGuard<'_, HashMap<Key, State>> {
    states.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the next pass begin however this one ends.
struct Running {
    key: Key,
    states: Arc<Mutex<HashMap<Key, State>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(state) = lock(&self.states).get_mut(&self.key) {
            state.is_running = false;
            state.due = state.due.max(Instant::now() + Duration::from_millis(100));
        }
    }
}

async fn pass(writer: &Writer, subject: Subject, memory: Memory) -> Decision {
    let connector = Connector {
        port: PORT,
        username: Some("operator".to_owned()),
        password: Some(subject.passwords.operator.clone()),
        tls: subject.tls.as_ref().map(|tls| Arc::clone(&tls.config)),
        server_name: subject.tls.and_then(|tls| tls.server_name),
    };
    let owner = subject.owner;
    let seen = observe(subject.pods, subject.wanted.shape, &connector).await;
    let mut decision = plan(&seen, &subject.wanted, memory, Instant::now());
    if decision.steps.is_empty() {
        return decision;
    }
    let deleter = Deleter {
        writer: writer.clone(),
        namespace: owner.namespace.clone(),
    };
    tokio::select! {
        executed = execute(&decision.steps, &connector, &deleter) => {
            for step in &executed.done {
                info!(gateway = owner.name, %step, "redis");
            }
            for failure in &executed.failed {
                warn!(gateway = owner.name, %failure, "redis");
            }
        }
        () = writer.lost() => decision.again = AGAIN_AFTER_LOSS,
    }
    decision
}

struct Deleter {
    writer: Writer,
    namespace: String,
}

#[async_trait]
impl Pods for Deleter {
    async fn delete(&self, name: &str, uid: &str) -> Result<(), String> {
        let resource = ApiResource::erase::<PodObject>(&());
        let deleted = self
            .writer
            .delete_by(&resource, &self.namespace, name, Some(uid));
        deleted.await.map_err(|failure| failure.to_string())
    }
}

fn facts(decision: Option<&Decision>, owner: &Owner, pods: &[Arc<PodView>]) -> RedisFacts {
    let running = pods
        .iter()
        .filter(|pod| pod.ready && !pod.terminating)
        .count();
    let Some(decision) = decision else {
        return RedisFacts::Managed {
            ready: false,
            reason: "Starting",
            message: "its servers have not been looked at yet".to_owned(),
            status: RedisStatus::default(),
        };
    };
    let summary = &decision.summary;
    let covered = summary.slots_covered >= SLOTS;
    let (reason, message) = match &decision.hold {
        Some(hold) => (name(hold.reason), hold.message.clone()),
        None if summary.is_healthy => ("Ready", "all of it is in order".to_owned()),
        None => {
            let trouble = pods
                .iter()
                .find_map(|pod| pod.trouble.as_deref().map(|why| (pod, why)));
            let message = match trouble {
                Some((pod, why)) => format!("{}: {why}", pod.name),
                None => "being put in order".to_owned(),
            };
            ("Progressing", message)
        }
    };
    let shards = summary
        .shards
        .iter()
        .zip(0..)
        .map(|(shard, index)| ShardStatus {
            name: shard_name(owner, index),
            primary: shard.primary.clone().unwrap_or_default(),
            synced_replicas: i32::try_from(shard.replicas_in_sync).unwrap_or(i32::MAX),
        });
    RedisFacts::Managed {
        ready: covered,
        reason,
        message,
        status: RedisStatus {
            ready: format!("{running}/{}", summary.pods_wanted),
            shards: shards.collect(),
        },
    }
}

fn name(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::DataLost => "DataLost",
        HoldReason::DataPresent => "DataPresent",
        HoldReason::DuplicateIdentity => "DuplicateIdentity",
        HoldReason::UnexpectedLayout => "UnexpectedLayout",
        HoldReason::QuorumLost => "QuorumLost",
        HoldReason::NoReplicaInSync => "NoReplicaInSync",
        HoldReason::DataLossNotAllowed => "DataLossNotAllowed",
        HoldReason::WaitingForFailover => "WaitingForFailover",
        HoldReason::WaitingForPods => "WaitingForPods",
        HoldReason::WaitingForSync => "WaitingForSync",
    }
}
