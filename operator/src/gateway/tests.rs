//! Whole passes over a Gateway, on the double of the API server.

use serde_json::{Value, json};

use super::build::Validated;
use crate::fixtures::{GATEWAY_PATH, Stage, gateway, pod};

const SPEC: &str = "
listeners: [{name: clients, port: 8000}]
relay: {authentication: {anonymous: Allowed}}
redis: {external: {url: 'redis://redis'}}
";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/n/deployments/g";
const SERVICE: &str = "/api/v1/namespaces/n/services/g";
const CONFIG: &str = "/api/v1/namespaces/n/configmaps/g-config";

fn stage(spec: &str) -> Stage {
    let stage = Stage::new();
    stage.server.put(GATEWAY_PATH, gateway(spec));
    stage
}

fn edit_spec(stage: &Stage, edit: impl FnOnce(&mut Value)) {
    stage.server.edit(GATEWAY_PATH, |gateway| {
        let generation = gateway["metadata"]["generation"].as_i64().unwrap();
        gateway["metadata"]["generation"] = (generation + 1).into();
        edit(&mut gateway["spec"]);
    });
}

fn kinds(writes: &[String]) -> Vec<&str> {
    writes
        .iter()
        .map(|asked| asked.rsplit('/').nth(1).unwrap_or_default())
        .collect()
}

/// How often pod `a` is written to in a pass.
async fn told(stage: &Stage) -> usize {
    stage.server.show(&stage.world);
    stage.server.asked();
    let key = ("n".to_owned(), "g".to_owned());
    stage.reconciler.reconcile(&key).await;
    let asked = stage.server.asked().into_iter();
    let told = asked.filter(|asked| asked == "PATCH /api/v1/namespaces/n/pods/a");
    told.count()
}

/// Of the configuration that was found valid last.
fn digest(stage: &Stage) -> String {
    let memory = stage.reconciler.memory.lock().unwrap();
    let valid = memory.values().next().unwrap().last_good.clone().unwrap();
    let trusted = stage.reconciler.fleets.trusted();
    crate::gateway::build::config_digest(&Validated { trusted, ..valid })
}

#[tokio::test]
async fn a_new_gateway_is_made_in_order_and_then_left_alone() {
    let stage = stage(SPEC);
    let writes = stage.pass().await;
    let made = [
        "serviceaccounts",
        "secrets",
        "configmaps",
        "controllerrevisions",
        "networkpolicies",
        "poddisruptionbudgets",
        "deployments",
        "services",
        "endpointslices",
        "g",
    ];
    assert_eq!(kinds(&writes), made, "{writes:#?}");
    assert!(writes.iter().all(|asked| asked.starts_with("PATCH")));
    assert_eq!(stage.condition("Programmed").unwrap().0, "True");
    let ready = stage.condition("Ready").unwrap();
    assert_eq!(
        (ready.0.as_str(), ready.1.as_str()),
        ("False", "PodsNotReady")
    );
    // Now the watches show what was made.
    assert_eq!(stage.pass().await, Vec::<String>::new());
}

#[tokio::test]
async fn ready_pods_make_it_ready_and_enter_the_slice() {
    let stage = stage(SPEC);
    stage.pass().await;
    for (name, ip) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
        stage
            .world
            .pods
            .put(("n".to_owned(), name.to_owned()), pod(name, ip));
    }
    stage.server.edit(DEPLOYMENT, |deployment| {
        deployment["status"] = json!({
            "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2
        });
    });
    let writes = stage.pass().await;
    assert_eq!(kinds(&writes), ["endpointslices", "g"], "{writes:#?}");
    assert_eq!(stage.condition("Ready").unwrap().0, "True");
    assert!(stage.condition("Reconciling").is_none());
    let slice = "/apis/discovery.k8s.io/v1/namespaces/n/endpointslices/g-ipv4-0";
    let slice = stage.server.get(slice).unwrap();
    assert_eq!(slice["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(stage.pass().await, Vec::<String>::new());
}

#[tokio::test]
async fn kubelets_are_told_of_a_changed_configuration_once() {
    let stage = stage(SPEC);
    stage.pass().await;
    stage
        .world
        .pods
        .put(("n".to_owned(), "a".to_owned()), pod("a", "10.0.0.1"));
    assert_eq!(told(&stage).await, 1);
    let mut knows = pod("a", "10.0.0.1");
    knows.config = digest(&stage);
    stage
        .world
        .pods
        .put(("n".to_owned(), "a".to_owned()), knows);
    assert_eq!(told(&stage).await, 0);
    edit_spec(&stage, |spec| {
        spec["relay"]["limits"] = json!({"connections": 7})
    });
    assert_eq!(told(&stage).await, 1);
}

#[tokio::test]
async fn a_pod_that_is_not_to_go_any_more_costs_as_much_as_others() {
    let stage = stage(SPEC);
    stage.pass().await;
    let mut chosen = pod("a", "10.0.0.1");
    chosen.goes_first = true;
    chosen.config = digest(&stage);
    let key = ("n".to_owned(), "a".to_owned());
    stage.world.pods.put(key, chosen);
    assert_eq!(told(&stage).await, 1);
}

#[tokio::test]
async fn a_lowered_maximum_holds_though_there_are_more_pods() {
    let stage = stage(SPEC);
    for (mode, most) in [("Managed", 3), ("Fixed", 8)] {
        edit_spec(&stage, |spec| {
            spec["dataPlane"] = json!({"scaling": {"mode": mode, "max": 3}})
        });
        stage.pass().await;
        let memory = stage.reconciler.memory.lock().unwrap();
        let mut valid = memory.values().next().unwrap().last_good.clone().unwrap();
        // What safe rates are to fit for.
        std::sync::Arc::make_mut(&mut valid.config).data_planes_max = 8;
        let gateway = serde_json::from_value(gateway(SPEC)).unwrap();
        assert_eq!(
            crate::fleet::policy(&valid, &gateway).scaling.max,
            most,
            "{mode}"
        );
    }
}

#[tokio::test]
async fn pods_that_are_too_many_stay_until_the_manager_says_who_goes() {
    let stage = stage(SPEC);
    edit_spec(&stage, |spec| {
        spec["dataPlane"] = json!({"scaling": {"replicas": 5}})
    });
    stage.pass().await;
    let replicas = || stage.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"].clone();
    assert_eq!(replicas(), 5);
    edit_spec(&stage, |spec| {
        spec["dataPlane"] = json!({"scaling": {"replicas": 3}})
    });
    stage.pass().await;
    assert_eq!(replicas(), 5);
    edit_spec(&stage, |spec| {
        spec["dataPlane"] = json!({"scaling": {"replicas": 6}})
    });
    stage.pass().await;
    assert_eq!(replicas(), 6);
}

#[tokio::test]
async fn drift_is_repaired_and_nothing_else_is_written() {
    let stage = stage(SPEC);
    stage.pass().await;
    for edited in [1, 7] {
        stage.server.edit(DEPLOYMENT, |deployment| {
            deployment["spec"]["replicas"] = edited.into()
        });
        assert_eq!(stage.pass().await, [format!("PATCH {DEPLOYMENT}")]);
        assert_eq!(stage.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"], 2);
    }
    stage.server.remove(SERVICE);
    assert_eq!(stage.pass().await, [format!("PATCH {SERVICE}")]);
    // A selector would let Kubernetes write endpoints besides the operator.
    stage.server.edit(SERVICE, |service| {
        service["spec"]["selector"] = json!({"a": "b"})
    });
    stage.pass().await;
    assert!(
        stage.server.get(SERVICE).unwrap()["spec"]
            .get("selector")
            .is_none()
    );
    // Additions of others are theirs.
    stage.server.edit(SERVICE, |service| {
        service["metadata"]["annotations"]["lb"] = "x".into();
        service["spec"]["clusterIP"] = "10.0.0.1".into();
    });
    assert_eq!(stage.pass().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_bad_spec_is_said_and_the_last_good_one_is_kept_up() {
    let stage = stage(SPEC);
    stage.pass().await;
    let config = stage.server.get(CONFIG).unwrap();
    edit_spec(&stage, |spec| spec["listeners"][0]["port"] = 8081.into());
    let writes = stage.pass().await;
    assert_eq!(kinds(&writes), ["g"], "{writes:#?}");
    let accepted = stage.condition("Accepted").unwrap();
    assert_eq!(
        (accepted.0.as_str(), accepted.1.as_str()),
        ("False", "Invalid")
    );
    assert!(accepted.2.contains("write another port"), "{}", accepted.2);
    assert_eq!(stage.condition("Stalled").unwrap().0, "True");
    stage.server.remove(CONFIG);
    stage.pass().await;
    let again = stage.server.get(CONFIG).unwrap();
    assert_eq!(again["data"], config["data"]);
}

#[tokio::test]
async fn slices_of_kubernetes_go_when_the_operator_steers_again() {
    let stage = stage(SPEC);
    stage.pass().await;
    let slice = |name: &str, service: &str| {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/n/endpointslices/{name}");
        let labels = json!({
            "sluice.dev/gateway": "g", "kubernetes.io/service-name": service,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        });
        stage.server.put(
            &path,
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": name, "namespace": "n", "labels": labels},
                "addressType": "IPv4", "endpoints": [],
            }),
        );
        path
    };
    let stale = slice("g-x1", "g");
    let others = slice("g-redis-x1", "g-redis");
    stage.pass().await;
    assert!(stage.server.get(&stale).is_none() && stage.server.get(&others).is_some());
    edit_spec(&stage, |spec| {
        spec["service"] = json!({"steering": "Disabled"})
    });
    let kept = slice("g-x2", "g");
    let writes = stage.pass().await;
    assert!(stage.server.get(&kept).is_some());
    let own = "DELETE /apis/discovery.k8s.io/v1/namespaces/n/endpointslices/g-ipv4-0";
    assert!(writes.contains(&own.to_owned()), "{writes:#?}");
}

#[tokio::test]
async fn a_paused_gateway_is_only_looked_at() {
    let stage = stage(SPEC);
    stage.pass().await;
    edit_spec(&stage, |spec| {
        spec["operation"] = json!({"reconciliation": "Paused"});
        spec["dataPlane"] = json!({"scaling": {"replicas": 5}});
    });
    stage.server.remove(SERVICE);
    let writes = stage.pass().await;
    assert_eq!(kinds(&writes), ["g"], "{writes:#?}");
    assert_eq!(stage.condition("Paused").unwrap().0, "True");
    edit_spec(&stage, |spec| spec["operation"] = json!({}));
    let writes = stage.pass().await;
    assert!(kinds(&writes).contains(&"services"), "{writes:#?}");
    assert!(stage.condition("Paused").is_none());
}

#[tokio::test]
async fn what_belongs_to_others_is_not_touched() {
    let stage = stage(SPEC);
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "g", "namespace": "n", "uid": "other"}, "spec": {"ports": []},
    });
    stage.server.put(SERVICE, foreign.clone());
    stage.pass().await;
    assert_eq!(stage.server.get(SERVICE).unwrap(), foreign);
    let programmed = stage.condition("Programmed").unwrap();
    assert_eq!(
        (programmed.0.as_str(), programmed.1.as_str()),
        ("False", "Refused")
    );
    assert!(
        programmed.2.contains("belongs to somebody else"),
        "{}",
        programmed.2
    );
}

#[tokio::test]
async fn a_refused_object_keeps_no_other_back() {
    let stage = stage(SPEC);
    stage
        .server
        .refuse("/deployments/g", 422, "spec.x: unknown field");
    let writes = stage.pass().await;
    assert!(kinds(&writes).contains(&"endpointslices"), "{writes:#?}");
    let ready = stage.condition("Ready").unwrap();
    assert!(
        ready.1 == "Refused" && ready.2.contains("unknown field"),
        "{ready:?}"
    );
    stage.server.allow_all();
    stage.pass().await;
    assert_eq!(stage.condition("Programmed").unwrap().0, "True");
}

#[tokio::test]
async fn a_removed_listener_leaves_the_service() {
    let stage = stage(SPEC);
    edit_spec(&stage, |spec| {
        spec["listeners"] = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
    });
    stage.pass().await;
    edit_spec(&stage, |spec| {
        spec["listeners"] = json!([{"name": "a", "port": 1}])
    });
    stage.pass().await;
    let service = stage.server.get(SERVICE).unwrap();
    assert_eq!(service["spec"]["ports"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn another_operator_keeps_the_template_until_the_user_wants_another() {
    let mut stage = stage(SPEC);
    stage.pass().await;
    let image = |stage: &Stage| {
        let deployment = stage.server.get(DEPLOYMENT).unwrap();
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    stage.reconciler.defaults.data_plane_image = "example.com/sluice:2".to_owned();
    assert_eq!(stage.pass().await, Vec::<String>::new());
    assert_eq!(image(&stage), crate::fixtures::IMAGE);
    stage.server.edit(GATEWAY_PATH, |gateway| {
        gateway["metadata"]["annotations"] = json!({"sluice.dev/restartedAt": "now"});
    });
    let writes = stage.pass().await;
    assert_eq!(image(&stage), "example.com/sluice:2");
    let deleted = writes.iter().filter(|asked| asked.starts_with("DELETE"));
    assert_eq!(deleted.count(), 1, "the former revision goes: {writes:#?}");
}

#[tokio::test]
async fn a_gateway_that_is_being_deleted_is_left_alone() {
    let stage = stage(SPEC);
    stage.server.edit(GATEWAY_PATH, |gateway| {
        gateway["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    assert_eq!(stage.pass().await, Vec::<String>::new());
}

#[tokio::test]
async fn secrets_are_in_the_secret_only() {
    let stage = stage(SPEC);
    stage.server.put(
        "/api/v1/namespaces/n/secrets/keys",
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "keys", "namespace": "n", "resourceVersion": "1"},
            "data": {"k": "aGlkZGVuLXdvcmQ="},
        }),
    );
    edit_spec(&stage, |spec| {
        let jwt = json!({"hmac": [{"secretRef": {"name": "keys", "key": "k"}}]});
        spec["relay"]["authentication"] = json!({"jwt": jwt});
    });
    stage.pass().await;
    assert_eq!(stage.condition("ResolvedRefs").unwrap().0, "True");
    let config = stage.server.get(CONFIG).unwrap().to_string();
    assert!(!config.contains("hidden-word") && !config.contains("aGlkZGVuLXdvcmQ"));
    let secret = stage
        .server
        .get("/api/v1/namespaces/n/secrets/g-config")
        .unwrap();
    assert!(
        secret["data"].to_string().contains("aGlkZGVuLXdvcmQ="),
        "{secret}"
    );
    // Rotation: the new value is there after the next look.
    stage
        .server
        .edit("/api/v1/namespaces/n/secrets/keys", |keys| {
            keys["data"]["k"] = "b3RoZXI=".into();
            keys["metadata"]["resourceVersion"] = "2".into();
        });
    let reference = crate::world::Reference::Secret("n".to_owned(), "keys".to_owned());
    assert_eq!(stage.reconciler.referring(&reference).len(), 1);
    stage.pass().await;
    let secret = stage
        .server
        .get("/api/v1/namespaces/n/secrets/g-config")
        .unwrap();
    assert!(secret["data"].to_string().contains("b3RoZXI="), "{secret}");
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let stage = stage(SPEC);
    edit_spec(&stage, |spec| {
        spec["relay"]["serverApi"] = json!({"keySecretRef": {"name": "absent", "key": "k"}});
    });
    stage.pass().await;
    let refs = stage.condition("ResolvedRefs").unwrap();
    assert_eq!((refs.0.as_str(), refs.1.as_str()), ("False", "RefNotFound"));
    assert!(
        refs.2
            .contains("Secret n/absent does not exist; add the Secret"),
        "{}",
        refs.2
    );
    assert_eq!(stage.condition("Ready").unwrap().1, "RefNotFound");
}

#[tokio::test]
async fn applications_are_told() {
    let stage = stage(
        "
listeners: [{name: clients, port: 8000}]
ingest: {upstreams: [{name: main, url: 'http://up'}]}
redis: {external: {url: 'redis://redis'}}
",
    );
    let application = |name: &str, created: &str, gateway: &str, key: &str| {
        let path = format!("/apis/sluice.dev/v1alpha1/namespaces/n/applications/{name}");
        stage.server.put(
            &path,
            json!({
                "apiVersion": "sluice.dev/v1alpha1", "kind": "Application",
                "metadata": {
                    "name": name, "namespace": "n", "generation": 1, "creationTimestamp": created
                },
                "spec": {"gatewayRef": {"name": gateway}, "keys": [{"value": key}]},
            }),
        );
    };
    application("old", "2026-01-01T00:00:00Z", "g", "k");
    application("young", "2026-01-02T00:00:00Z", "g", "k");
    stage.pass().await;
    let said = |name: &str, kind: &str| {
        let path = format!("/apis/sluice.dev/v1alpha1/namespaces/n/applications/{name}");
        let object = stage.server.get(&path).unwrap();
        let conditions = object["status"]["conditions"].as_array().unwrap().clone();
        let found = conditions
            .into_iter()
            .find(|condition| condition["type"] == kind);
        let found = found.unwrap();
        (
            found["status"].as_str().unwrap().to_owned(),
            found["reason"].as_str().unwrap().to_owned(),
        )
    };
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(said("old", "Ready"), pair("True", "Ready"));
    assert_eq!(said("young", "Accepted"), pair("False", "Conflicted"));
    let gateway = stage.server.get(GATEWAY_PATH).unwrap();
    assert_eq!(gateway["status"]["attachedApplications"], 1);
    assert_eq!(stage.pass().await, Vec::<String>::new());
    // Without its Gateway nobody serves it.
    stage.server.remove(GATEWAY_PATH);
    stage.pass().await;
    assert_eq!(said("old", "Accepted"), pair("False", "TargetNotFound"));
}
