//! Upstreams: where requests are delivered.

use crate::config;
use crate::gateway::Upstream;

use super::{Context, duration, limits};

/// What an address may be, for those who wrote another.
const ADDRESS: &str = "write http:// or https://, a host, and optionally a port and a path";

/// The upstreams of a list whose path is given; their names are as written.
pub(super) fn resolve(
    specs: &[Upstream],
    path: &str,
    context: &mut Context<'_>,
) -> Vec<config::Upstream> {
    let mut upstreams = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        upstreams.push(one(spec, &format!("{path}[{index}]"), context));
    }
    upstreams
}

fn one(spec: &Upstream, path: &str, context: &mut Context<'_>) -> config::Upstream {
    let url = address(&spec.url).unwrap_or_else(|what| {
        context.problem(format!("{path}.url"), what, ADDRESS);
        ""
    });
    let concurrency = &spec.concurrency;
    if concurrency.min > concurrency.max && !context.is_concerned(&format!("{path}.concurrency")) {
        let what = format!(
            "{} is greater than max, {}",
            concurrency.min, concurrency.max
        );
        let instead = "write a smaller min, or a greater max";
        context.problem(format!("{path}.concurrency.min"), what, instead);
    }
    config::Upstream {
        name: spec.name.clone(),
        url: url.to_owned(),
        weight: limits::rate(spec.weight),
        priority: limits::rate(spec.priority),
        concurrency_min: limits::rate(concurrency.min),
        concurrency_max: limits::rate(concurrency.max),
        health: spec.health.as_ref().map(|health| config::Health {
            path: health.path.clone(),
            interval: duration::parse_or_zero(&health.interval),
        }),
    }
}

/// The address without the slashes at its end, or what is wrong with it. Never quotes it: it may hold a password.
///
/// The CRD says the same in CEL; only here a number in brackets must be an IPv6 address.
fn address(url: &str) -> Result<&str, &'static str> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or("the address does not begin with http:// or https://")?;
    if rest.contains('?') {
        return Err("the address holds a query");
    }
    if rest.contains('#') {
        return Err("the address holds a fragment");
    }
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if authority.contains('@') {
        return Err("the address holds a user or password");
    }
    host_and_port(authority)?;
    if !is_path(path) {
        return Err("the path holds characters that no path has");
    }
    Ok(url.trim_end_matches('/'))
}

pub(super) fn host_and_port(authority: &str) -> Result<(), &'static str> {
    let (is_host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or("the host is no host")?;
            (address.parse::<std::net::Ipv6Addr>().is_ok(), after)
        }
        None => {
            let (host, port) = match authority.find(':') {
                Some(at) => authority.split_at(at),
                None => (authority, ""),
            };
            if host.is_empty() {
                return Err("the address has no host");
            }
            (is_host_name(host), port)
        }
    };
    if !is_host {
        return Err("the host is no host");
    }
    if port.is_empty() {
        return Ok(());
    }
    let digits = port.strip_prefix(':').ok_or("the host is no host")?;
    let is_number = digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(1..) if is_number => Ok(()),
        Ok(_) | Err(_) => Err("the port is not a number from 1 to 65535"),
    }
}

fn is_host_name(host: &str) -> bool {
    let first = host.bytes().next();
    let last = host.bytes().next_back();
    first.is_some_and(|b| b.is_ascii_alphanumeric())
        // A dot at the end makes a name absolute.
        && last.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'.')
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn is_path(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|b| b.is_ascii_hexdigit())),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte),
        };
        if !fits {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests;
