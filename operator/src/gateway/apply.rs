//! Fourth step: makes the cluster look like what was prepared, with as few writes as it takes: none when it does already.
//!
//! An object that belongs to somebody else is never touched. One that is refused does not keep the others back.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Endpoints;
use kube::api::{ApiResource, DynamicObject};
use serde_json::json;
use tracing::{info, warn};

use super::build::Prepared;
use super::compare;
use crate::cluster::{WriteError, Writer};
use crate::digest;
use crate::kinds::Kind;
use crate::object::{Object, Owner};
use crate::world::Live;

/// Digest of what the operator wanted when it wrote an object last.
const WANTED: &str = "sluice.dev/wanted";

/// What became of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// Objects that were written, changed or deleted.
    pub writes: usize,
    /// What did not work, for the user.
    pub refused: Vec<String>,
    /// What did not work, and may the next time.
    pub failed: Vec<String>,
    /// Objects whose former selves are still being deleted.
    pub waiting: Vec<String>,
}

impl Applied {
    pub fn is_whole(&self) -> bool {
        self.refused.is_empty() && self.failed.is_empty() && self.waiting.is_empty()
    }
}

/// `Err` only when another operator writes.
pub async fn apply(
    writer: &Writer,
    owner: &Owner,
    prepared: Prepared,
    live: &Live,
) -> Result<Applied, WriteError> {
    let mut applied = Applied::default();
    let objects = in_order(prepared);
    for object in &objects {
        let outcome = one(writer, owner, object, live).await;
        applied.take(object.kind, &object.name, outcome)?;
    }
    for (kind, name) in orphans(owner, &objects, live) {
        let Some(orphan) = live.get(&(kind, name.clone())) else {
            continue;
        };
        info!(gateway = %owner.name, kind = kind.name(), name, "deleted, no longer wanted");
        let outcome = writer.delete(kind, orphan).await.map(|()| Done::Written);
        applied.take(kind, &name, outcome)?;
        if is_stale_slice(owner, kind, orphan) {
            // They are what slices would be made from again.
            let endpoints = ApiResource::erase::<Endpoints>(&());
            let gone = writer.delete_by(&endpoints, &owner.namespace, &owner.name, None);
            applied.take(kind, &name, gone.await.map(|()| Done::Written))?;
        }
    }
    Ok(applied)
}

/// What others need comes first. A kind that is added to `Prepared` cannot be forgotten here.
fn in_order(prepared: Prepared) -> Vec<Object> {
    let Prepared {
        service_account,
        secret,
        config_map,
        revision,
        network_policy,
        disruption_budget,
        redis,
        deployment,
        service,
        slices,
    } = prepared;
    let mut objects = vec![
        service_account,
        secret,
        config_map,
        revision,
        network_policy,
        disruption_budget,
    ];
    objects.extend(redis);
    objects.extend([deployment, service]);
    objects.extend(slices);
    objects.into_iter().map(marked).collect()
}

/// With a digest of what is wanted: fields that are not wanted any more change nothing else by which it would be seen.
fn marked(object: Object) -> Object {
    let digest = digest::short(object.body.to_string().as_bytes());
    object.annotate(WANTED, &digest)
}

#[derive(Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    Written,
    /// The former one is still being deleted.
    Waiting,
}

impl Applied {
    fn take(
        &mut self,
        kind: Kind,
        name: &str,
        outcome: Result<Done, WriteError>,
    ) -> Result<(), WriteError> {
        let shown = format!("{} {name}", kind.name());
        match outcome {
            Ok(Done::Nothing) => {}
            Ok(Done::Written) => self.writes += 1,
            Ok(Done::Waiting) => self.waiting.push(shown),
            Err(WriteError::NotLeading) => return Err(WriteError::NotLeading),
            Err(WriteError::Refused(why)) => {
                warn!(object = shown, why, "refused");
                self.refused.push(format!("{shown}: {why}"));
            }
            Err(WriteError::Failed(why)) => {
                warn!(object = shown, why, "not written");
                self.failed.push(format!("{shown}: {why}"));
            }
        }
        Ok(())
    }
}

async fn one(
    writer: &Writer,
    owner: &Owner,
    object: &Object,
    live: &Live,
) -> Result<Done, WriteError> {
    let namespace = &owner.namespace;
    let known = live.get(&(object.kind, object.name.clone()));
    let asked = match known {
        // Whose it is, is asked of the API server: the watch shows only what bears the label of a Gateway.
        None => writer.get(object.kind, namespace, &object.name).await?,
        Some(_) => None,
    };
    let there = known.map(|known| &**known).or(asked.as_ref());
    if let Some(there) = there {
        if is_of_former(owner, there) {
            return Ok(Done::Waiting);
        }
        if !is_owned(owner, there) {
            let what = "it exists and belongs to somebody else; remove it, or rename the Gateway";
            return Err(WriteError::Refused(what.to_owned()));
        }
        if there.metadata.deletion_timestamp.is_some() {
            return Ok(Done::Waiting);
        }
        if is_as_wanted(object, there) {
            return Ok(Done::Nothing);
        }
    }
    let written = writer.apply(namespace, object).await?;
    info!(gateway = %owner.name, kind = object.kind.name(), name = object.name, "applied");
    remove_absent(writer, owner, object, &written).await?;
    Ok(Done::Written)
}

fn is_as_wanted(object: &Object, live: &DynamicObject) -> bool {
    // An object is told by its fields; written out, it is compared with them.
    let Ok(live) = serde_json::to_value(live) else {
        return false;
    };
    // These two are not in what a list shows.
    let mut wanted = object.body.clone();
    if let Some(fields) = wanted.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    let mut absent = object.absent.iter();
    compare::holds(&wanted, Some(&live)) && absent.all(|pointer| live.pointer(pointer).is_none())
}

/// Takes away what server-side apply leaves to others.
async fn remove_absent(
    writer: &Writer,
    owner: &Owner,
    object: &Object,
    live: &DynamicObject,
) -> Result<(), WriteError> {
    for pointer in &object.absent {
        // Of paths in `spec`, which is what `data` holds.
        if live.data.pointer(pointer).is_none() {
            continue;
        }
        let mut patch = json!(null);
        for part in pointer.rsplit('/').filter(|part| !part.is_empty()) {
            patch = json!({part: patch});
        }
        let resource = object.kind.resource();
        writer
            .merge(&resource, &owner.namespace, &object.name, &patch)
            .await?;
    }
    Ok(())
}

/// Whether this Gateway is what controls an object.
pub(super) fn is_owned(owner: &Owner, object: &DynamicObject) -> bool {
    let owners = object.metadata.owner_references.iter().flatten();
    owners
        .filter(|reference| reference.controller == Some(true))
        .any(|reference| reference.uid == owner.uid)
}

/// Whether it belongs to a Gateway that had this name before: Kubernetes will delete it.
fn is_of_former(owner: &Owner, object: &DynamicObject) -> bool {
    let mut owners = object.metadata.owner_references.iter().flatten();
    owners.any(|reference| {
        reference.controller == Some(true)
            && reference.kind == "Gateway"
            && reference.api_version.starts_with("sluice.dev/")
            && reference.name == owner.name
            && reference.uid != owner.uid
    })
}

/// What was made once and is not wanted any more.
fn orphans(owner: &Owner, objects: &[Object], live: &Live) -> Vec<(Kind, String)> {
    let wanted: BTreeSet<(Kind, &str)> = objects
        .iter()
        .map(|object| (object.kind, object.name.as_str()))
        .collect();
    let steered = objects
        .iter()
        .any(|object| object.kind == Kind::EndpointSlice);
    live.iter()
        .filter(|((kind, name), object)| {
            let gone = object.metadata.deletion_timestamp.is_some();
            let ours = is_owned(owner, object) || (steered && is_stale_slice(owner, *kind, object));
            ours && !gone && !wanted.contains(&(*kind, name.as_str()))
        })
        .map(|((kind, name), _)| (*kind, name.clone()))
        .collect()
}

/// Who writes slices in Kubernetes itself: from pods, and from Endpoints.
const MANAGERS: [&str; 2] = [
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
];

/// A slice of Kubernetes itself, from before the Service lost its selector: nobody else would remove it.
fn is_stale_slice(owner: &Owner, kind: Kind, object: &DynamicObject) -> bool {
    let label = |key: &str| {
        let labels = object.metadata.labels.as_ref()?;
        labels.get(key).map(String::as_str)
    };
    kind == Kind::EndpointSlice
        && label("kubernetes.io/service-name") == Some(owner.name.as_str())
        && label("endpointslice.kubernetes.io/managed-by")
            .is_some_and(|manager| MANAGERS.contains(&manager))
}
