//! Reconciles a Gateway: dereference, validate, build, apply, status, one file each.
//!
//! This file drives the steps and owns what is remembered between two passes over a Gateway: what was valid last (see
//! `last_good`), and when its status was written. Every pass begins with what is there; what is remembered only spares writes.

pub mod apply;
pub mod build;
mod compare;
pub mod dereference;
mod last_good;
mod overlay;
mod redis;
pub mod scaling;
pub mod status;
pub mod validate;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject};
use serde_json::{Value, json};
use sluice_crds::gateway::{Gateway, GatewayStatus, ScalingOperation};
use tracing::{debug, warn};

use crate::application;
use crate::cluster::{WriteError, Writer};
use crate::events::Events;
use crate::external::Externals;
use crate::fleet::{self, Fleets};
use crate::kinds::Kind;
use crate::limits::{KUBELET_LAG, RESYNC, RETRY_PENDING, STATUS_INTERVAL};
use crate::managed::Minder;
use crate::object::{DATA_PLANE, Owner};
use crate::pods::{CONFIG_ANNOTATION, DELETION_COST_ANNOTATION, GOES_FIRST, PodView};
use crate::queue::Outcome;
use crate::redis::config::Passwords;
use crate::shelf::Key;
use crate::world::{Reference, References, World};
use apply::Applied;
use build::Validated;
use dereference::Snapshot;
use scaling::Known;
use status::Facts;
use validate::{Defaults, Judgement};

/// What all passes share.
pub struct Reconciler {
    pub writer: Writer,
    pub world: Arc<World>,
    pub references: References,
    pub defaults: Defaults,
    pub events: Events,
    pub minder: Minder,
    pub externals: Externals,
    pub fleets: Arc<Fleets>,
    pub memory: Mutex<HashMap<Key, Memory>>,
}

/// What is remembered of a Gateway.
#[derive(Debug, Default)]
pub struct Memory {
    /// Of the Gateway: another one may get its name.
    uid: Option<String>,
    /// What was valid last, to be kept up while the Gateway is not.
    last_good: Option<Validated>,
    /// What it and its Applications refer to.
    references: BTreeSet<Reference>,
    status_written: Option<Instant>,
    /// For how many pods Kubernetes was asked, and in which term of leading: another operator may have asked for others since.
    asked: Option<(Option<u64>, i32)>,
    /// Of the Redis that the operator runs: should their Secret be deleted by hand, it is made again with these.
    passwords: Option<Passwords>,
}

impl Reconciler {
    pub fn new(
        writer: Writer,
        world: Arc<World>,
        defaults: Defaults,
        events: Events,
        minder: Minder,
        externals: Externals,
        fleets: Arc<Fleets>,
    ) -> Self {
        Self {
            minder,
            externals,
            fleets,
            writer,
            world,
            references: References::default(),
            defaults,
            events,
            memory: Mutex::new(HashMap::new()),
        }
    }

    /// One pass over a Gateway.
    pub async fn reconcile(&self, key: &Key) -> Outcome {
        let known = self.world.gateways.get(&key.0, &key.1);
        let Some(gateway) = known.and_then(|known| known.unpack()).map(Arc::new) else {
            return self.gone(key).await;
        };
        // What belongs to it is deleted by Kubernetes; made again it would hold that up.
        if gateway.metadata.deletion_timestamp.is_some() {
            return Outcome::Settled;
        }
        match self.pass(key, gateway).await {
            Ok(outcome) => outcome,
            // The one who leads now looks at everything.
            Err(WriteError::NotLeading) => Outcome::Settled,
            Err(WriteError::Refused(why) | WriteError::Failed(why)) => {
                warn!(gateway = %format!("{}/{}", key.0, key.1), why, "not reconciled");
                Outcome::Failed
            }
        }
    }

    /// The Gateways that refer to an object.
    pub fn referring(&self, reference: &Reference) -> Vec<Key> {
        let memory = self.memory();
        let referring = memory
            .iter()
            .filter(|(_, memory)| memory.references.contains(reference));
        referring.map(|(key, _)| key.clone()).collect()
    }

    async fn gone(&self, key: &Key) -> Outcome {
        {
            let mut memory = self.memory();
            memory.remove(key);
            let is_wanted = |reference: &Reference| {
                let mut all = memory.values();
                all.any(|memory| memory.references.contains(reference))
            };
            self.references.retain(is_wanted);
        }
        self.minder.forget(key);
        self.externals.forget(key);
        self.fleets.forget(key);
        let applications = dereference::applications_of(&self.world, key);
        match application::orphaned(&self.writer, key, &applications).await {
            Ok(()) => Outcome::Settled,
            Err(WriteError::NotLeading) => Outcome::Settled,
            Err(WriteError::Refused(_) | WriteError::Failed(_)) => Outcome::Failed,
        }
    }

    async fn pass(&self, key: &Key, gateway: Arc<DynamicObject>) -> Result<Outcome, WriteError> {
        self.renew(key, &gateway);
        let applications = dereference::applications_of(&self.world, key);
        let wanted = dereference::references(&gateway, &applications);
        self.remember(key, |memory| memory.references.clone_from(&wanted));
        let snapshot = dereference::dereference(
            self.writer.client(),
            &self.world,
            &self.references,
            gateway,
            applications,
            &wanted,
        );
        let mut snapshot = snapshot
            .await
            .map_err(|failure| WriteError::Failed(failure.to_string()))?;
        let redis = self.managed_redis(&mut snapshot).await?;
        let running = self.running_config(&snapshot);
        let judgement = validate::validate(&snapshot, &self.defaults, redis, running.as_deref());
        let valid = self.valid(&mut snapshot, &judgement).await?;
        let valid = valid.map(|valid| self.led(&snapshot, valid));
        let applied = match &valid {
            Some(valid) if !judgement.paused => {
                self.name_victim(&snapshot).await?;
                let applied = self.apply(&snapshot, valid).await?;
                let asked = applied.failed.is_empty() && applied.refused.is_empty();
                let asked = asked.then(|| (self.fleets.term(), valid.replicas));
                self.remember(key, |memory| memory.asked = asked);
                Some(applied)
            }
            Some(_) | None => None,
        };
        if let (Some(valid), Some(applied)) = (&valid, &applied) {
            self.mind_redis(&snapshot, valid);
            self.hasten(&snapshot, valid, applied).await?;
        }
        // What is kept up of a former spec is not what this one asks for.
        let told = applied.as_ref().filter(|_| judgement.problems.is_empty());
        let status = self.status(&snapshot, &judgement, valid.as_ref(), told);
        // After a change of operators, what is told of Redis stays until it was looked at, within seconds.
        let is_unseen = status.redis.is_some() && !self.minder.has_looked(key);
        if applied.is_some() && is_unseen && !former(&snapshot).conditions.is_empty() {
            return Ok(Outcome::Again(RETRY_PENDING));
        }
        let spared = self.write_status(&snapshot, &status).await?;
        application::report(&self.writer, &snapshot, &judgement, &status).await?;
        let redis_in = applied.as_ref().and_then(|_| self.minder.due(key));
        Ok(next(applied.as_ref(), [spared, redis_in]))
    }

    /// With what the manager adds, which hears of it first.
    fn led(&self, snapshot: &Snapshot, mut valid: Validated) -> Validated {
        let there = self.there(snapshot);
        // Until those that are too many are gone, safe rates are to fit for all.
        let most = there
            .and_then(|there| u32::try_from(there).ok())
            .unwrap_or(0);
        if most > valid.config.data_planes_max {
            Arc::make_mut(&mut valid.config).data_planes_max = most;
        }
        let policy = fleet::policy(&valid, &snapshot.gateway);
        let (key, pods) = (&snapshot.key, &snapshot.pods);
        self.fleets.feed(key, policy, &valid.config, pods, there);
        let plan = self.fleets.plan(&snapshot.key);
        let known = Known {
            there,
            former: former(snapshot).wanted_replicas,
            decision: plan.as_ref().and_then(|plan| plan.scale.as_ref()),
            paused: valid.spec.operation.scaling == ScalingOperation::Paused,
        };
        let has_redis = valid.config.redis.is_some();
        Validated {
            replicas: scaling::replicas(&valid.spec.data_plane.scaling, has_redis, known),
            trusted: self.fleets.trusted(),
            ..valid
        }
    }

    /// For how many pods Kubernetes was asked. What somebody wrote into the Deployment besides is nobody's wish.
    fn there(&self, snapshot: &Snapshot) -> Option<i32> {
        let written = snapshot.replicas()?;
        let memory = self.memory();
        let asked = memory.get(&snapshot.key).and_then(|memory| memory.asked);
        let own = asked.filter(|(term, _)| *term == self.fleets.term());
        Some(own.map_or(written, |(_, asked)| asked))
    }

    /// Has Kubernetes remove the pod that the manager chose when there are to be fewer, and no other.
    async fn name_victim(&self, snapshot: &Snapshot) -> Result<(), WriteError> {
        let plan = self.fleets.plan(&snapshot.key);
        let scale = plan.as_ref().and_then(|plan| plan.scale.as_ref());
        let victim = scale.and_then(|scale| scale.victim.as_deref());
        let staying = snapshot
            .pods
            .iter()
            .filter(|pod| !pod.terminating && !pod.ended);
        for pod in staying {
            let goes = victim == Some(pod.name.as_str());
            if goes == pod.goes_first {
                continue;
            }
            // Without it another one goes, and drains by itself.
            let cost = goes.then_some(GOES_FIRST);
            self.annotate(pod, DELETION_COST_ANNOTATION, cost).await?;
        }
        Ok(())
    }

    /// Where it fails the pod is gone, or does without.
    async fn annotate(
        &self,
        pod: &PodView,
        annotation: &str,
        value: Option<&str>,
    ) -> Result<(), WriteError> {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        let pods = ApiResource::erase::<Pod>(&());
        let told = self.writer.merge(&pods, &pod.namespace, &pod.name, &patch);
        match told.await {
            Err(WriteError::NotLeading) => Err(WriteError::NotLeading),
            Err(why) => {
                debug!(pod = pod.name, annotation, %why, "pod not annotated");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Has kubelets look at the configuration of pods now, and not within the next minute.
    async fn hasten(
        &self,
        snapshot: &Snapshot,
        valid: &Validated,
        applied: &Applied,
    ) -> Result<(), WriteError> {
        let digest = build::config_digest(valid);
        let late = snapshot.pods.iter().filter(|pod| {
            pod.config != digest && pod.node.is_some() && !pod.terminating && !pod.ended
        });
        let late: Vec<_> = late.collect();
        if applied.writes > 0 && !late.is_empty() {
            tokio::time::sleep(KUBELET_LAG).await;
        }
        for pod in late {
            // Without it the kubelet sees the change by itself, later.
            self.annotate(pod, CONFIG_ANNOTATION, Some(&digest)).await?;
        }
        Ok(())
    }

    async fn apply(&self, snapshot: &Snapshot, valid: &Validated) -> Result<Applied, WriteError> {
        let owner = &valid.owner;
        let name = build::revision_name(owner, &build::inputs(valid));
        let revision = self
            .known(Kind::ControllerRevision, &name, owner, snapshot)
            .await?;
        let revision = revision.map(|revision| revision.data.clone());
        let pinned = revision.as_ref().and_then(build::template_of);
        let fenced = self.fleets.fenced(&snapshot.key);
        let prepared = build::build(valid, &snapshot.pods, &fenced, pinned);
        apply::apply(&self.writer, owner, prepared, &snapshot.live).await
    }

    /// An object of this Gateway as the watch shows it, or, when the watch is late, as it is.
    async fn known(
        &self,
        kind: Kind,
        name: &str,
        owner: &Owner,
        snapshot: &Snapshot,
    ) -> Result<Option<Arc<DynamicObject>>, WriteError> {
        if let Some(known) = snapshot.live.get(&(kind, name.to_owned())) {
            return Ok(Some(Arc::clone(known)));
        }
        let asked = self.writer.get(kind, &owner.namespace, name).await?;
        Ok(asked.map(Arc::new))
    }

    fn status(
        &self,
        snapshot: &Snapshot,
        judgement: &Judgement,
        valid: Option<&Validated>,
        applied: Option<&Applied>,
    ) -> GatewayStatus {
        let owner = validate::owner(snapshot);
        let key = (Kind::Deployment, owner.name.clone());
        let deployment = snapshot.live.get(&key);
        let deployment: Option<Value> =
            deployment.and_then(|deployment| serde_json::to_value(&**deployment).ok());
        let facts = Facts {
            generation: snapshot.gateway.metadata.generation,
            problems: &judgement.problems,
            warnings: &judgement.warnings,
            paused: judgement.paused,
            limited: judgement.limited.as_deref(),
            applied,
            wanted: valid.map(|valid| valid.replicas),
            pods: &snapshot.pods,
            deployment: deployment.as_ref(),
            redis: self.redis_facts(snapshot, valid),
            selector: selector(&owner),
            plan: self.fleets.plan(&snapshot.key),
            attached: judgement
                .applications
                .iter()
                .filter(|application| application.attached)
                .count()
                + judgement.kept.len(),
        };
        status::status(&facts, &former(snapshot), &Time(Timestamp::now()))
    }

    /// Writes it when it has changed, and no more often than it may. Returns how long it was put off.
    async fn write_status(
        &self,
        snapshot: &Snapshot,
        status: &GatewayStatus,
    ) -> Result<Option<Duration>, WriteError> {
        let former = former(snapshot);
        if *status == former {
            return Ok(None);
        }
        let key = &snapshot.key;
        let written = self
            .memory()
            .get(key)
            .and_then(|memory| memory.status_written);
        let since = written.map_or(STATUS_INTERVAL, |written| written.elapsed());
        if since < STATUS_INTERVAL && !is_urgent(&former, status) {
            return Ok(Some(STATUS_INTERVAL - since));
        }
        let value = serde_json::to_value(status)
            .map_err(|failure| WriteError::Failed(failure.to_string()))?;
        let resource = ApiResource::erase::<Gateway>(&());
        self.writer
            .status(&resource, &key.0, &key.1, &value)
            .await?;
        debug!(gateway = key.1, "status written");
        self.remember(key, |memory| memory.status_written = Some(Instant::now()));
        let (former, now) = (&former.conditions, &status.conditions);
        self.events
            .of_conditions(&self.writer, &snapshot.gateway, former, now)
            .await;
        Ok(None)
    }

    fn remember(&self, key: &Key, change: impl FnOnce(&mut Memory)) {
        change(self.memory().entry(key.clone()).or_default());
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When to look again although nothing changes.
fn next(applied: Option<&Applied>, due_in: [Option<Duration>; 2]) -> Outcome {
    // Quotas, rights and foreign objects change without the Gateway.
    let is_bad = |applied: &Applied| !applied.failed.is_empty() || !applied.refused.is_empty();
    if applied.is_some_and(is_bad) {
        return Outcome::Failed;
    }
    if applied.is_some_and(|applied| !applied.waiting.is_empty()) {
        return Outcome::Again(RETRY_PENDING);
    }
    let again = due_in.into_iter().flatten().min();
    Outcome::Again(again.unwrap_or(RESYNC))
}

/// Whether a person or a program may be waiting for it: a condition says something else, or about another spec.
fn is_urgent(former: &GatewayStatus, status: &GatewayStatus) -> bool {
    let said = |status: &GatewayStatus| -> Vec<(String, String, String)> {
        let conditions = status.conditions.iter();
        conditions
            .map(|said| (said.type_.clone(), said.status.clone(), said.reason.clone()))
            .collect()
    };
    former.observed_generation != status.observed_generation || said(former) != said(status)
}

/// The status as it was written last, as far as it can be read.
fn former(snapshot: &Snapshot) -> GatewayStatus {
    let status = snapshot.gateway.data.get("status");
    status
        .and_then(|status| serde_json::from_value(status.clone()).ok())
        .unwrap_or_default()
}

/// As text, for autoscalers.
fn selector(owner: &Owner) -> String {
    let labels = owner.selector(DATA_PLANE);
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests;
