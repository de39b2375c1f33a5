//! Bad manifests: each gets one clear problem, and no input at all gets a panic.

mod application;
mod ingest;
mod redis;
mod relay;

use std::collections::BTreeSet;

use proptest::prelude::*;
use sluice_crds::config::{Delivery, GatewayConfig, Ingest};
use sluice_crds::problem::Problem;
use sluice_crds::{manifest, resolve};

const GOOD: &str = include_str!("../../../examples/relay.yaml");
/// What the manifests of the tables begin with, up to the first member of `spec` that matters.
const GATEWAY: &str = "\
apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata: {name: demo}
spec:
  listeners: [{name: web, port: 8000}]
";
/// Every field is in one of these.
const EVERYTHING: [&str; 6] = [
    GOOD,
    include_str!("../resolve/everything.yaml"),
    include_str!("../resolve/ingest-everything.yaml"),
    include_str!("../resolve/ingest-generic.yaml"),
    include_str!("../resolve/redis-everything.yaml"),
    include_str!("../resolve/kubernetes.yaml"),
];

/// The Gateway, and what else its `spec` and file hold.
fn gateway(rest: &str) -> String {
    format!("{GATEWAY}{rest}")
}

fn problems(text: &str) -> Vec<Problem> {
    let (objects, mut problems) = manifest::parse(&[("demo.yaml".to_owned(), text.to_owned())]);
    let outcome = resolve::resolve_each(&objects);
    let configs = outcome.gateways.into_iter().filter_map(|one| one.config);
    configs.for_each(|config| assert_valid(&config));
    let resolution = resolve::resolve(&objects);
    problems.extend(resolution.problems);
    assert_eq!(
        resolution.config.is_none(),
        !problems.is_empty(),
        "{problems:#?}"
    );
    problems
}

/// What code that reads the configuration relies on.
fn assert_valid(config: &GatewayConfig) {
    assert!(!config.listeners.is_empty());
    if let Some(ingest) = &config.ingest {
        assert_valid_ingest(ingest);
    } else {
        assert!(!config.relay.is_closed());
    }
}

fn assert_valid_ingest(ingest: &Ingest) {
    let prefix = &ingest.accept.path_prefix;
    assert!(prefix.is_empty() || prefix.starts_with('/') && !prefix.ends_with('/'));
    assert!(!ingest.upstreams.is_empty());
    let applications = &ingest.applications;
    let own = applications.iter().flat_map(|one| &one.upstreams);
    let mut upstreams = BTreeSet::new();
    for upstream in ingest.upstreams.iter().chain(own) {
        assert!(!upstream.url.ends_with('/') && upstream.url.starts_with("http"));
        assert!((1..=upstream.concurrency_max).contains(&upstream.concurrency_min));
        assert!(upstream.weight > 0);
        let shared = ingest.upstreams.contains(upstream);
        assert!(upstreams.insert(&upstream.name) || shared, "{upstream:?}");
    }
    let (mut names, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for application in applications {
        assert!(names.insert(&application.name));
        assert!(!application.keys.is_empty() && application.weight > 0);
        assert!(
            application
                .keys
                .iter()
                .all(|key| keys.insert(key.expose()) && !key.expose().is_empty())
        );
    }
    let overridden = applications.iter().filter_map(|one| one.delivery.as_ref());
    for delivery in overridden.chain([&ingest.delivery]) {
        let Delivery {
            attempts,
            backoff_initial,
            backoff_max,
            timeout,
            ..
        } = delivery;
        assert!(*attempts > 0 && backoff_initial <= backoff_max);
        assert!(!backoff_initial.is_zero() && !timeout.is_zero());
    }
}

/// Each text replaced in the good manifest gives the wanted line, as the first one.
fn check_table(good: &str, table: &[(&str, &str, &str)]) {
    assert_eq!(problems(good), []);
    let mut failures = String::new();
    for (from, to, wanted) in table {
        assert!(good.contains(from), "the manifest no longer holds {from:?}");
        let lines: Vec<String> = problems(&good.replacen(from, to, 1))
            .iter()
            .map(ToString::to_string)
            .collect();
        // A broken Secret also leaves references unsatisfied; the line about the cause comes first.
        if !lines.first().is_some_and(|line| line.starts_with(wanted)) {
            failures += &format!("\n{from:?} -> {to:?}\n  wanted {wanted}\n  got    {lines:#?}");
        }
        if lines.iter().any(|line| line.contains("hidden")) {
            failures += &format!("\n{from:?} -> {to:?} shows what is secret: {lines:#?}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn every_bad_relay_gets_its_clear_problem() {
    check_table(GOOD, relay::BAD);
}

#[test]
fn every_bad_ingest_gets_its_clear_problem() {
    check_table(&gateway(ingest::GOOD), ingest::BAD);
    check_table(&gateway(ingest::GOOD_GENERIC), ingest::BAD_GENERIC);
}

#[test]
fn every_bad_application_gets_its_clear_problem() {
    check_table(&gateway(ingest::GOOD), application::BAD);
}

#[test]
fn every_bad_redis_gets_its_clear_problem() {
    check_table(&gateway(redis::GOOD), redis::BAD);
    check_table(&gateway(redis::GOOD_SECRET), redis::BAD_SECRET);
}

#[test]
fn exactly_one_gateway_is_served() {
    assert_eq!(problems("# nothing\n")[0].what, "there is no Gateway");
    let second = GOOD
        .split("---")
        .next()
        .unwrap()
        .replace("name: demo", "name: second");
    let lines = problems(&format!("{GOOD}\n---\n{second}"));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0].object, "Gateway default/second");
}

#[test]
fn nobody_could_connect() {
    let nobody = problems(&gateway("  relay: {authentication: {}}"));
    assert_eq!(nobody[0].field, "spec.relay.authentication");
    let keyless = problems(&gateway("  relay: {authentication: {jwt: {}}}"));
    assert_eq!(keyless[0].field, "spec.relay.authentication.jwt");
    assert_eq!((nobody.len(), keyless.len()), (1, 1));
}

#[test]
fn a_gateway_serves_something() {
    let line = |rest: &str| {
        let lines = problems(&gateway(rest));
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines[0].to_string()
    };
    assert_eq!(
        line(""),
        "Gateway default/demo: spec: nothing would be served: there is neither relay nor ingest; write relay, ingest or both"
    );
    // What it would have served is unknown: nothing is said of that.
    assert!(line("  ingst: {}\n").ends_with("unknown field; write ingest"));
    assert!(line("  relais: {}\n").ends_with("unknown field; write relay"));
}

#[test]
fn what_could_not_be_read_is_not_said_to_be_missing() {
    let good = gateway(ingest::GOOD);
    let misspelt = good.replacen("  ingest:", "  ingst:", 1);
    let lines = problems(&misspelt);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    // The one Gateway is of an unknown kind.
    let unknown = good.replacen("kind: Gateway", "kind: Gatway", 1);
    assert_eq!(problems(&unknown).len(), 1);
    let broken = good.replacen("url: http://one.example", "url: [", 1);
    assert_eq!(problems(&broken).len(), 1);
}

#[test]
fn secrets_are_not_shown() {
    let text = GOOD.replace(
        "- secretRef: {name: relay-keys, key: tokens}",
        "- only-for-trying-tokens",
    );
    let shown = format!("{:?}", problems(&text));
    assert!(!shown.contains("only-for-trying"), "{shown}");
    let (objects, _) = manifest::parse(&[("a".to_owned(), GOOD.to_owned())]);
    let shown = format!("{objects:?} {:?}", resolve::resolve(&objects));
    assert!(!shown.contains("only-for-trying"), "{shown}");
    let (objects, _) = manifest::parse(&[("a".to_owned(), gateway(ingest::GOOD))]);
    let shown = format!("{objects:?} {:?}", resolve::resolve(&objects));
    assert!(
        shown.contains("shop") && !shown.contains("hidden"),
        "{shown}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_taken(text in "(?s).{0,300}") {
        problems(&text);
    }

    #[test]
    fn mangled_manifests_are_taken(
        manifest in prop::sample::select(&EVERYTHING[..]),
        cuts in prop::collection::vec((0usize..4000, 0usize..40, "[-:{}\\[\\]&*!|>\"'# \n\ta-z0-9]{0,12}"), 1..6)
    ) {
        let mut text: Vec<char> = manifest.chars().collect();
        for (at, length, put) in cuts {
            let at = at % text.len();
            let end = (at + length).min(text.len());
            text.splice(at..end, put.chars());
        }
        problems(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_value_in_any_field_is_taken(
        manifest in prop::sample::select(&EVERYTHING[..]), line in 0usize..400, value in prop::sample::select(vec![
        "null", "{}", "[]", "[[]]", "1e400", ".nan", "-9223372036854775809", "18446744073709551616", "true", "~", "''",
        "{a: {b: {c: 1}}}", "[1, 2]", "\"\\u0000\"", "0x7fffffffffffffff", "2020-01-01", "!!binary aGk=",
    ])) {
        let lines: Vec<&str> = manifest.lines().collect();
        let line = line % lines.len();
        let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
        if let Some(colon) = lines[line].find(": ") {
            lines[line].replace_range(colon + 2.., value);
        }
        problems(&lines.join("\n"));
    }
}
