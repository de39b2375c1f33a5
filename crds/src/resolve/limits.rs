//! Limits and heartbeat.

use crate::config;
use crate::gateway::{Heartbeat, Limits};

use super::{Context, duration};

pub(super) fn limits(spec: &Limits, context: &mut Context<'_>) -> config::Limits {
    if spec.queue_bytes_per_client < spec.message_bytes {
        let what = format!(
            "{} holds no message of messageBytes",
            spec.queue_bytes_per_client
        );
        let instead = format!(
            "write {} or more, or lower messageBytes",
            spec.message_bytes
        );
        context.problem("spec.relay.limits.queueBytesPerClient", what, instead);
    }
    config::Limits {
        message_bytes: size(spec.message_bytes),
        queue_bytes_per_client: size(spec.queue_bytes_per_client),
        channels_per_client: size(spec.channels_per_client),
        channel_name_bytes: size(spec.channel_name_bytes),
        connections: spec.connections.map(size),
        connections_per_account: spec.connections_per_account.map(size),
        connections_per_second: spec.connections_per_second.map(rate),
        messages_per_second_per_client: spec.messages_per_second_per_client.map(rate),
        commands_per_second_per_client: spec.commands_per_second_per_client.map(rate),
        messages_per_second_per_account: spec.messages_per_second_per_account.map(rate),
    }
}

pub(super) fn heartbeat(spec: &Heartbeat, context: &mut Context<'_>) -> config::Heartbeat {
    let interval = duration::parse_or_zero(&spec.interval);
    let timeout = duration::parse_or_zero(&spec.timeout);
    if timeout >= interval {
        let what = format!(
            "{} is not shorter than the interval of {}",
            spec.timeout, spec.interval
        );
        context.problem(
            "spec.relay.heartbeat.timeout",
            what,
            "write a shorter timeout, or a longer interval",
        );
    }
    config::Heartbeat { interval, timeout }
}

/// The schema bounds every number from below.
pub(super) fn size(number: i32) -> usize {
    usize::try_from(number).unwrap_or_default()
}

pub(super) fn rate(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}
