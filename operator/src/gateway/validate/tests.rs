use serde_json::json;

use super::*;
use crate::fixtures::defaults;
use crate::world::Live;
use sluice_crds::objects::{GatewayObject, Objects};

fn judged(name: &str, spec: Value) -> Judgement {
    let gateway = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Gateway",
        "metadata": {"name": name, "namespace": "n", "uid": "u"}, "spec": spec,
    });
    let objects = Objects {
        gateways: vec![GatewayObject {
            namespace: "n".to_owned(),
            name: name.to_owned(),
            spec: gateway["spec"].clone(),
        }],
        ..Objects::default()
    };
    let snapshot = Snapshot {
        key: ("n".to_owned(), name.to_owned()),
        gateway: Arc::new(serde_json::from_value(gateway).unwrap()),
        applications: Vec::new(),
        objects,
        live: Live::new(),
        pods: Vec::new(),
    };
    validate(&snapshot, &defaults(), Vec::new(), None)
}

fn spec() -> Value {
    json!({
        "listeners": [{"name": "a", "port": 8000}],
        "relay": {"authentication": {"anonymous": "Allowed"}},
        "redis": {"external": {"url": "redis://r"}},
    })
}

#[test]
fn a_gateway_is_valid_or_has_problems() {
    let good = judged("g", spec());
    assert!(good.validated.is_some() && good.problems.is_empty());
    let mut bad = spec();
    bad["listeners"][0]["port"] = 8081.into();
    let long = "a".repeat(41);
    for (name, spec, field) in [
        ("g", bad, "spec.listeners[0].port"),
        (long.as_str(), spec(), "metadata.name"),
        ("a.b", spec(), "metadata.name"),
        ("1a", spec(), "metadata.name"),
    ] {
        let judged = judged(name, spec);
        assert!(judged.validated.is_none());
        assert_eq!(judged.problems[0].field, field);
    }
}

#[test]
fn without_redis_there_is_one_pod() {
    let mut alone = spec();
    alone["redis"] = Value::Null;
    let judged = judged("g", alone);
    assert_eq!(judged.validated.unwrap().replicas, 1);
    assert!(judged.limited.unwrap().starts_with("1 of 2 pods"));
}

#[test]
fn a_redis_that_nobody_runs_yet_is_a_problem() {
    let mut managed = spec();
    managed["redis"] = json!({"managed": {}});
    assert_eq!(judged("g", managed).problems[0].field, "spec.redis.managed");
}
