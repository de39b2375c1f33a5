//! How requests are delivered: what the Gateway says, and what an Application wants otherwise.

use std::time::Duration;

use crate::config;
use crate::gateway::{Delivery, DeliveryOverride, Ordering};

use super::{Context, duration, limits};

/// What a Gateway says, at `spec.ingest.delivery`.
pub(super) fn resolve(spec: &Delivery, context: &mut Context<'_>) -> config::Delivery {
    let delivery = config::Delivery {
        attempts: limits::rate(spec.attempts),
        backoff_initial: duration::parse_or_zero(&spec.backoff.initial),
        backoff_max: duration::parse_or_zero(&spec.backoff.max),
        timeout: duration::parse_or_zero(&spec.timeout),
        ordering: ordering(spec.ordering),
    };
    check_backoff(&delivery, "spec.ingest.delivery.backoff", "", context);
    delivery
}

/// What an Application wants at `spec.delivery`, and else what its Gateway says, if that is known.
pub(super) fn overridden(
    spec: &DeliveryOverride,
    gateway: Option<&config::Delivery>,
    context: &mut Context<'_>,
) -> config::Delivery {
    let mut delivery = match gateway {
        Some(delivery) => delivery.clone(),
        None => resolve(&Delivery::default(), context),
    };
    let time = |written: &Option<String>, otherwise: Duration| {
        written
            .as_deref()
            .map_or(otherwise, duration::parse_or_zero)
    };
    delivery.attempts = spec.attempts.map_or(delivery.attempts, limits::rate);
    delivery.timeout = time(&spec.timeout, delivery.timeout);
    delivery.ordering = spec.ordering.map_or(delivery.ordering, ordering);
    if let Some(backoff) = &spec.backoff {
        delivery.backoff_initial = time(&backoff.initial, delivery.backoff_initial);
        delivery.backoff_max = time(&backoff.max, delivery.backoff_max);
        let by_gateway = match (&backoff.initial, &backoff.max) {
            (Some(_), None) => " of the Gateway",
            (None, Some(_)) => ", while initial is that of the Gateway",
            (Some(_), Some(_)) | (None, None) => "",
        };
        if gateway.is_some() || by_gateway.is_empty() {
            check_backoff(&delivery, "spec.delivery.backoff", by_gateway, context);
        }
    }
    delivery
}

fn check_backoff(
    delivery: &config::Delivery,
    path: &str,
    by_gateway: &str,
    context: &mut Context<'_>,
) {
    let (initial, max) = (delivery.backoff_initial, delivery.backoff_max);
    if initial > max && !context.is_concerned(&format!("{path}.max")) {
        let what = format!(
            "{} is longer than max, {}{by_gateway}",
            duration::text(initial),
            duration::text(max)
        );
        let instead = "write a shorter initial, or a longer max";
        context.problem(format!("{path}.initial"), what, instead);
    }
}

fn ordering(ordering: Ordering) -> config::Ordering {
    match ordering {
        Ordering::PerKey => config::Ordering::PerKey,
        Ordering::None => config::Ordering::None,
    }
}
