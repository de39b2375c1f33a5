//! From what the user wrote to one valid configuration, or everything that is wrong with it.
//!
//! Two passes over every object. `schema` holds the spec against the schema of the CRD (shape, bounds, patterns) and
//! repairs what it reports, so that the second pass can go on; the second pass applies the rules over several fields
//! and follows references. `attach` then brings Applications to their Gateways. All only collect: the first problem
//! never hides the next. Nothing here does I/O or panics, and no problem quotes a secret.

mod application;
mod attach;
mod authentication;
mod channel;
mod delivery;
pub(crate) mod duration;
mod gateway;
mod ingest;
mod keys;
mod limits;
pub(crate) mod pattern;
mod redis;
mod references;
mod schema;
mod upstream;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::GatewayConfig;
use crate::objects::{GatewayObject, Objects};
use crate::problem::{Problem, Reason};

/// The outcome of a resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// `Some` exactly when there are no problems, neither here nor in reading the objects.
    pub config: Option<GatewayConfig>,
    pub problems: Vec<Problem>,
}

/// What became of every object, in the order in which they were given.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub gateways: Vec<GatewayOutcome>,
    pub applications: Vec<ApplicationOutcome>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GatewayOutcome {
    pub namespace: String,
    pub name: String,
    /// `Some` exactly when the Gateway itself has no problems. Problems of Applications only keep those from it.
    pub config: Option<GatewayConfig>,
    pub problems: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ApplicationOutcome {
    pub namespace: String,
    pub name: String,
    /// Its Gateway serves it, if only with some of its keys because others belong to older Applications.
    pub attached: bool,
    pub problems: Vec<Problem>,
}

/// Resolves the one Gateway among the objects, with its Applications: all is well, or nothing is served.
pub fn resolve(objects: &Objects) -> Resolution {
    let outcome = resolve_each(objects);
    let mut problems = Vec::new();
    let mut config = None;
    for gateway in outcome.gateways {
        problems.extend(gateway.problems);
        config = config.or(gateway.config);
    }
    problems.extend(not_one_gateway(objects));
    for application in outcome.applications {
        problems.extend(application.problems);
    }
    let config = config.filter(|_| problems.is_empty() && !objects.incomplete);
    Resolution { config, problems }
}

/// Resolves every object for itself: what is wrong with one keeps no other from being served.
pub fn resolve_each(objects: &Objects) -> Outcome {
    let gateways = objects.gateways.iter();
    let judged = gateways
        .map(|gateway| gateway::resolve(gateway, objects))
        .collect();
    attach::attach(judged, objects)
}

fn not_one_gateway(objects: &Objects) -> Vec<Problem> {
    match objects.gateways.as_slice() {
        // Where something could not be read, that problem says more than this one.
        [] if objects.incomplete => Vec::new(),
        [] => {
            let instead = "write a document of kind Gateway, apiVersion sluice.dev/v1alpha1";
            vec![Problem::new("manifest", "", "there is no Gateway", instead)]
        }
        [_, others @ ..] => {
            let second = |other: &GatewayObject| {
                let object = gateway::name(&other.namespace, &other.name);
                let what = "a second Gateway, and one process serves one";
                let instead = "keep one, and run another process for the other";
                Problem::new(object, "", what, instead)
            };
            others.iter().map(second).collect()
        }
    }
}

/// Collects the problems of one object, and what finding them needs.
struct Context<'a> {
    objects: &'a Objects,
    object: String,
    namespace: &'a str,
    /// Paths at and below which the spec was repaired with values that the user did not write: the first pass has
    /// reported them, and nothing more is said of them.
    concerned: Vec<String>,
    problems: Vec<Problem>,
}

impl<'a> Context<'a> {
    /// Holds a spec against its schema. The spec is `None` only where schema and types disagree.
    fn read<T: DeserializeOwned>(
        schema: &schema::Schema,
        objects: &'a Objects,
        object: String,
        namespace: &'a str,
        spec: &Value,
    ) -> (Self, Option<T>) {
        let checked = schema.check(&object, spec);
        let mut context = Self {
            objects,
            object,
            namespace,
            concerned: checked.concerned,
            problems: checked.problems,
        };
        match serde_json::from_value(checked.repaired) {
            Ok(spec) => (context, Some(spec)),
            Err(error) => {
                // The repair makes every value fit.
                let what = format!("cannot be read: {error}");
                let problem = Problem::new(&context.object, "spec", what, "correct it");
                context.problems.push(problem);
                (context, None)
            }
        }
    }

    fn problem(
        &mut self,
        field: impl Into<String>,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) {
        self.problem_because(Reason::Invalid, field, what, instead);
    }

    fn problem_because(
        &mut self,
        reason: Reason,
        field: impl Into<String>,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) {
        let field = field.into();
        if !self.is_concerned(&field) {
            let problem = Problem::new(&self.object, field, what, instead);
            self.problems.push(Problem { reason, ..problem });
        }
    }

    /// Whether the value of a field is not what the user wrote.
    fn is_concerned(&self, field: &str) -> bool {
        self.concerned
            .iter()
            .any(|path| schema::is_at_or_below(field, path))
    }

    /// Whether one of several fields of an object is not what the user wrote.
    fn is_any_concerned(&self, path: &str, fields: &[&str]) -> bool {
        let mut fields = fields.iter();
        fields.any(|field| self.is_concerned(&format!("{path}.{field}")))
    }
}
