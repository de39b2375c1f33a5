//! Brings Applications to the Gateways they name, and settles whose the keys are that several of them claim.
//!
//! A key belongs to the oldest Application of a Gateway that claims it, even while that one has problems of its own:
//! keys do not go back and forth between tenants with each other's mistakes.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::application::{ApplicationSpec, GatewayRef};
use crate::config;
use crate::gateway::From;
use crate::objects::{ApplicationObject, GatewayObject, Objects};
use crate::problem::{Reason, nearest};

use super::application::{self, FoundKey, Target};
use super::gateway::{self, Ingest, Judged};
use super::{ApplicationOutcome, Context, GatewayOutcome, Outcome, schema};

/// An Application on its way to a Gateway.
struct Candidate<'a> {
    object: &'a ApplicationObject,
    context: Context<'a>,
    /// Index of the Gateway, when it has an ingest to attach to.
    gateway: Option<usize>,
    application: Option<config::Application>,
    keys: Vec<FoundKey>,
    /// Nothing but the ownership of keys may be wrong.
    sound: bool,
}

/// Gives each Gateway its Applications. The Gateways are in the order of the objects.
pub(super) fn attach(mut gateways: Vec<Judged>, objects: &Objects) -> Outcome {
    let mut candidates = candidates(&gateways, objects);
    settle_keys(&mut candidates);
    // By name, so that the configuration does not change with the order of the objects.
    let mut by_name: Vec<usize> = (0..candidates.len()).collect();
    by_name.sort_by_key(|index| {
        let object = candidates[*index].object;
        (&object.name, &object.namespace)
    });
    let mut attached = vec![false; candidates.len()];
    for index in by_name {
        let candidate = &mut candidates[index];
        let (Some(gateway), true) = (candidate.gateway, candidate.sound) else {
            continue;
        };
        let gateway = &mut gateways[gateway];
        let (Ingest::Configured(ingest), Some(mut application)) =
            (&mut gateway.ingest, candidate.application.take())
        else {
            continue;
        };
        application.keys = candidate.keys.drain(..).map(|key| key.secret).collect();
        if !application.keys.is_empty() {
            attached[index] = gateway.problems.is_empty();
            ingest.applications.push(Arc::new(application));
        }
    }
    let applications = candidates.into_iter().zip(attached);
    Outcome {
        gateways: objects
            .gateways
            .iter()
            .zip(gateways)
            .map(|(object, judged)| gateway_outcome(object, judged))
            .collect(),
        applications: applications
            .map(|(candidate, attached)| ApplicationOutcome {
                namespace: candidate.object.namespace.clone(),
                name: candidate.object.name.clone(),
                attached,
                problems: candidate.context.problems,
            })
            .collect(),
    }
}

fn gateway_outcome(object: &GatewayObject, judged: Judged) -> GatewayOutcome {
    let ingest = match judged.ingest {
        Ingest::Configured(ingest) => Some(Arc::new(*ingest)),
        Ingest::Absent | Ingest::Unknown => None,
    };
    let config = judged.config.filter(|_| judged.problems.is_empty());
    GatewayOutcome {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        config: config.map(|config| config::GatewayConfig { ingest, ..config }),
        problems: judged.problems,
    }
}

fn candidates<'a>(gateways: &[Judged], objects: &'a Objects) -> Vec<Candidate<'a>> {
    let mut names: HashSet<(&str, &str)> = HashSet::new();
    let mut candidates = Vec::with_capacity(objects.applications.len());
    for object in &objects.applications {
        let mut candidate = candidate(object, gateways, objects);
        if !names.insert((&object.namespace, &object.name)) {
            let instead = "keep one of them, or rename one";
            let context = &mut candidate.context;
            context.problem("metadata.name", "two objects have this name", instead);
            candidate.gateway = None;
        }
        candidate.sound = candidate.context.problems.is_empty();
        candidates.push(candidate);
    }
    candidates
}

fn candidate<'a>(
    object: &'a ApplicationObject,
    gateways: &[Judged],
    objects: &'a Objects,
) -> Candidate<'a> {
    let name = format!("Application {}/{}", object.namespace, object.name);
    let (context, spec) = Context::read::<ApplicationSpec>(
        &schema::APPLICATION,
        objects,
        name,
        &object.namespace,
        &object.spec,
    );
    let mut candidate = Candidate {
        object,
        context,
        gateway: None,
        application: None,
        keys: Vec::new(),
        sound: false,
    };
    let Some(spec) = spec else {
        return candidate;
    };
    let context = &mut candidate.context;
    candidate.gateway = find_gateway(&spec.gateway_ref, gateways, context);
    let named = spec.gateway_ref.namespace.as_deref();
    let namespace = named.unwrap_or(&object.namespace);
    let gateway = gateway::name(namespace, &spec.gateway_ref.name);
    let target = candidate.gateway.and_then(|index| {
        let judged = &gateways[index];
        match &judged.ingest {
            Ingest::Configured(ingest) => Some(Target {
                object: &gateway,
                ingest,
                sound: judged.problems.is_empty(),
            }),
            Ingest::Absent | Ingest::Unknown => None,
        }
    });
    // Two namespaces may use the same name; no name holds the sign between them.
    let name = if namespace == object.namespace {
        object.name.clone()
    } else {
        format!("{}/{}", object.namespace, object.name)
    };
    let (application, keys) = application::resolve(&name, &spec, target.as_ref(), context);
    candidate.application = Some(application);
    candidate.keys = keys;
    candidate
}

/// The Gateway of a reference, when it has an ingest and takes Applications of this namespace.
fn find_gateway(
    reference: &GatewayRef,
    gateways: &[Judged],
    context: &mut Context<'_>,
) -> Option<usize> {
    let (objects, name) = (context.objects, reference.name.as_str());
    let namespace = reference.namespace.as_deref().unwrap_or(context.namespace);
    let known = &objects.gateways;
    let field = "spec.gatewayRef.name";
    let Some(index) = known
        .iter()
        .position(|gateway| gateway.name == name && gateway.namespace == namespace)
    else {
        // Where no Gateway could be read, that problem says more than this one.
        if !known.is_empty() || !objects.incomplete {
            let what = format!("{} does not exist", gateway::name(namespace, name));
            let instead = gateway_instead(name, namespace, known);
            context.problem_because(Reason::TargetNotFound, field, what, instead);
        }
        return None;
    };
    let gateway = &gateways[index];
    if namespace != context.namespace && !is_allowed(gateway, context) {
        let what = format!(
            "{} takes no applications of namespace {}",
            gateway::name(namespace, name),
            context.namespace
        );
        let instead =
            "have its owner allow it in spec.allowedApplications, or move the Application";
        context.problem_because(
            Reason::NotAllowed,
            "spec.gatewayRef.namespace",
            what,
            instead,
        );
        return None;
    }
    match gateway.ingest {
        Ingest::Configured(_) => Some(index),
        Ingest::Unknown => None,
        Ingest::Absent => {
            let what = format!("{} has no ingest", gateway::name(namespace, name));
            let instead = "add ingest to it, or name a Gateway that has one";
            context.problem(field, what, instead);
            None
        }
    }
}

/// Whether a Gateway takes Applications of another namespace.
fn is_allowed(gateway: &Judged, context: &Context<'_>) -> bool {
    match gateway.allowed.from {
        From::Same => false,
        From::All => true,
        From::Selector => {
            let labels = context.objects.namespaces.get(context.namespace);
            let wanted = gateway.allowed.match_labels.iter().flatten();
            labels.is_some_and(|labels| {
                let mut wanted = wanted.map(|(key, value)| labels.get(key) == Some(value));
                wanted.all(|same| same)
            })
        }
    }
}

fn gateway_instead(name: &str, namespace: &str, known: &[GatewayObject]) -> String {
    let here = known
        .iter()
        .filter(|gateway| gateway.namespace == namespace);
    if let Some(near) = nearest(name, here.map(|gateway| gateway.name.as_str())) {
        return format!("write {near}");
    }
    match known.iter().find(|gateway| gateway.name == name) {
        Some(elsewhere) => format!(
            "put the Application into namespace {0}, where there is such a Gateway, or write namespace: {0}",
            elsewhere.namespace
        ),
        None => "add the Gateway, or name one that exists".to_owned(),
    }
}

/// Takes keys that belong to older Applications away, and says so.
fn settle_keys(candidates: &mut [Candidate<'_>]) {
    let mut by_age: Vec<usize> = (0..candidates.len()).collect();
    by_age.sort_by(|a, b| age(candidates[*a].object, candidates[*b].object).then(a.cmp(b)));
    // Owner and its field, by gateway and key.
    let mut owners: HashMap<(usize, Vec<u8>), (usize, String)> = HashMap::new();
    for index in by_age {
        let Some(gateway) = candidates[index].gateway else {
            continue;
        };
        for key in std::mem::take(&mut candidates[index].keys) {
            let claim = (gateway, key.secret.expose().to_vec());
            let Some((owner, field)) = owners.get(&claim) else {
                owners.insert(claim, (index, key.field.clone()));
                candidates[index].keys.push(key);
                continue;
            };
            let owner = &candidates[*owner];
            let what = format!(
                "the key belongs to {} ({field}), which {}",
                owner.context.object,
                seniority(owner.object, candidates[index].object)
            );
            let instead = "remove it here or there: a key belongs to one application";
            let context = &mut candidates[index].context;
            context.problem_because(Reason::Conflicted, key.field, what, instead);
        }
    }
}

/// The oldest first. Equally old ones are told apart by name; those of unknown age come last, as they were given.
fn age(a: &ApplicationObject, b: &ApplicationObject) -> Ordering {
    match (&a.created, &b.created) {
        (Some(a_created), Some(b_created)) => a_created
            .cmp(b_created)
            .then_with(|| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name))),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn seniority(owner: &ApplicationObject, other: &ApplicationObject) -> &'static str {
    match &owner.created {
        Some(created) if other.created.as_ref().is_none_or(|other| created < other) => "is older",
        Some(_) | None => "comes first",
    }
}
