//! Ingest: what a Gateway accepts, and how it keeps and delivers it. Its Applications come in `attach`.

use std::sync::Arc;

use crate::config;
use crate::gateway::{
    Accept, Dialect, Durability, Generic, Ingest, RequestPart, Switch, UnknownKeys,
};

use super::{Context, delivery, duration, limits, upstream};

/// Where the relay answers: no request below it reaches ingest.
const RELAY_PATH: &str = "/api";

pub(super) fn resolve(spec: &Ingest, has_relay: bool, context: &mut Context<'_>) -> config::Ingest {
    let upstreams = upstream::resolve(&spec.upstreams, "spec.ingest.upstreams", context);
    config::Ingest {
        accept: accept(&spec.accept, has_relay, context),
        durability: match spec.durability {
            Durability::Memory => config::Durability::Memory,
            Durability::Group => config::Durability::Group,
            Durability::Replicated => config::Durability::Replicated,
        },
        retention: config::RetentionBudget {
            time: duration::parse_or_zero(&spec.retention.time),
            // The schema bounds it from below.
            bytes: u64::try_from(spec.retention.bytes).unwrap_or_default(),
        },
        redact: redact(&spec.redact, context),
        requests_per_minute: spec.throttle.requests_per_minute.map(limits::rate),
        delivery: delivery::resolve(&spec.delivery, context),
        upstreams: upstreams.into_iter().map(Arc::new).collect(),
        applications: Vec::new(),
    }
}

fn accept(spec: &Accept, has_relay: bool, context: &mut Context<'_>) -> config::Accept {
    check_dialect(spec, context);
    config::Accept {
        dialect: match spec.dialect {
            Dialect::Countly => config::Dialect::Countly,
            Dialect::Generic => config::Dialect::Generic(generic(spec.generic.as_ref(), context)),
        },
        path_prefix: path_prefix(spec.path_prefix.as_deref(), has_relay, context),
        body_bytes: limits::size(spec.body_bytes),
        concurrent_requests: limits::size(spec.concurrent_requests),
        required_fields: required_fields(&spec.required_fields, context),
        tamper_check: spec.tamper_check == Switch::Enabled,
        unknown_keys: match spec.unknown_keys {
            UnknownKeys::Reject => config::UnknownKeys::Reject,
            UnknownKeys::AcceptAndDiscard => config::UnknownKeys::AcceptAndDiscard,
            UnknownKeys::Accept => config::UnknownKeys::Accept,
        },
    }
}

fn check_dialect(spec: &Accept, context: &mut Context<'_>) {
    let path = "spec.ingest.accept";
    if context.is_concerned(&format!("{path}.dialect")) {
        return;
    }
    let has_key = spec
        .generic
        .as_ref()
        .is_some_and(|generic| generic.application_key.is_some());
    match spec.dialect {
        Dialect::Countly if spec.generic.is_some() => {
            let instead = "write dialect: Generic, or remove generic";
            context.problem(
                format!("{path}.generic"),
                "dialect Countly takes no generic",
                instead,
            );
        }
        Dialect::Generic if !has_key && spec.unknown_keys != UnknownKeys::Accept => {
            let unread = format!("{path}.generic.applicationKey");
            if !context.is_concerned(&unread) {
                let what = "no request would be delivered: none is of a known application";
                let instead =
                    "write generic: {applicationKey: {header: <name>}}, or unknownKeys: Accept";
                context.problem(format!("{path}.unknownKeys"), what, instead);
            }
        }
        Dialect::Countly | Dialect::Generic => {}
    }
}

fn generic(spec: Option<&Generic>, context: &mut Context<'_>) -> config::Generic {
    let path = "spec.ingest.accept.generic";
    let mut named = |part: Option<&RequestPart>, field: &str| {
        part.and_then(|part| request_part(part, &format!("{path}.{field}"), context))
    };
    config::Generic {
        application_key: named(
            spec.and_then(|spec| spec.application_key.as_ref()),
            "applicationKey",
        ),
        ordering_key: named(
            spec.and_then(|spec| spec.ordering_key.as_ref()),
            "orderingKey",
        ),
    }
}

fn redact(specs: &[RequestPart], context: &mut Context<'_>) -> Vec<config::RequestPart> {
    let parts = specs.iter().enumerate();
    parts
        .filter_map(|(index, spec)| {
            request_part(spec, &format!("spec.ingest.redact[{index}]"), context)
        })
        .collect()
}

fn required_fields(specs: &[RequestPart], context: &mut Context<'_>) -> Vec<config::RequestPart> {
    let path = "spec.ingest.accept.requiredFields";
    let mut parts: Vec<(usize, config::RequestPart)> = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(part) = request_part(spec, &path, context) else {
            continue;
        };
        match parts.iter().find(|(_, known)| *known == part) {
            Some((first, _)) => {
                let what = format!("the same as requiredFields[{first}]");
                context.problem(path, what, "keep one of them");
            }
            None => parts.push((index, part)),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

fn request_part(
    spec: &RequestPart,
    path: &str,
    context: &mut Context<'_>,
) -> Option<config::RequestPart> {
    match (&spec.header, &spec.parameter) {
        (Some(header), None) => Some(config::RequestPart::Header(header.to_ascii_lowercase())),
        (None, Some(parameter)) => Some(config::RequestPart::Parameter(parameter.clone())),
        (None, None) => {
            if !context.is_any_concerned(path, &["header", "parameter"]) {
                let instead = "write header: <name> or parameter: <name>";
                context.problem(path, "names no part of a request", instead);
            }
            None
        }
        (Some(_), Some(_)) => {
            let what = "names both a header and a parameter";
            context.problem(path, what, "keep one of them");
            None
        }
    }
}

/// The prefix without the slash at its end; empty when there is none.
fn path_prefix(spec: Option<&str>, has_relay: bool, context: &mut Context<'_>) -> String {
    let path = "spec.ingest.accept.pathPrefix";
    let Some(prefix) = spec else {
        return String::new();
    };
    let odd = |segment: &str| segment == "." || segment == "..";
    if prefix.contains("//") || prefix.split('/').any(odd) {
        let what = "a part of the path is empty, . or .., and clients or proxies would change it";
        context.problem(path, what, "write it without");
    }
    let trimmed = prefix.strip_suffix('/').unwrap_or(prefix);
    let is_of_relay = trimmed
        .strip_prefix(RELAY_PATH)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if has_relay && is_of_relay {
        let what = format!("the paths below {RELAY_PATH} are those of relay");
        context.problem(path, what, "write another prefix");
    }
    trimmed.to_owned()
}
