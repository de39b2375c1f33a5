//! ControllerRevision: the pod template as it was first made for what the user wants of the pods.
//!
//! Another operator may make another template of the same wishes. It does not, as long as the revision that is named after
//! the wishes is there: pods are replaced when the user wants something else, and never because the operator is another.

use serde::Serialize;
use serde_json::{Value, json};
use sluice_crds::config::{Listener, Redis};
use sluice_crds::gateway::{PodTemplate, Resources};

use super::Validated;
use crate::digest;
use crate::kinds::Kind;
use crate::object::{DATA_PLANE, Object, Owner};

/// Everything that replaces pods when it changes. A field that is added later has to be left out when it is not set: else
/// the wishes of all Gateways would look like new ones.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inputs<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<&'a Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_template: Option<&'a PodTemplate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restarted_at: Option<&'a str>,
    drain_ms: u128,
    /// Name, port and protocol of each.
    listeners: Vec<(&'a str, u16, &'static str)>,
    ingest: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<String>,
}

/// What a running process does not take over, and what else makes the template, as a text.
pub fn inputs(wanted: &Validated) -> String {
    let data_plane = &wanted.spec.data_plane;
    let config = &wanted.config;
    let inputs = Inputs {
        image: data_plane.image.as_deref(),
        resources: data_plane.resources.as_ref(),
        pod_template: data_plane.pod_template.as_ref(),
        restarted_at: wanted.restarted_at.as_deref(),
        drain_ms: config.drain.timeout.as_millis(),
        listeners: config.listeners.iter().map(listener).collect(),
        ingest: config.ingest.is_some(),
        redis: config
            .redis
            .as_ref()
            .map(|redis| redis_digest(&wanted.owner, redis)),
    };
    serde_json::to_string(&inputs).expect("texts and numbers can be written as JSON")
}

fn listener(listener: &Listener) -> (&str, u16, &'static str) {
    let protocol = if listener.tls.is_some() {
        "HTTPS"
    } else {
        "HTTP"
    };
    (&listener.name, listener.port, protocol)
}

/// Tells one way to Redis from another without telling it.
fn redis_digest(owner: &Owner, redis: &Redis) -> String {
    let mut bytes = owner.uid.clone().into_bytes();
    let mut add = |part: &[u8]| {
        bytes.extend(part.len().to_be_bytes());
        bytes.extend(part);
    };
    for seed in &redis.seeds {
        add(seed.host.as_bytes());
        add(&seed.port.to_be_bytes());
    }
    add(redis.username.as_deref().unwrap_or_default().as_bytes());
    add(redis
        .password
        .as_ref()
        .map_or(&[], |password| password.expose()));
    if let Some(tls) = &redis.tls {
        add(b"tls");
        add(tls.server_name.as_deref().unwrap_or_default().as_bytes());
        add(tls.ca.as_ref().map_or(&[], |ca| ca.expose()));
        if let Some(client) = &tls.client {
            add(client.certificate.expose());
            add(client.private_key.expose());
        }
    }
    digest::short(&bytes)
}

/// Name of the revision for these wishes.
pub fn revision_name(owner: &Owner, inputs: &str) -> String {
    format!("{}-{}", owner.name, digest::short(inputs.as_bytes()))
}

/// The pod template that a revision holds.
pub fn template_of(revision: &Value) -> Option<&Value> {
    revision
        .pointer("/data/template")
        .filter(|template| template.is_object())
}

pub(super) fn build(owner: &Owner, inputs: &str, template: &Value) -> Object {
    let body = json!({"revision": 1, "data": {"template": template}});
    let name = revision_name(owner, inputs);
    Object::new(Kind::ControllerRevision, owner, DATA_PLANE, &name, body)
}
