//! What no Gateway and no Application can mean is refused by the API server, in words that help.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::operator::stage::{gateway, stage, with};

/// A value somewhere in a spec, and what is said of it.
type Wrong = (&'static str, Value, &'static str);

/// A text that no message may hold.
const PASSWORD: &str = "hidden-from-all";

#[tokio::test]
async fn what_cannot_be_meant_is_refused_by_the_api_server() -> Result<()> {
    let namespace = stage("refused").await?;
    let good = with(
        &gateway(1),
        "/spec/redis",
        json!({"managed": {"topology": "Cluster"}}),
    )?;
    namespace.apply(&good.to_string()).await?;
    let wrong = [refused(), refused_of_redis_and_pods(), refused_of_ingest()].concat();
    for (pointer, value, wanted) in wrong {
        let bad = with(&good, pointer, value)?;
        let answer = namespace.apply(&bad.to_string()).await;
        let error = answer.err();
        let error = error.with_context(|| format!("{pointer} was taken"))?;
        let refusal = format!("{error:#}");
        ensure!(refusal.contains(wanted), "{pointer}: {refusal}");
        ensure!(!refusal.contains(PASSWORD), "{pointer}: {refusal}");
    }
    Ok(())
}

fn refused() -> Vec<Wrong> {
    vec![
        ("/metadata/name", json!("a".repeat(41)), "at most 40"),
        (
            "/spec/listeners",
            json!([{"name": "a", "port": 0}]),
            "greater than or equal to 1",
        ),
        (
            "/spec/listeners",
            json!([{"name": "a", "port": 8000}, {"name": "b", "port": 8000}]),
            "every listener needs a port of its own",
        ),
        (
            "/spec/listeners",
            json!([{"name": "a", "port": 8000, "protocol": "HTTPS"}]),
            "protocol HTTPS needs tls",
        ),
        (
            "/spec/relay",
            json!({"authentication": {}}),
            "nobody could connect",
        ),
        (
            "/spec/relay/authentication",
            json!({"jwt": {}}),
            "no token could be verified",
        ),
        (
            "/spec/relay/defaultNamespace",
            json!({"options": {"recovery": "Always"}}),
            "recovery needs history",
        ),
        (
            "/spec/relay/heartbeat",
            json!({"interval": "1d"}),
            "should match",
        ),
        (
            "/spec/relay/heartbeat",
            json!({"interval": "5s", "timeout": "9s"}),
            "timeout must be shorter than interval",
        ),
        ("/spec/listener", json!([]), "not declared in schema"),
    ]
}

fn refused_of_redis_and_pods() -> Vec<Wrong> {
    vec![
        (
            "/spec/redis/external",
            json!({"url": format!("redis://user:{PASSWORD}@redis")}),
            "must be redis:// or rediss://",
        ),
        (
            "/spec/redis/external",
            json!({"url": "redis://redis"}),
            "exactly one of managed and external",
        ),
        (
            "/spec/redis/managed/topology",
            json!("Standalone"),
            "topology cannot change",
        ),
        (
            "/spec/redis/managed/storage",
            json!({"size": "1Gi"}),
            "cannot shrink",
        ),
        (
            "/spec/redis/managed/replicasPerShard",
            json!(3),
            "less than or equal to 2",
        ),
        (
            "/spec/dataPlane/scaling",
            json!({"replicas": 1001}),
            "less than or equal to 1000",
        ),
        (
            "/spec/dataPlane/resources",
            json!({"requests": {"cpu": "much"}}),
            "should match",
        ),
        (
            "/spec/dataPlane/resources",
            json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}),
            "must not be above limits.memory",
        ),
        (
            "/spec/service",
            json!({"loadBalancerClass": "x"}),
            "needs type LoadBalancer",
        ),
        (
            "/spec/allowedApplications",
            json!({"namespaces": {"from": "Selector"}}),
            "needs matchLabels",
        ),
        (
            "/spec/operation",
            json!({"reconciliation": "Sometimes"}),
            "Unsupported value",
        ),
    ]
}

fn refused_of_ingest() -> Vec<Wrong> {
    let upstream = json!([{"name": "a", "url": "http://upstream"}]);
    let with_password = format!("http://user:{PASSWORD}@upstream");
    vec![
        ("/spec/ingest", json!({"upstreams": []}), "at least 1"),
        (
            "/spec/ingest",
            json!({"upstreams": [{"name": "a", "url": with_password}]}),
            "must be http:// or https://",
        ),
        (
            "/spec/ingest",
            json!({"upstreams": upstream, "accept": {"pathPrefix": "/api/x"}}),
            "paths below /api are those of relay",
        ),
        (
            "/spec/ingest",
            json!({"upstreams": upstream, "accept": {"dialect": "Generic"}}),
            "no request could be of a known application",
        ),
        (
            "/spec/ingest",
            json!({"upstreams": upstream, "retention": {"time": "30s"}}),
            "must be from 1m to 720h",
        ),
        (
            "/spec/ingest",
            json!({"upstreams": upstream, "delivery": {"backoff": {"initial": "2m", "max": "1m"}}}),
            "initial must not be longer than max",
        ),
    ]
}
