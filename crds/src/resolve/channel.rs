//! Channel options.

use crate::config::{self, Allowed, Namespace};
use crate::gateway::{Access, ChannelOptions, Delta, Feature, SubscribeAccess, Switch};

use super::{Context, duration};

pub(super) fn options(spec: &ChannelOptions, path: &str, context: &mut Context<'_>) -> Namespace {
    for (name, feature) in [
        ("recovery", spec.recovery),
        ("positioning", spec.positioning),
    ] {
        if spec.history.is_none() && feature != Feature::Disabled {
            let what = format!("{name} needs history, and these channels keep none");
            let instead = format!("write history: {{size: 100, ttl: 5m}}, or {name}: Disabled");
            context.problem(format!("{path}.{name}"), what, instead);
        }
    }
    Namespace {
        presence: spec.presence == Switch::Enabled,
        join_leave: feature(spec.join_leave),
        history: spec.history.as_ref().map(|history| config::History {
            size: u32::try_from(history.size).unwrap_or_default(),
            ttl: duration::parse_or_zero(&history.ttl),
        }),
        recovery: feature(spec.recovery),
        positioning: feature(spec.positioning),
        delta: spec.delta == Delta::Fossil,
        subscribe: match spec.allow.subscribe {
            SubscribeAccess::Nobody => Allowed::Nobody,
            SubscribeAccess::Token => Allowed::Subscriber,
            SubscribeAccess::Authenticated => Allowed::Authenticated,
            SubscribeAccess::Anyone => Allowed::Anyone,
        },
        publish: access(spec.allow.publish),
        ask_presence: access(spec.allow.presence),
        ask_history: access(spec.allow.history),
    }
}

fn feature(feature: Feature) -> config::Feature {
    match feature {
        Feature::Disabled => config::Feature::Disabled,
        Feature::OnRequest => config::Feature::OnRequest,
        Feature::Always => config::Feature::Always,
    }
}

fn access(access: Access) -> Allowed {
    match access {
        Access::Nobody => Allowed::Nobody,
        Access::Subscriber => Allowed::Subscriber,
        Access::Authenticated => Allowed::Authenticated,
        Access::Anyone => Allowed::Anyone,
    }
}
