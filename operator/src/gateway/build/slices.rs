//! EndpointSlices: which pods take connections.
//!
//! A pod that ends stays in as terminating: so no data path cuts the connections it still has. Slices are changed in place;
//! a pod is always in the same one, so that one pod's change is one write.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_crds::gateway::{ServiceTopology, Steering};

use super::Validated;
use crate::kinds::Kind;
use crate::object::{DATA_PLANE, Object};
use crate::pods::PodView;

/// Who writes a slice, as its label says.
pub const SLICE_MANAGER: &str = "sluice-operator";
/// By convention a slice has at most 100 endpoints, by its API 1000. Pods are put into slices by a digest of their names,
/// which does not fill them evenly.
const PODS_PER_SLICE: usize = 64;

/// `fenced`: pods that are to get no new connections, and keep those they have.
pub(super) fn build(
    wanted: &Validated,
    pods: &[Arc<PodView>],
    fenced: &BTreeSet<String>,
) -> Vec<Object> {
    if wanted.spec.service.steering == Steering::Disabled {
        return Vec::new();
    }
    let count = pods.len().div_ceil(PODS_PER_SLICE).next_power_of_two();
    let mut slices: BTreeMap<(&'static str, usize), Vec<Value>> = BTreeMap::new();
    // There is one for each number, also while there are no pods: an emptied slice is no deleted slice.
    for number in 0..count {
        slices.entry(("IPv4", number)).or_default();
    }
    let hints = hints(wanted, pods, fenced);
    let mut sorted: Vec<&Arc<PodView>> = pods.iter().filter(|pod| !pod.ended).collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    for pod in sorted {
        for ip in &pod.ips {
            let family = match ip {
                IpAddr::V4(_) => "IPv4",
                IpAddr::V6(_) => "IPv6",
            };
            let slice = slices.entry((family, number(&pod.name, count)));
            let endpoint = endpoint(pod, *ip, fenced.contains(&pod.name), hints);
            slice.or_default().push(endpoint);
        }
    }
    slices
        .into_iter()
        .map(|((family, number), endpoints)| slice(wanted, family, number, &endpoints))
        .collect()
}

fn slice(wanted: &Validated, family: &str, number: usize, endpoints: &[Value]) -> Object {
    let owner = &wanted.owner;
    let listeners = wanted.config.listeners.iter();
    let ports: Vec<Value> = listeners
        .map(|listener| json!({"name": listener.name, "port": listener.port, "protocol": "TCP"}))
        .collect();
    let name = format!("{}-{}-{number}", owner.name, family.to_lowercase());
    let body = json!({"addressType": family, "ports": ports, "endpoints": endpoints});
    Object::new(Kind::EndpointSlice, owner, DATA_PLANE, &name, body)
        .label("kubernetes.io/service-name", &owner.name)
        .label("endpointslice.kubernetes.io/managed-by", SLICE_MANAGER)
}

/// Whether endpoints say for which zone they are. One that takes new connections and does not say so makes proxies ignore what the others say,
/// and a zone without any is served by all.
fn hints(wanted: &Validated, pods: &[Arc<PodView>], fenced: &BTreeSet<String>) -> bool {
    let mut takes_new = pods
        .iter()
        .filter(|pod| pod.ready && !leaves(pod, fenced.contains(&pod.name)) && !pod.ended);
    wanted.spec.service.topology == ServiceTopology::PreferSameZone
        && takes_new.all(|pod| pod.zone.is_some())
}

/// To terminate is how an endpoint says that it takes nothing new: one that goes would be cut off by some data paths.
fn leaves(pod: &PodView, fenced: bool) -> bool {
    pod.terminating || (fenced && pod.ready)
}

fn endpoint(pod: &PodView, ip: IpAddr, fenced: bool, hints: bool) -> Value {
    let leaving = leaves(pod, fenced);
    let mut endpoint = json!({
        "addresses": [ip.to_string()],
        "conditions": {
            "ready": pod.ready && !leaving,
            "serving": pod.ready,
            "terminating": leaving,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
    });
    if let Some(node) = &pod.node {
        endpoint["nodeName"] = node.as_str().into();
    }
    if let Some(zone) = &pod.zone {
        endpoint["zone"] = zone.as_str().into();
        if hints {
            endpoint["hints"] = json!({"forZones": [{"name": zone}]});
        }
    }
    endpoint
}

/// FNV-1a: the same in every version.
fn number(name: &str, count: usize) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The count is a power of two, far below what any usize holds.
    usize::try_from(hash % count as u64).unwrap_or_default()
}
