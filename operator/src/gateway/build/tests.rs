//! Gateways in `tests/golden` against what they consist of; `UPDATE_GOLDEN=1` rewrites.

use std::path::Path;
use std::{env, fs};

use serde_json::Value;
use sluice_crds::gateway::ServiceTopology;

use super::*;
use crate::fixtures::{SMALL, pod, validated};

fn documents(prepared: Prepared) -> String {
    let Prepared {
        service_account,
        secret,
        config_map,
        revision,
        network_policy,
        disruption_budget,
        redis,
        deployment,
        service,
        slices,
    } = prepared;
    let mut objects = vec![service_account, secret, config_map];
    // The template stands in the Deployment too.
    let mut revision = revision;
    revision.body["data"]["template"] = "...".into();
    objects.extend([revision, network_policy, disruption_budget]);
    objects.extend(redis);
    objects.extend([deployment, service]);
    objects.extend(slices);
    let texts = objects
        .iter()
        .map(|object| serde_saphyr::to_string(&object.body).unwrap());
    texts.map(|text| format!("---\n{text}")).collect()
}

#[test]
fn gateways_consist_of_what_is_recorded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut stale = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let case = entry.unwrap().path();
        let wanted = validated(&fs::read_to_string(case.join("in.yaml")).unwrap());
        let mut ending = pod("g-b", "10.0.0.2");
        ending.terminating = true;
        let pods = [pod("g-a", "10.0.0.1"), ending].map(Arc::new);
        let out = documents(build(&wanted, &pods, &BTreeSet::new(), None));
        assert!(
            !out.contains("hidden"),
            "secrets are in base64 only:\n{out}"
        );
        let golden = case.join("out.yaml");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &out).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != out {
            stale.push(format!("{}:\n{out}", case.display()));
        }
        cases += 1;
    }
    assert!(cases > 1 && stale.is_empty(), "{}", stale.join("\n"));
}

#[test]
fn pods_are_replaced_for_what_they_do_not_take_over_and_for_nothing_else() {
    let base = validated(SMALL);
    let differs = |change: &dyn Fn(&mut Validated)| {
        let mut other = base.clone();
        change(&mut other);
        inputs(&other) != inputs(&base)
    };
    assert!(differs(
        &|other| other.spec.data_plane.image = Some("x".to_owned())
    ));
    assert!(differs(&|other| other.restarted_at = Some("now".to_owned())));
    let config = |other: &mut Validated, change: &dyn Fn(&mut GatewayConfig)| {
        let mut config = (*other.config).clone();
        change(&mut config);
        other.config = Arc::new(config);
    };
    assert!(differs(&|other| config(other, &|config| config
        .listeners[0]
        .port = 9)));
    assert!(differs(&|other| config(other, &|config| {
        let mut redis = (**config.redis.as_ref().unwrap()).clone();
        redis.password = Some(sluice_crds::config::Secret::new(*b"p"));
        config.redis = Some(Arc::new(redis));
    })));
    assert!(!differs(&|other| other.replicas = 7));
    assert!(!differs(&|other| other.default_image = "new".to_owned()));
    assert!(!differs(&|other| config(other, &|config| config
        .relay
        .limits
        .connections =
        Some(1))));
    // What another version of the operator must still find.
    assert_eq!(revision_name(&base.owner, &inputs(&base)), "g-cd0909f391");
}

#[test]
fn endpoints_name_their_zones_where_all_that_take_connections_know_theirs() {
    let mut wanted = validated(SMALL);
    wanted.spec.service.topology = ServiceTopology::PreferSameZone;
    let in_zone = |name: &str, zone: Option<&str>| {
        let mut pod = pod(name, "10.0.0.1");
        pod.zone = zone.map(str::to_owned);
        Arc::new(pod)
    };
    let hints = |wanted: &Validated, pods: &[Arc<PodView>], fenced: &[&str]| -> Vec<String> {
        let fenced = fenced.iter().map(|name| (*name).to_owned()).collect();
        let slices = slices::build(wanted, pods, &fenced);
        let endpoints = slices[0].body["endpoints"].as_array().unwrap();
        let zone = |endpoint: &Value| endpoint["hints"]["forZones"][0]["name"].to_string();
        endpoints.iter().map(zone).collect()
    };
    let both = [in_zone("g-1", Some("a")), in_zone("g-2", Some("b"))];
    assert_eq!(hints(&wanted, &both, &[]), ["\"a\"", "\"b\""]);
    let one = [in_zone("g-1", Some("a")), in_zone("g-2", None)];
    assert_eq!(hints(&wanted, &one, &[]), ["null", "null"]);
    // Who takes nothing new is not counted.
    assert_eq!(hints(&wanted, &one, &["g-2"]), ["\"a\"", "null"]);
    wanted.spec.service.topology = ServiceTopology::None;
    assert_eq!(hints(&wanted, &both, &[]), ["null", "null"]);
}

#[test]
fn a_pod_stays_in_its_slice() {
    let wanted = validated(SMALL);
    let pods = |count: usize| -> Vec<Arc<PodView>> {
        let pod = |n: usize| pod(&format!("g-{n}"), &format!("10.0.{}.{}", n / 250, n % 250));
        (0..count).map(|n| Arc::new(pod(n))).collect()
    };
    let where_is = |slices: &[Object], name: &str| {
        let of = |object: &Object| {
            object.body["endpoints"]
                .to_string()
                .contains(&format!("\"{name}\""))
        };
        slices.iter().position(of)
    };
    let before = slices::build(&wanted, &pods(200), &BTreeSet::new());
    let after = slices::build(&wanted, &pods(201), &BTreeSet::new());
    assert_eq!((before.len(), after.len()), (4, 4));
    for n in 0..200 {
        let name = format!("g-{n}");
        let place = where_is(&before, &name);
        assert!(
            place.is_some() && place == where_is(&after, &name),
            "{name}"
        );
    }
    let largest = after
        .iter()
        .map(|slice| slice.body["endpoints"].as_array().map_or(0, Vec::len));
    assert!(largest.max().unwrap() <= 100);
}

#[test]
fn overlays_cannot_take_the_labels_away() {
    let mut wanted = validated(SMALL);
    let over: Value = serde_json::json!({
        "metadata": {"labels": {"sluice.dev/gateway": "other", "team": "a"}},
        "spec": {"priorityClassName": "high"},
    });
    wanted.spec.data_plane.pod_template = Some(serde_json::from_value(over).unwrap());
    let template = pod::template(&wanted);
    assert_eq!(template["metadata"]["labels"]["sluice.dev/gateway"], "g");
    assert_eq!(template["metadata"]["labels"]["team"], "a");
    assert_eq!(template["spec"]["priorityClassName"], "high");
}
