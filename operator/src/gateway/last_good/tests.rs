//! Whole passes over Gateways that have become wrong, on the double of the API server.

use serde_json::{Value, json};

use crate::fixtures::{GATEWAY_PATH, Stage, gateway, pod};

const SERVICE: &str = "/api/v1/namespaces/n/services/g";
const CONFIG: &str = "/api/v1/namespaces/n/configmaps/g-config";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/n/endpointslices/g-ipv4-0";
const SET: &str = "/apis/apps/v1/namespaces/n/statefulsets/g-redis-s0";
const ADMIN_PORT: u16 = 8081;

const EXTERNAL: &str = "
listeners: [{name: clients, port: 8000}]
relay: {authentication: {anonymous: Allowed}}
redis: {external: {url: 'redis://redis'}}
";
const MANAGED: &str = "
listeners: [{name: clients, port: 8000}]
relay: {authentication: {anonymous: Allowed}}
redis: {managed: {topology: Standalone}}
";
const INGEST: &str = "
listeners: [{name: clients, port: 8000}]
ingest: {upstreams: [{name: main, url: 'http://up'}]}
redis: {external: {url: 'redis://redis'}}
";

async fn served(spec: &str) -> Stage {
    let stage = Stage::new();
    stage.server.put(GATEWAY_PATH, gateway(spec));
    stage.pass().await;
    stage
}

fn listen_at(stage: &Stage, port: u16) {
    stage.server.edit(GATEWAY_PATH, |gateway| {
        gateway["spec"]["listeners"][0]["port"] = port.into();
    });
}

#[tokio::test]
async fn an_operator_that_begins_keeps_up_what_was_right() {
    let mut stage = served(EXTERNAL).await;
    let config = stage.server.get(CONFIG).unwrap();
    listen_at(&stage, ADMIN_PORT);
    stage.restart();
    stage.server.remove(SERVICE);
    let key = ("n".to_owned(), "a".to_owned());
    stage.world.pods.put(key, pod("a", "10.0.0.1"));
    stage.pass().await;
    assert_eq!(stage.condition("Accepted").unwrap().0, "False");
    let service = stage.server.get(SERVICE).unwrap();
    assert_eq!(service["spec"]["ports"][0]["port"], 8000);
    let slice = stage.server.get(SLICE).unwrap();
    assert_eq!(slice["endpoints"][0]["addresses"][0], "10.0.0.1");
    assert_eq!(stage.server.get(CONFIG).unwrap(), config);
    assert_eq!(stage.pass().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_redis_is_kept_up_too() {
    let mut stage = served(MANAGED).await;
    let set = stage.server.get(SET).unwrap();
    listen_at(&stage, ADMIN_PORT);
    stage.server.edit(GATEWAY_PATH, |gateway| {
        gateway["spec"]["redis"]["managed"]["image"] = "example.com/other:1".into();
    });
    stage.restart();
    let writes = stage.pass().await;
    assert!(
        !writes.iter().any(|asked| asked.starts_with("DELETE")),
        "{writes:#?}"
    );
    assert_eq!(stage.server.get(SET).unwrap()["spec"], set["spec"]);
    stage.server.remove(SET);
    stage.pass().await;
    assert_eq!(stage.server.get(SET).unwrap()["spec"], set["spec"]);
}

#[tokio::test]
async fn what_somebody_has_written_over_it_is_not_taken_for_right() {
    let mut stage = served(EXTERNAL).await;
    listen_at(&stage, ADMIN_PORT);
    stage
        .server
        .edit(CONFIG, |map| map["data"]["config.json"] = "{}".into());
    stage.restart();
    stage.server.remove(SERVICE);
    stage.pass().await;
    assert!(stage.server.get(SERVICE).is_none());
    assert_eq!(stage.condition("Programmed").unwrap().1, "Invalid");
}

#[tokio::test]
async fn another_gateway_of_the_same_name_inherits_nothing() {
    let stage = served(EXTERNAL).await;
    stage.server.edit(GATEWAY_PATH, |gateway| {
        gateway["metadata"]["uid"] = "another".into();
        gateway["spec"]["listeners"][0]["port"] = ADMIN_PORT.into();
    });
    assert_eq!(stage.pass().await.len(), 1, "its status");
    assert_eq!(stage.condition("Programmed").unwrap().1, "Invalid");
    // Once it is right, what there was has to go first.
    listen_at(&stage, 8000);
    stage.pass().await;
    let programmed = stage.condition("Programmed").unwrap();
    assert_eq!(programmed.1, "Pending", "{programmed:?}");
    let service = stage.server.get(SERVICE).unwrap();
    assert_eq!(service["metadata"]["ownerReferences"][0]["uid"], "uid-g");
}

const APPLICATION: &str = "/apis/sluice.dev/v1alpha1/namespaces/n/applications/a";

fn application(name: &str, created: &str, key: &str) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Application",
        "metadata": {
            "name": name, "namespace": "n", "generation": 1, "creationTimestamp": created
        },
        "spec": {
            "gatewayRef": {"name": "g"}, "keys": [{"value": key}],
            "upstreams": [{"name": "main", "url": "http://up"}],
        },
    })
}

fn served_applications(stage: &Stage) -> Value {
    let map = stage.server.get(CONFIG).unwrap();
    let text = map["data"]["config.json"].as_str().unwrap();
    let config: Value = serde_json::from_str(text).unwrap();
    config["gateway"]["ingest"]["applications"].clone()
}

#[tokio::test]
async fn an_application_that_becomes_wrong_is_served_as_it_was() {
    let mut stage = served(INGEST).await;
    let created = "2026-01-01T00:00:00Z";
    stage
        .server
        .put(APPLICATION, application("a", created, "k"));
    stage.pass().await;
    let good = served_applications(&stage);
    assert_eq!(good[0]["upstreams"][0]["name"], "main");
    stage.server.edit(APPLICATION, |application| {
        application["spec"]["salt"] = json!({"secretRef": {"name": "absent", "key": "k"}});
    });
    for _ in 0..2 {
        stage.pass().await;
        assert_eq!(served_applications(&stage), good);
        let told = stage.server.get(APPLICATION).unwrap()["status"].to_string();
        assert!(
            told.contains("served as it was before: spec.salt"),
            "{told}"
        );
        stage.restart();
    }
    let gateway = stage.server.get(GATEWAY_PATH).unwrap();
    assert_eq!(gateway["status"]["attachedApplications"], 1);
    // The Gateway's own upstream becomes another; that of the application does not.
    stage.server.edit(GATEWAY_PATH, |gateway| {
        gateway["spec"]["ingest"]["upstreams"][0]["url"] = "http://down".into();
    });
    stage.pass().await;
    let upstream = &served_applications(&stage)[0]["upstreams"][0];
    assert_eq!(
        (&upstream["name"], &upstream["url"]),
        (&json!("a/main"), &json!("http://up"))
    );
}

#[tokio::test]
async fn what_is_others_now_is_not_kept() {
    let stage = served(INGEST).await;
    let (old, young) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    stage.server.put(APPLICATION, application("a", old, "k"));
    stage.pass().await;
    // It gives its key away, and becomes wrong.
    stage.server.edit(APPLICATION, |application| {
        application["spec"]["keys"] = json!([{"secretRef": {"name": "absent", "key": "k"}}]);
    });
    let other = APPLICATION.replace("applications/a", "applications/b");
    stage.server.put(&other, application("b", young, "k"));
    stage.pass().await;
    let served = served_applications(&stage);
    assert_eq!(served.as_array().unwrap().len(), 1);
    assert_eq!(served[0]["name"], "b");
    // Nor what names another Gateway.
    stage.server.edit(&other, |application| {
        application["spec"]["gatewayRef"]["name"] = "elsewhere".into();
        application["spec"]["keys"][0] = json!({"secretRef": {"name": "absent", "key": "k"}});
    });
    stage.pass().await;
    assert_eq!(served_applications(&stage), Value::Null);
}
