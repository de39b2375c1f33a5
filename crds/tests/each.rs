//! What is wrong with one object keeps no other from being served.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panic")]

use sluice_crds::application::{Application, ApplicationSpec};
use sluice_crds::config::Ingest;
use sluice_crds::gateway::{Gateway, GatewaySpec};
use sluice_crds::manifest;
use sluice_crds::objects::Objects;
use sluice_crds::resolve::{self, Outcome};

const GATEWAYS: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata: {name: good}
spec:
  listeners: [{name: web, port: 8000}]
  ingest: {upstreams: [{name: main, url: "http://main.example"}]}
---
apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata: {name: bad}
spec:
  listeners: [{name: web, port: 99999}]
  ingest: {upstreams: [{name: main, url: "http://main.example"}]}
"#;

/// Name, gateway, keys, and further lines of the spec.
fn application(name: &str, gateway: &str, keys: &str, more: &str) -> String {
    format!(
        "---\napiVersion: sluice.dev/v1alpha1\nkind: Application\nmetadata: {{name: {name}}}\n\
         spec: {{gatewayRef: {{name: {gateway}}}, keys: [{keys}], {more}}}\n"
    )
}

fn objects(applications: &[String]) -> Objects {
    let text = format!("{GATEWAYS}{}", applications.concat());
    let (objects, problems) = manifest::parse(&[("all.yaml".to_owned(), text)]);
    assert_eq!(problems, []);
    objects
}

fn ingest(outcome: &Outcome) -> &Ingest {
    let config = outcome.gateways[0].config.as_ref().unwrap();
    config.ingest.as_deref().unwrap()
}

/// Names of the attached applications, each with its number of keys.
fn attached(outcome: &Outcome) -> Vec<(&str, usize)> {
    let applications = ingest(outcome).applications.iter();
    applications
        .map(|application| (application.name.as_str(), application.keys.len()))
        .collect()
}

#[test]
fn a_bad_object_concerns_only_itself() {
    let objects = objects(&[
        application("good", "good", "{value: a}", ""),
        application("of-bad", "bad", "{value: a}", ""),
        application("broken", "good", "{value: b}", "throttle: {weight: 0}"),
        application("lost", "nowhere", "{value: c}", ""),
    ]);
    let outcome = resolve::resolve_each(&objects);
    assert_eq!(attached(&outcome), [("good", 1)]);
    assert!(outcome.gateways[1].config.is_none());
    let judged: Vec<_> = outcome
        .applications
        .iter()
        .map(|one| (one.name.as_str(), one.attached, one.problems.len()))
        .collect();
    assert_eq!(
        judged,
        [
            ("good", true, 0),
            ("of-bad", false, 0),
            ("broken", false, 1),
            ("lost", false, 1)
        ]
    );
    let whole = resolve::resolve(&objects);
    assert!(
        whole.config.is_none() && whole.problems.len() == 4,
        "{:#?}",
        whole.problems
    );
}

#[test]
fn who_loses_a_key_keeps_the_others() {
    let outcome = resolve::resolve_each(&objects(&[
        application("first", "good", "{value: a}", ""),
        application("second", "good", "{value: a}, {value: b}", ""),
        application("third", "good", "{value: b}", ""),
    ]));
    assert_eq!(attached(&outcome), [("first", 1), ("second", 1)]);
    assert_eq!(ingest(&outcome).applications[1].keys[0].expose(), b"b");
    assert!(outcome.applications[1].attached && !outcome.applications[2].attached);
}

#[test]
fn a_key_does_not_change_hands_because_its_owner_is_broken() {
    let outcome = resolve::resolve_each(&objects(&[
        application("owner", "good", "{value: a}", "processing: Sometimes"),
        application("other", "good", "{value: a}, {value: b}", ""),
    ]));
    assert_eq!(attached(&outcome), [("other", 1)]);
    assert_eq!(ingest(&outcome).applications[0].keys[0].expose(), b"b");
}

#[test]
fn objects_of_the_api_server_resolve_like_written_ones() {
    let mut written = objects(&[
        application("b", "good", "{value: a}, {value: b}", ""),
        application("a", "good", "{value: b}", ""),
    ]);
    written.gateways.truncate(1);
    let mut typed = Objects::default();
    for gateway in &written.gateways {
        let spec: GatewaySpec = serde_json::from_value(gateway.spec.clone()).unwrap();
        let mut gateway = Gateway::new(&gateway.name, spec);
        gateway.metadata.namespace = Some("default".to_owned());
        typed.add_gateway(&gateway);
    }
    // In any order: equally old ones are told apart by name.
    for application in written.applications.iter_mut().rev() {
        application.created = serde_json::from_str("\"2026-01-31T12:00:00Z\"").unwrap();
        let spec: ApplicationSpec = serde_json::from_value(application.spec.clone()).unwrap();
        let mut object = Application::new(&application.name, spec);
        object.metadata.namespace = Some("default".to_owned());
        object
            .metadata
            .creation_timestamp
            .clone_from(&application.created);
        typed.add_application(&object);
    }
    let (written, typed) = (
        resolve::resolve_each(&written),
        resolve::resolve_each(&typed),
    );
    assert_eq!(attached(&written), [("a", 1), ("b", 1)]);
    assert_eq!(written.gateways, typed.gateways);
}

#[test]
fn an_upstream_of_the_gateway_is_shared_and_others_are_named_after_their_application() {
    let outcome = resolve::resolve_each(&objects(&[
        application(
            "same",
            "good",
            "{value: a}",
            "upstreams: [{name: main, url: \"http://main.example/\"}]",
        ),
        application(
            "own",
            "good",
            "{value: b}",
            "upstreams: [{name: main, url: \"http://own.example\"}]",
        ),
    ]));
    let ingest = ingest(&outcome);
    assert_eq!(ingest.applications[0].upstreams[0].name, "own/main");
    let shared = &ingest.applications[1].upstreams[0];
    assert!(std::sync::Arc::ptr_eq(shared, &ingest.upstreams[0]));
}

/// Applications of namespace `other` that name the Gateway `good`, which allows these, and labels of namespaces.
fn from_elsewhere(allowed: &str, labels: &[(&str, &str)]) -> Outcome {
    let text = "apiVersion: sluice.dev/v1alpha1\nkind: Application\nmetadata: {name: a, namespace: other}\n\
                spec: {gatewayRef: {name: good, namespace: default}, keys: [{value: a}]}\n";
    let mut objects = objects(&[
        application("a", "good", "{value: b}", ""),
        format!("---\n{text}"),
    ]);
    if !allowed.is_empty() {
        objects.gateways[0].spec["allowedApplications"] = serde_json::from_str(allowed).unwrap();
    }
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    objects
        .namespaces
        .insert("other".to_owned(), labels.collect());
    resolve::resolve_each(&objects)
}

#[test]
fn a_gateway_says_from_which_namespaces_it_takes_applications() {
    let selector = r#"{"namespaces": {"from": "Selector", "matchLabels": {"team": "a"}}}"#;
    let all = r#"{"namespaces": {"from": "All"}}"#;
    for (allowed, labels, taken) in [
        ("", &[][..], false),
        (all, &[], true),
        (selector, &[("team", "a"), ("x", "y")], true),
        (selector, &[("team", "b")], false),
        (selector, &[], false),
    ] {
        let outcome = from_elsewhere(allowed, labels);
        assert_eq!(
            outcome.applications[1].attached, taken,
            "{allowed} {labels:?}"
        );
        if taken {
            assert_eq!(attached(&outcome), [("a", 1), ("other/a", 1)]);
        } else {
            let problem = &outcome.applications[1].problems[0];
            assert_eq!(problem.reason, sluice_crds::problem::Reason::NotAllowed);
        }
    }
}
