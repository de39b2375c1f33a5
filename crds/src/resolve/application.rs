//! One Application: its keys, its salt, and what it wants otherwise than its Gateway.

use std::sync::Arc;

use crate::application::{ApplicationSpec, Key, Processing, Salt};
use crate::config::{self, Secret};
use crate::gateway::{SecretKey, Upstream};

use super::{Context, delivery, duration, limits, references, upstream};

/// As for keys that are written in place.
const KEY_CHARS_MAX: usize = 256;

/// The Gateway that an Application names.
pub(super) struct Target<'a> {
    /// As problems name it.
    pub(super) object: &'a str,
    pub(super) ingest: &'a config::Ingest,
    /// It has no problems of its own, so that what it says is what the user wrote.
    pub(super) sound: bool,
}

/// A key and the field that names it.
pub(super) struct FoundKey {
    pub(super) secret: Secret,
    pub(super) field: String,
}

/// Judges all but whose the keys are: the application comes without them, and they beside it.
pub(super) fn resolve(
    name: &str,
    spec: &ApplicationSpec,
    target: Option<&Target<'_>>,
    context: &mut Context<'_>,
) -> (config::Application, Vec<FoundKey>) {
    if let Some(target) = target.filter(|target| target.sound) {
        check_dialect(spec, target, context);
    }
    let sound = target.filter(|target| target.sound);
    let delivery = spec.delivery.as_ref().map(|spec| {
        let gateway = sound.map(|target| &target.ingest.delivery);
        delivery::overridden(spec, gateway, context)
    });
    let application = config::Application {
        name: name.to_owned(),
        keys: Vec::new(),
        salt: spec.salt.as_ref().and_then(|spec| salt(spec, context)),
        requests_per_minute: spec.throttle.requests_per_minute.map(limits::rate),
        weight: limits::rate(spec.throttle.weight),
        delivery,
        upstreams: upstreams(name, &spec.upstreams, target, context),
        retention: spec
            .retention
            .as_ref()
            .map(|retention| duration::parse_or_zero(&retention.time)),
        paused: spec.processing == Processing::Paused,
    };
    (application, keys(&spec.keys, context))
}

/// What the dialect of the Gateway makes impossible.
fn check_dialect(spec: &ApplicationSpec, target: &Target<'_>, context: &mut Context<'_>) {
    let config::Dialect::Generic(generic) = &target.ingest.accept.dialect else {
        return;
    };
    if generic.application_key.is_none() {
        let what = format!(
            "{} takes no application key from requests, so none would be of this application",
            target.object
        );
        let instead = "write spec.ingest.accept.generic.applicationKey there, or remove this one";
        context.problem("spec.gatewayRef.name", what, instead);
    }
    if spec.salt.is_some() {
        let what = format!(
            "{} has dialect Generic, which knows no checksums",
            target.object
        );
        context.problem("spec.salt", what, "remove it");
    }
}

/// Named after the application, so that no two upstreams of a gateway share a name, unless it is one of the gateway's.
fn upstreams(
    application: &str,
    specs: &[Upstream],
    target: Option<&Target<'_>>,
    context: &mut Context<'_>,
) -> Vec<Arc<config::Upstream>> {
    let of_gateway = target.map_or(&[][..], |target| &target.ingest.upstreams);
    let own = |upstream: config::Upstream| {
        let shared = of_gateway.iter().find(|known| ***known == upstream);
        shared.cloned().unwrap_or_else(|| {
            let name = format!("{application}/{}", upstream.name);
            Arc::new(config::Upstream { name, ..upstream })
        })
    };
    upstream::resolve(specs, "spec.upstreams", context)
        .into_iter()
        .map(own)
        .collect()
}

fn keys(specs: &[Key], context: &mut Context<'_>) -> Vec<FoundKey> {
    let mut found: Vec<(usize, FoundKey)> = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("spec.keys[{index}]");
        let Some(key) = key(spec, &path, context) else {
            continue;
        };
        match found.iter().find(|(_, known)| known.secret == key.secret) {
            Some((first, _)) => {
                let what = format!("the same key as keys[{first}]");
                context.problem(key.field, what, "keep one of them");
            }
            None => found.push((index, key)),
        }
    }
    found.into_iter().map(|(_, key)| key).collect()
}

fn key(spec: &Key, path: &str, context: &mut Context<'_>) -> Option<FoundKey> {
    let (secret, field) = match source(&spec.value, &spec.secret_ref, path, context)? {
        Source::Value(value) => (Secret::new(value.as_bytes()), format!("{path}.value")),
        Source::Reference(reference) => {
            let path = format!("{path}.secretRef");
            let secret = references::text(reference, &path, context)?;
            (secret, format!("{path}.key"))
        }
    };
    let problem = match std::str::from_utf8(secret.expose()) {
        Err(_) => Some(("the value is not text", "put the key there as text")),
        Ok(text) if text.trim() != text => Some((
            "the value begins or ends with white space",
            "write it without",
        )),
        Ok(text) if text.chars().count() > KEY_CHARS_MAX => {
            Some(("the value is too long", "write at most 256 characters"))
        }
        Ok(_) => None,
    };
    if let Some((what, instead)) = problem {
        context.problem(field, what, instead);
        return None;
    }
    Some(FoundKey { secret, field })
}

fn salt(spec: &Salt, context: &mut Context<'_>) -> Option<Secret> {
    let path = "spec.salt";
    match source(&spec.value, &spec.secret_ref, path, context)? {
        Source::Reference(reference) => {
            references::text(reference, &format!("{path}.secretRef"), context)
        }
        Source::Value(value) => {
            let secret = Secret::new(value.as_bytes());
            let problem = if value.trim().is_empty() {
                Some(references::BLANK)
            } else {
                value.ends_with('\n').then_some(references::LINE_BREAK)
            };
            if let Some((what, instead)) = problem {
                context.problem(format!("{path}.value"), what, instead);
                return None;
            }
            Some(secret)
        }
    }
}

enum Source<'a> {
    Value(&'a str),
    Reference(&'a SecretKey),
}

/// The one of the two that is set.
fn source<'a>(
    value: &'a Option<String>,
    secret_ref: &'a Option<SecretKey>,
    path: &str,
    context: &mut Context<'_>,
) -> Option<Source<'a>> {
    match (value, secret_ref) {
        (Some(value), None) => Some(Source::Value(value)),
        (None, Some(reference)) => Some(Source::Reference(reference)),
        (None, None) => {
            if !context.is_any_concerned(path, &["value", "secretRef"]) {
                let instead = "write value, or secretRef with name and key";
                context.problem(path, "names no source", instead);
            }
            None
        }
        (Some(_), Some(_)) => {
            context.problem(path, "names more than one source", "keep one of them");
            None
        }
    }
}
