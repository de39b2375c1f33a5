use serde_json::json;

use super::*;

fn owner() -> Owner {
    Owner {
        namespace: "n".to_owned(),
        name: "g".to_owned(),
        uid: "uid-g".to_owned(),
    }
}

fn passwords() -> Passwords {
    Passwords {
        operator: "hidden-o".to_owned(),
        data_plane: "hidden-d".to_owned(),
        replication: "hidden-r".to_owned(),
    }
}

fn built(spec: &Value, pods: &[u32], live: &Live) -> Vec<Object> {
    let (owner, passwords) = (owner(), passwords());
    let spec: ManagedRedis = serde_json::from_value(spec.clone()).unwrap();
    let plan = Plan {
        owner: &owner,
        spec: &spec,
        default_image: "example.com/valkey:8",
        passwords: &passwords,
        certificate: spec.tls.as_ref().map(|_| "0123456789"),
        pods,
        live,
    };
    build(&plan, None)
}

fn sets(objects: &[Object]) -> Vec<&Value> {
    let sets = objects
        .iter()
        .filter(|object| object.kind == Kind::StatefulSet);
    sets.map(|set| &set.body["spec"]).collect()
}

#[test]
fn a_cluster_consists_of_what_is_recorded() {
    let mut objects = built(&json!({}), &[], &Live::new());
    // The texts have tests of their own.
    for object in &mut objects {
        if matches!(object.kind, Kind::ConfigMap | Kind::Secret) {
            for value in object.body["data"].as_object_mut().unwrap().values_mut() {
                *value = "...".into();
            }
        }
        if object.kind == Kind::ControllerRevision {
            object.body["data"]["template"] = "...".into();
        }
    }
    // The other shards differ in their number only.
    objects.retain(|object| !object.name.contains("-s1") && !object.name.contains("-s2"));
    let texts = objects
        .iter()
        .map(|object| serde_saphyr::to_string(&object.body).unwrap());
    let out: String = texts.map(|text| format!("---\n{text}")).collect();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis.yaml");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &out).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&golden).unwrap_or_default(), out);
}

#[test]
fn shards_and_replicas_are_as_asked_for() {
    let objects = built(&json!({"replicasPerShard": 2}), &[], &Live::new());
    let replicas: Vec<_> = sets(&objects)
        .iter()
        .map(|set| set["replicas"].clone())
        .collect();
    assert_eq!(replicas, [3, 3, 3]);
    let alone = built(&json!({"topology": "Standalone"}), &[], &Live::new());
    assert_eq!(sets(&alone).len(), 1);
    assert_eq!(sets(&alone)[0]["replicas"], 1);
}

#[test]
fn only_the_planner_takes_pods_away() {
    let spec = json!({"replicasPerShard": 0});
    let mut live = Live::new();
    let there = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "g-redis-s0"},
        "spec": {"replicas": 3},
    });
    let key = (Kind::StatefulSet, "g-redis-s0".to_owned());
    live.insert(
        key,
        std::sync::Arc::new(serde_json::from_value(there).unwrap()),
    );
    assert_eq!(sets(&built(&spec, &[], &live))[0]["replicas"], 3);
    assert_eq!(sets(&built(&spec, &[2, 1, 1], &live))[0]["replicas"], 2);
}

#[test]
fn no_password_is_outside_of_secrets() {
    for object in built(&json!({}), &[], &Live::new()) {
        assert!(!object.body.to_string().contains("hidden"), "{object:?}");
    }
}

#[test]
fn tls_is_in_what_servers_read_and_its_certificate_in_what_replaces_them() {
    let spec = json!({"tls": {"certificateRef": {"name": "redis-tls"}}});
    let plain = built(&json!({}), &[], &Live::new());
    let secured = built(&spec, &[], &Live::new());
    let conf = |objects: &[Object]| {
        let map = objects
            .iter()
            .find(|object| object.kind == Kind::ConfigMap)
            .unwrap();
        map.body["data"]["redis.conf"].as_str().unwrap().to_owned()
    };
    assert!(conf(&plain).contains("\nport 6379\n") && !conf(&plain).contains("tls"));
    let conf = conf(&secured);
    for line in [
        "port 0",
        "tls-port 6379",
        "tls-cluster yes",
        "tls-replication yes",
    ] {
        assert!(conf.contains(&format!("\n{line}\n")), "{line}: {conf}");
    }
    let template = &sets(&secured)[1]["template"];
    assert_eq!(
        template["metadata"]["annotations"],
        json!({"sluice.dev/certificate": "0123456789"})
    );
    let volume = template["spec"]["volumes"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert_eq!(volume["secret"]["secretName"], "redis-tls");
    assert_eq!(volume["secret"]["items"].as_array().unwrap().len(), 3);
    let mounts = template.pointer("/spec/containers/0/volumeMounts").unwrap();
    assert_eq!(
        mounts.as_array().unwrap().last().unwrap()["mountPath"],
        "/etc/sluice-redis/tls"
    );
    let spec: ManagedRedis = serde_json::from_value(spec).unwrap();
    let name = |certificate| revision_name(&owner(), &spec, certificate);
    assert_ne!(name(Some("a")), name(Some("b")));
}
