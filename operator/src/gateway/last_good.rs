//! What was valid last: it is kept up while a Gateway, or one of its Applications, is not valid.
//!
//! It is remembered by who found it valid. An operator that has just begun finds it in the cluster: the configuration in
//! ConfigMap and Secret, as pods read it, and the spec that it was made from as an annotation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::api::DynamicObject;
use serde_json::Value;
use sluice_crds::config::{Application, Dialect, GatewayConfig, Ingest, Secret, Upstream};
use sluice_crds::config_file::{self, CONFIG_FILE};
use sluice_crds::gateway::GatewaySpec;
use sluice_crds::problem::Reason;
use sluice_crds::resolve::ApplicationOutcome;

use super::build::{self, ACCEPTED_SPEC, Validated};
use super::dereference::Snapshot;
use super::validate::{self, Judgement};
use super::{Memory, Reconciler, apply};
use crate::cluster::WriteError;
use crate::kinds::Kind;
use crate::shelf::Key;

impl Reconciler {
    /// Forgets what was remembered of another Gateway of the same name.
    pub(super) fn renew(&self, key: &Key, gateway: &DynamicObject) {
        let uid = gateway.metadata.uid.clone().unwrap_or_default();
        let mut is_another = false;
        self.remember(key, |memory| {
            is_another = memory.uid.as_ref().is_some_and(|known| *known != uid);
            if is_another {
                *memory = Memory::default();
            }
            memory.uid = Some(uid);
        });
        if is_another {
            self.minder.forget(key);
        }
    }

    /// The configuration that pods have, as far as its Applications may be wrong.
    pub(super) fn running_config(&self, snapshot: &Snapshot) -> Option<Arc<GatewayConfig>> {
        if snapshot.applications.is_empty() {
            return None;
        }
        let known = {
            let memory = self.memory();
            let memory = memory.get(&snapshot.key)?;
            memory
                .last_good
                .as_ref()
                .map(|good| Arc::clone(&good.config))
        };
        known.or_else(|| config(snapshot).map(Arc::new))
    }

    /// What to apply: what the Gateway says, or what it said last when that was valid.
    pub(super) async fn valid(
        &self,
        snapshot: &mut Snapshot,
        judgement: &Judgement,
    ) -> Result<Option<Validated>, WriteError> {
        let key = snapshot.key.clone();
        let known = {
            let memory = self.memory();
            memory.get(&key).and_then(|memory| memory.last_good.clone())
        };
        let valid = match (&judgement.validated, known) {
            (Some(valid), _) => valid.clone(),
            (None, Some(known)) => return Ok(Some(known)),
            (None, None) => {
                let Some(mut found) = restore(snapshot, &self.defaults) else {
                    return Ok(None);
                };
                let redis = found.spec.redis.as_ref();
                if let Some(spec) = redis.and_then(|redis| redis.managed.clone()) {
                    found.redis = self.managed_objects(snapshot, &spec).await?;
                }
                found
            }
        };
        self.remember(&key, |memory| memory.last_good = Some(valid.clone()));
        Ok(Some(valid))
    }
}

/// What the objects in the cluster were made from, if they tell all of it.
fn restore(snapshot: &Snapshot, defaults: &validate::Defaults) -> Option<Validated> {
    let map = own(snapshot, Kind::ConfigMap)?;
    let spec = map.metadata.annotations.as_ref()?.get(ACCEPTED_SPEC)?;
    let spec: GatewaySpec = serde_json::from_str(spec).ok()?;
    let config = config(snapshot)?;
    let (replicas, _) = validate::replicas(&spec, &config);
    Some(Validated {
        owner: validate::owner(snapshot),
        config: Arc::new(config),
        replicas,
        default_image: defaults.data_plane_image.clone(),
        restarted_at: validate::restarted_at(snapshot),
        manager: defaults.manager.clone(),
        operators: defaults.operators.clone(),
        trusted: Arc::default(),
        redis: Vec::new(),
        spec,
    })
}

/// The configuration that is in the cluster, if it can be read.
fn config(snapshot: &Snapshot) -> Option<GatewayConfig> {
    let map = own(snapshot, Kind::ConfigMap)?;
    let document = map.data.pointer("/data")?.get(CONFIG_FILE)?.as_str()?;
    let secret = own(snapshot, Kind::Secret)?;
    let mut secrets = BTreeMap::new();
    let data = secret.data.get("data").and_then(Value::as_object);
    for (name, value) in data.into_iter().flatten() {
        let bytes = STANDARD.decode(value.as_str()?).ok()?;
        secrets.insert(name.clone(), Secret::new(bytes));
    }
    config_file::decode(CONFIG_FILE, document, &secrets).ok()
}

/// ConfigMap or Secret of the configuration.
fn own(snapshot: &Snapshot, kind: Kind) -> Option<&DynamicObject> {
    let owner = validate::owner(snapshot);
    let found = snapshot.live.get(&(kind, build::config_name(&owner)))?;
    apply::is_owned(&owner, found).then_some(&**found)
}

/// Puts Applications that have become wrong into the configuration as they were. Returns which.
pub(super) fn keep_applications(
    gateway: &Key,
    outcomes: &[ApplicationOutcome],
    former: Option<&GatewayConfig>,
    config: &mut GatewayConfig,
) -> BTreeSet<Key> {
    let mut kept = BTreeSet::new();
    let former = former.and_then(|former| former.ingest.as_deref());
    let (Some(former), Some(ingest)) = (former, &mut config.ingest) else {
        return kept;
    };
    let mut whole = (**ingest).clone();
    for outcome in outcomes.iter().filter(|outcome| has_become_wrong(outcome)) {
        let (namespace, name) = (&outcome.namespace, &outcome.name);
        let shown = if *namespace == gateway.0 {
            name.clone()
        } else {
            format!("{namespace}/{name}")
        };
        let mut known = former.applications.iter();
        let known = known.find(|application| application.name == shown);
        if let Some(fitted) = known.and_then(|known| fitted(known, &whole)) {
            whole.applications.push(Arc::new(fitted));
            kept.insert((namespace.clone(), name.clone()));
        }
    }
    if !kept.is_empty() {
        // As if they had never been wrong.
        whole.applications.sort_by_cached_key(|application| {
            let own = (gateway.0.as_str(), application.name.as_str());
            let (namespace, name) = application.name.split_once('/').unwrap_or(own);
            (name.to_owned(), namespace.to_owned())
        });
        *ingest = Arc::new(whole);
    }
    kept
}

/// The Gateway is its own and takes it, but what it says cannot be carried out.
fn has_become_wrong(outcome: &ApplicationOutcome) -> bool {
    let mut problems = outcome.problems.iter();
    let is_wrong =
        problems.any(|problem| matches!(problem.reason, Reason::Invalid | Reason::RefNotFound));
    let mut problems = outcome.problems.iter();
    let is_taken = problems
        .all(|problem| !matches!(problem.reason, Reason::TargetNotFound | Reason::NotAllowed));
    !outcome.attached && is_wrong && is_taken
}

/// A former application beside those that there are now; `None` when all of its keys are others' now.
fn fitted(former: &Application, ingest: &Ingest) -> Option<Application> {
    let mut fitted = former.clone();
    fitted.keys.retain(|key| {
        let mut others = ingest.applications.iter();
        !others.any(|other| other.keys.contains(key))
    });
    if fitted.keys.is_empty() {
        return None;
    }
    if matches!(ingest.accept.dialect, Dialect::Generic(_)) {
        fitted.salt = None;
    }
    let own = format!("{}/", fitted.name);
    for upstream in &mut fitted.upstreams {
        match ingest.upstreams.iter().find(|known| *known == upstream) {
            Some(same) => *upstream = Arc::clone(same),
            // It was the Gateway's, which has changed since.
            None if !upstream.name.starts_with(&own) => {
                let name = format!("{own}{}", upstream.name);
                let changed = Upstream {
                    name,
                    ..(**upstream).clone()
                };
                *upstream = Arc::new(changed);
            }
            None => {}
        }
    }
    Some(fitted)
}

#[cfg(test)]
mod tests;
