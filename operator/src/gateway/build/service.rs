//! Service: the address of a gateway.
//!
//! While the operator steers, the Service chooses no pods: which of them take new connections is said by EndpointSlices
//! of the operator's own.

use serde_json::{Value, json};
use sluice_crds::gateway::{ServiceTopology, ServiceType, Steering};

use super::Validated;
use crate::kinds::Kind;
use crate::object::{DATA_PLANE, Object};

pub(super) fn build(wanted: &Validated) -> Object {
    let (owner, service) = (&wanted.owner, &wanted.spec.service);
    let listeners = wanted.config.listeners.iter();
    let ports: Vec<Value> = listeners
        .map(|listener| {
            json!({
                "name": listener.name,
                "port": listener.port,
                "targetPort": listener.port,
                "protocol": "TCP",
            })
        })
        .collect();
    let mut spec = json!({"type": service.kind.name(), "ports": ports});
    if service.kind == ServiceType::LoadBalancer
        && let Some(class) = &service.load_balancer_class
    {
        spec["loadBalancerClass"] = class.as_str().into();
    }
    if service.steering == Steering::Disabled {
        spec["selector"] = owner.selector(DATA_PLANE).into();
        if service.topology == ServiceTopology::PreferSameZone {
            // What it was first called; later releases of Kubernetes know both.
            spec["trafficDistribution"] = "PreferClose".into();
        }
    }
    let body = json!({"spec": spec});
    let mut object = Object::new(Kind::Service, owner, DATA_PLANE, &owner.name, body);
    for (key, value) in &service.annotations {
        object = object.annotate(key, value);
    }
    match service.steering {
        Steering::Managed => object.without("/spec/selector"),
        Steering::Disabled => object,
    }
}
