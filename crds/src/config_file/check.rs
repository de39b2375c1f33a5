//! What code that reads a configuration relies on, held against one that somebody else may have written.
//!
//! Less than `resolve` demands of a manifest: only what would make the process fail, or serve what nobody meant.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{
    Application, Delivery, Durability, Feature, GatewayConfig, Ingest, Limits, Namespace, Redis,
    Upstream,
};
use crate::problem::Problem;

struct Check<'a> {
    name: &'a str,
    problems: Vec<Problem>,
}

pub(super) fn check(name: &str, config: &GatewayConfig) -> Vec<Problem> {
    let mut check = Check {
        name,
        problems: Vec::new(),
    };
    check.gateway(config);
    check.problems
}

impl Check<'_> {
    fn demand(&mut self, holds: bool, field: impl Into<String>, what: &str) {
        if !holds {
            let object = format!("file {}", self.name);
            let instead = "write the file with sluice check MANIFEST --write DIR";
            let field = format!("gateway.{}", field.into());
            self.problems
                .push(Problem::new(object, field, what, instead));
        }
    }

    fn positive(&mut self, number: impl Into<u64>, field: impl Into<String>) {
        self.demand(number.into() > 0, field, "is zero");
    }

    fn takes_time(&mut self, time: Duration, field: impl Into<String>) {
        self.demand(!time.is_zero(), field, "is no time at all");
    }

    fn gateway(&mut self, config: &GatewayConfig) {
        self.demand(!config.name.is_empty(), "name", "is empty");
        let listeners = &config.listeners;
        self.demand(!listeners.is_empty(), "listeners", "there is none");
        let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for (index, listener) in listeners.iter().enumerate() {
            let path = format!("listeners[{index}]");
            let fresh = names.insert(&listener.name) && ports.insert(listener.port);
            self.demand(fresh, &path, "its name or port is another's");
            self.positive(listener.port, format!("{path}.port"));
        }
        let serves = config.ingest.is_some() || !config.relay.is_closed();
        self.demand(serves, "relay", "nothing would be served");
        self.relay(config);
        if let Some(ingest) = &config.ingest {
            self.ingest(ingest);
            let replicas = ingest.durability == Durability::Replicated;
            let what = "Replicated needs a Redis, and there is none";
            let holds = !replicas || config.redis.is_some();
            self.demand(holds, "ingest.durability", what);
        }
        if let Some(redis) = &config.redis {
            self.redis(redis);
        }
    }

    fn relay(&mut self, config: &GatewayConfig) {
        let relay = &config.relay;
        self.takes_time(relay.heartbeat.interval, "relay.heartbeat.interval");
        self.takes_time(relay.heartbeat.timeout, "relay.heartbeat.timeout");
        self.namespace(&relay.default_namespace, "relay.defaultNamespace");
        for (name, namespace) in &relay.namespaces {
            self.namespace(namespace, &format!("relay.namespaces[{name}]"));
        }
        if let Some(jwks) = relay
            .authentication
            .jwt
            .as_ref()
            .and_then(|jwt| jwt.jwks.as_ref())
        {
            self.takes_time(jwks.refresh, "relay.authentication.jwt.jwks.refresh");
        }
        let Limits {
            message_bytes,
            queue_bytes_per_client,
            channels_per_client,
            channel_name_bytes,
            ..
        } = relay.limits;
        for (field, number) in [
            ("messageBytes", message_bytes),
            ("queueBytesPerClient", queue_bytes_per_client),
            ("channelsPerClient", channels_per_client),
            ("channelNameBytes", channel_name_bytes),
        ] {
            self.positive(number as u64, format!("relay.limits.{field}"));
        }
    }

    fn namespace(&mut self, namespace: &Namespace, path: &str) {
        let kept = namespace.history.is_some();
        if let Some(history) = namespace.history {
            self.positive(history.size, format!("{path}.history.size"));
            self.takes_time(history.ttl, format!("{path}.history.ttl"));
        }
        for (field, feature) in [
            ("recovery", namespace.recovery),
            ("positioning", namespace.positioning),
        ] {
            let holds = kept || feature == Feature::Disabled;
            self.demand(holds, format!("{path}.{field}"), "needs history");
        }
    }

    fn ingest(&mut self, ingest: &Ingest) {
        let prefix = &ingest.accept.path_prefix;
        let holds = prefix.is_empty() || prefix.starts_with('/') && !prefix.ends_with('/');
        self.demand(holds, "ingest.accept.pathPrefix", "is no prefix of a path");
        self.positive(ingest.accept.body_bytes as u64, "ingest.accept.bodyBytes");
        let concurrent = ingest.accept.concurrent_requests as u64;
        self.positive(concurrent, "ingest.accept.concurrentRequests");
        self.takes_time(ingest.retention.time, "ingest.retention.time");
        self.positive(ingest.retention.bytes, "ingest.retention.bytes");
        self.positive(
            ingest.requests_per_minute.unwrap_or(1),
            "ingest.requestsPerMinute",
        );
        self.delivery(&ingest.delivery, "ingest.delivery");
        self.demand(
            !ingest.upstreams.is_empty(),
            "ingest.upstreams",
            "there is none",
        );
        let mut names = BTreeSet::new();
        for (index, upstream) in ingest.upstreams.iter().enumerate() {
            let path = format!("ingest.upstreams[{index}]");
            self.demand(
                names.insert(&*upstream.name),
                &path,
                "its name is another's",
            );
            self.upstream(upstream, &path);
        }
        let (mut names, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for (index, application) in ingest.applications.iter().enumerate() {
            let path = format!("ingest.applications[{index}]");
            let fresh = !application.name.is_empty() && names.insert(&*application.name);
            self.demand(fresh, &path, "its name is empty or another's");
            let mut own = application.keys.iter();
            let fresh = own.all(|key| !key.expose().is_empty() && keys.insert(key.expose()));
            self.demand(fresh, format!("{path}.keys"), "one is empty or another's");
            self.application(application, &path);
        }
    }

    fn application(&mut self, application: &Application, path: &str) {
        self.demand(
            !application.keys.is_empty(),
            format!("{path}.keys"),
            "there is none",
        );
        self.positive(application.weight, format!("{path}.weight"));
        let rate = application.requests_per_minute.unwrap_or(1);
        self.positive(rate, format!("{path}.requestsPerMinute"));
        if let Some(delivery) = &application.delivery {
            self.delivery(delivery, &format!("{path}.delivery"));
        }
        for (index, upstream) in application.upstreams.iter().enumerate() {
            self.upstream(upstream, &format!("{path}.upstreams[{index}]"));
        }
    }

    fn delivery(&mut self, delivery: &Delivery, path: &str) {
        self.positive(delivery.attempts, format!("{path}.attempts"));
        self.takes_time(delivery.backoff_initial, format!("{path}.backoffInitial"));
        self.takes_time(delivery.timeout, format!("{path}.timeout"));
        let holds = delivery.backoff_initial <= delivery.backoff_max;
        self.demand(
            holds,
            format!("{path}.backoffMax"),
            "is less than backoffInitial",
        );
    }

    fn upstream(&mut self, upstream: &Upstream, path: &str) {
        let url = &upstream.url;
        let known = url.starts_with("http://") || url.starts_with("https://");
        self.demand(
            known && !url.ends_with('/'),
            format!("{path}.url"),
            "is no address",
        );
        self.positive(upstream.weight, format!("{path}.weight"));
        self.positive(upstream.concurrency_min, format!("{path}.concurrencyMin"));
        let holds = upstream.concurrency_min <= upstream.concurrency_max;
        self.demand(
            holds,
            format!("{path}.concurrencyMax"),
            "is less than concurrencyMin",
        );
        if let Some(health) = &upstream.health {
            self.takes_time(health.interval, format!("{path}.health.interval"));
        }
    }

    fn redis(&mut self, redis: &Redis) {
        self.demand(!redis.seeds.is_empty(), "redis.seeds", "there is none");
        for (index, seed) in redis.seeds.iter().enumerate() {
            let path = format!("redis.seeds[{index}]");
            self.demand(!seed.host.is_empty(), format!("{path}.host"), "is empty");
            self.positive(seed.port, format!("{path}.port"));
        }
    }
}
