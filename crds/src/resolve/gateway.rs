//! One Gateway: its listeners, its relay, its ingest.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{self, GatewayConfig};
use crate::gateway::{AllowedNamespaces, GatewaySpec, Listener, Protocol, Relay, Scaling, Switch};
use crate::objects::{GatewayObject, Objects};
use crate::problem::Problem;

use super::{
    Context, authentication, channel, duration, ingest, keys, limits, redis, references, schema,
};

/// A Gateway as far as it could be understood.
pub(super) struct Judged {
    /// `None` only where schema and types disagree. Its `ingest` is empty.
    pub(super) config: Option<GatewayConfig>,
    pub(super) ingest: Ingest,
    pub(super) allowed: AllowedNamespaces,
    pub(super) problems: Vec<Problem>,
}

/// What Applications may attach to.
pub(super) enum Ingest {
    /// Still without applications.
    Configured(Box<config::Ingest>),
    Absent,
    /// The Gateway says something about it that cannot be read.
    Unknown,
}

pub(super) fn resolve(gateway: &GatewayObject, objects: &Objects) -> Judged {
    let object = name(&gateway.namespace, &gateway.name);
    let (mut context, spec) = Context::read::<GatewaySpec>(
        &schema::GATEWAY,
        objects,
        object,
        &gateway.namespace,
        &gateway.spec,
    );
    let Some(spec) = spec else {
        return Judged {
            config: None,
            ingest: Ingest::Unknown,
            allowed: AllowedNamespaces::default(),
            problems: context.problems,
        };
    };
    if spec.relay.is_none() && spec.ingest.is_none() && !parts_are_unknown(&context) {
        let what = "nothing would be served: there is neither relay nor ingest";
        context.problem("spec", what, "write relay, ingest or both");
    }
    check_scaling(&spec.data_plane.scaling, &mut context);
    let config = GatewayConfig {
        name: gateway.name.clone(),
        namespace: gateway.namespace.clone(),
        listeners: listeners(&spec.listeners, &mut context),
        relay: match &spec.relay {
            Some(spec) => relay(spec, &mut context),
            None => config::Relay::closed(),
        },
        ingest: None,
        redis: spec
            .redis
            .as_ref()
            .and_then(|spec| redis::resolve(&gateway.name, spec, &mut context))
            .map(Arc::new),
        data_planes_max: data_planes_max(&spec),
        drain: config::Drain {
            timeout: duration::parse_or_zero(&spec.data_plane.drain.timeout),
        },
    };
    let ingest = match &spec.ingest {
        Some(spec_of_ingest) => {
            let has_relay = spec.relay.is_some();
            let ingest = ingest::resolve(spec_of_ingest, has_relay, &mut context);
            check_durability(&ingest, spec.redis.is_some(), &mut context);
            Ingest::Configured(Box::new(ingest))
        }
        None if context.is_concerned("spec.ingest") => Ingest::Unknown,
        None => Ingest::Absent,
    };
    Judged {
        config: Some(config),
        ingest,
        allowed: spec.allowed_applications.namespaces,
        problems: context.problems,
    }
}

fn check_durability(ingest: &config::Ingest, has_redis: bool, context: &mut Context<'_>) {
    let needs_redis = ingest.durability == config::Durability::Replicated;
    if needs_redis && !has_redis && !context.is_concerned("spec.redis") {
        context.problem(
            "spec.ingest.durability",
            "Replicated needs a Redis, and there is none",
            "write redis, or durability: Group",
        );
    }
}

fn check_scaling(scaling: &Scaling, context: &mut Context<'_>) {
    let (min, max) = (scaling.min(), scaling.max());
    if min > max {
        let what = format!("{min} pods at least and {max} at most is no range");
        let instead = "write a min that is not above max; unset, they are 2 and 10";
        context.problem("spec.dataPlane.scaling.min", what, instead);
    }
}

/// The most data planes that there will be. Without redis each keeps everything itself, and there is one.
fn data_planes_max(spec: &GatewaySpec) -> u32 {
    if spec.redis.is_none() {
        return 1;
    }
    let most = u32::try_from(spec.data_planes_most());
    most.unwrap_or_default().max(1)
}

/// How problems name a Gateway.
pub(super) fn name(namespace: &str, name: &str) -> String {
    format!("Gateway {namespace}/{name}")
}

fn parts_are_unknown(context: &Context<'_>) -> bool {
    context.is_concerned("spec.relay") || context.is_concerned("spec.ingest")
}

fn listeners(specs: &[Listener], context: &mut Context<'_>) -> Vec<config::Listener> {
    let mut first_with_port: BTreeMap<i32, usize> = BTreeMap::new();
    let mut listeners = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("spec.listeners[{index}]");
        let first = *first_with_port.entry(spec.port).or_insert(index);
        if first != index {
            let what = format!("{} is already used by listeners[{first}]", spec.port);
            context.problem(
                format!("{path}.port"),
                what,
                "give every listener a port of its own",
            );
        }
        let tls = match (spec.protocol, &spec.tls) {
            (Protocol::Http, None) => None,
            (Protocol::Http, Some(_)) => {
                let instead = "write protocol: HTTPS, or remove tls";
                context.problem(format!("{path}.tls"), "protocol HTTP takes no tls", instead);
                None
            }
            (Protocol::Https, None) => {
                let instead = "write tls: {certificateRef: {name: <secret>}}, or protocol: HTTP";
                context.problem(
                    format!("{path}.tls"),
                    "protocol HTTPS needs a certificate",
                    instead,
                );
                None
            }
            (Protocol::Https, Some(tls)) => {
                let field = format!("{path}.tls.certificateRef.name");
                keys::certificate(&tls.certificate_ref.name, &field, context)
            }
        };
        listeners.push(config::Listener {
            name: spec.name.clone(),
            // The schema bounds the port; zero stands for one that was reported.
            port: u16::try_from(spec.port).unwrap_or_default(),
            tls,
        });
    }
    listeners
}

fn relay(spec: &Relay, context: &mut Context<'_>) -> config::Relay {
    let default_path = "spec.relay.defaultNamespace.options";
    let default_namespace = Arc::new(channel::options(
        &spec.default_namespace.options,
        default_path,
        context,
    ));
    let mut namespaces = BTreeMap::new();
    for (index, named) in spec.namespaces.iter().enumerate() {
        let path = format!("spec.relay.namespaces[{index}].options");
        namespaces.insert(
            named.name.clone(),
            Arc::new(channel::options(&named.options, &path, context)),
        );
    }
    config::Relay {
        authentication: authentication::resolve(&spec.authentication, context),
        default_namespace,
        namespaces,
        personal_channel: spec.personal_channel == Switch::Enabled,
        limits: limits::limits(&spec.limits, context),
        heartbeat: limits::heartbeat(&spec.heartbeat, context),
        server_api_key: spec.server_api.as_ref().and_then(|api| {
            let path = "spec.relay.serverApi.keySecretRef";
            references::text(&api.key_secret_ref, path, context)
        }),
    }
}
