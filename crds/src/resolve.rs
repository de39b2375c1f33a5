//! From what the user wrote to one valid configuration, or everything that is wrong with it.
//!
//! Two passes. `schema` holds the spec against the schema of the CRD (shape, bounds, patterns) and repairs what it
//! reports, so that the second pass can go on; the second pass applies the rules over several fields and follows
//! references. Both only collect: the first problem never hides the next. Nothing here does I/O or panics, and no
//! problem quotes a secret.

mod authentication;
mod channel;
mod duration;
mod keys;
mod limits;
pub(crate) mod pattern;
mod references;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{self, GatewayConfig};
use crate::gateway::{GatewaySpec, Listener, Protocol, Relay, Switch};
use crate::objects::{GatewayObject, Objects};
use crate::problem::Problem;

/// The outcome of a resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// `Some` exactly when there are no problems, neither here nor in reading the objects.
    pub config: Option<GatewayConfig>,
    pub problems: Vec<Problem>,
}

/// Resolves the one Gateway among the objects.
pub fn resolve(objects: &Objects) -> Resolution {
    let mut problems = Vec::new();
    let mut configs = Vec::new();
    for gateway in &objects.gateways {
        configs.push(resolve_one(gateway, objects, &mut problems));
    }
    match objects.gateways.as_slice() {
        // Where something could not be read, that problem says more than this one.
        [] if objects.incomplete => {}
        [] => {
            let instead = "write a document of kind Gateway, apiVersion sluice.dev/v1alpha1";
            problems.push(Problem::new("manifest", "", "there is no Gateway", instead));
        }
        [_] => {}
        [_, others @ ..] => {
            for other in others {
                let object = format!("Gateway {}/{}", other.namespace, other.name);
                let what = "a second Gateway, and one process serves one";
                problems.push(Problem::new(
                    object,
                    "",
                    what,
                    "keep one, and run another process for the other",
                ));
            }
        }
    }
    let config = configs
        .into_iter()
        .flatten()
        .next()
        .filter(|_| problems.is_empty() && !objects.incomplete);
    Resolution { config, problems }
}

/// Collects the problems of one Gateway, and what finding them needs.
struct Context<'a> {
    objects: &'a Objects,
    object: String,
    namespace: &'a str,
    problems: Vec<Problem>,
}

impl Context<'_> {
    fn problem(
        &mut self,
        field: impl Into<String>,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) {
        self.problems
            .push(Problem::new(&self.object, field, what, instead));
    }
}

fn resolve_one(
    gateway: &GatewayObject,
    objects: &Objects,
    problems: &mut Vec<Problem>,
) -> Option<GatewayConfig> {
    let object = format!("Gateway {}/{}", gateway.namespace, gateway.name);
    let checked = schema::check(&object, &gateway.spec);
    let spec: GatewaySpec = match serde_json::from_value(checked.repaired) {
        Ok(spec) => spec,
        Err(error) => {
            // The repair makes every value fit, so this says that schema and types disagree.
            problems.extend(checked.problems);
            problems.push(Problem::new(
                object,
                "spec",
                format!("cannot be read: {error}"),
                "correct it",
            ));
            return None;
        }
    };
    let mut context = Context {
        objects,
        object,
        namespace: &gateway.namespace,
        problems: Vec::new(),
    };
    let config = GatewayConfig {
        name: gateway.name.clone(),
        namespace: gateway.namespace.clone(),
        listeners: listeners(&spec.listeners, &mut context),
        relay: relay(&spec.relay, &mut context),
        ingest: None,
        drain: config::Drain {
            timeout: duration::parse_or_zero(&spec.data_plane.drain.timeout),
        },
    };
    // What the first pass reported was repaired with values that the user did not write.
    let mut found = context.problems;
    found.retain(|problem| {
        !checked
            .concerned
            .iter()
            .any(|path| schema::is_at_or_below(&problem.field, path))
    });
    problems.extend(checked.problems);
    problems.extend(found);
    Some(config)
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
            (Protocol::Https, Some(tls)) => keys::tls(&tls.certificate_ref.name, &path, context),
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
