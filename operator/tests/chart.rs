//! The chart against the operator: rights, options, ports, labels and metrics of the one are those of the other.
//!
//! The chart is seen as it renders, in `charts/sluice/tests/golden`, which `e2e/tests/cluster_chart.rs` keeps current.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use sluice_operator::args::{Args, Command, FLEET_PORT};
use sluice_operator::fleet::identity;
use sluice_operator::kinds::Kind;
use sluice_operator::managed;
use sluice_operator::metrics::Metrics;
use sluice_operator::object::Owner;
use sluice_operator::world::Live;

/// What the operator does to every kind of objects that it makes.
const MADE: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];
/// What it does besides: API group and resource, verbs.
const BESIDES: [(&str, &[&str]); 9] = [
    ("sluice.dev/gateways", &["list", "watch"]),
    ("sluice.dev/applications", &["list", "watch"]),
    ("sluice.dev/gateways/status", &["patch"]),
    ("sluice.dev/applications/status", &["patch"]),
    ("/pods", &["list", "watch", "patch", "delete"]),
    // Of a Service that has no selector any more.
    ("/endpoints", &["delete"]),
    ("events.k8s.io/events", &["create", "patch"]),
    // For owner references and addresses, where the platform asks for it.
    ("sluice.dev/gateways/finalizers", &["update"]),
    ("discovery.k8s.io/endpointslices/restricted", &["create"]),
];
const CASES: [&str; 3] = ["defaults", "namespaced", "everything"];

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/sluice")
}

fn read(path: &str) -> String {
    let path = chart().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the chart renders for these values.
fn objects(case: &str) -> Vec<Value> {
    let text = read(&format!("tests/golden/{case}.yaml"));
    let texts = text.split("\n---\n").map(str::trim);
    let objects = texts.filter(|text| text.lines().any(|line| !line.starts_with('#')));
    objects
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let fitting = objects.iter().filter(|object| object["kind"] == kind);
    fitting.collect()
}

fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// `group/resource verb`, for each.
fn rights(role: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    let right = format!("{group}/{resource} {verb}");
                    assert!(all.insert(right.clone()), "{right} is given twice");
                }
            }
        }
    }
    all
}

/// What the operator does in a namespace.
fn needed() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for kind in Kind::ALL {
        let resource = kind.resource();
        let made = MADE.map(|verb| format!("{}/{} {verb}", resource.group, resource.plural));
        all.extend(made);
    }
    for (resource, verbs) in BESIDES {
        all.extend(verbs.iter().map(|verb| format!("{resource} {verb}")));
    }
    all
}

/// The roles that are bound to the operator's account.
fn bound<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let account = &pod(objects)["spec"]["serviceAccountName"];
    let bindings = of_kind(objects, &format!("{kind}Binding"));
    let bindings = bindings
        .iter()
        .filter(|binding| &binding["subjects"][0]["name"] == account);
    let roles = bindings.flat_map(|binding| {
        let metadata = &binding["metadata"];
        of_kind(objects, kind).into_iter().filter(|role| {
            role["metadata"]["name"] == binding["roleRef"]["name"]
                && role["metadata"]["namespace"] == metadata["namespace"]
        })
    });
    roles.collect()
}

fn pod(objects: &[Value]) -> &Value {
    &only(objects, "Deployment")["spec"]["template"]
}

/// The command line of a pod of the chart.
fn args(pod: &Value) -> Args {
    let words = texts(&pod["spec"]["containers"][0]["args"]);
    Args::try_parse_from(["sluice-operator".to_owned()].into_iter().chain(words)).unwrap()
}

#[test]
fn the_rights_of_the_whole_cluster_are_what_the_operator_needs() {
    for (case, may_see_namespaces) in [("defaults", true), ("everything", false)] {
        let objects = objects(case);
        let roles = bound(&objects, "ClusterRole");
        assert_eq!(roles.len(), 1, "{case}");
        let mut wanted = needed();
        if may_see_namespaces {
            wanted.extend(["list", "watch"].map(|verb| format!("/namespaces {verb}")));
        }
        assert_eq!(rights(roles[0]), wanted, "{case}");
    }
}

#[test]
fn the_rights_in_namespaces_are_what_the_operator_needs() {
    let objects = objects("namespaced");
    for object in &objects {
        let kind = object["kind"].as_str().unwrap();
        assert!(!kind.starts_with("ClusterRole"), "{kind}");
    }
    let roles = bound(&objects, "Role");
    let (leader, watching): (Vec<_>, Vec<_>) = roles
        .into_iter()
        .partition(|role| role["metadata"]["namespace"] == "sluice-system");
    assert_eq!(leader.len(), 1);
    let namespaces: Vec<_> = watching
        .iter()
        .map(|role| &role["metadata"]["namespace"])
        .collect();
    let args = args(pod(&objects));
    assert_eq!(namespaces, ["team-a", "team-b"]);
    assert_eq!(args.watch_namespaces, ["team-a", "team-b"]);
    for role in watching {
        assert_eq!(rights(role), needed());
    }
}

#[test]
fn the_lease_is_the_one_that_may_be_written() {
    for case in CASES {
        let objects = objects(case);
        let args = args(pod(&objects));
        let roles = bound(&objects, "Role");
        let leader = roles
            .into_iter()
            .find(|role| role["rules"][0]["resources"] == json!(["leases"]));
        let leader = leader.unwrap();
        let wanted = ["coordination.k8s.io/leases", "/secrets"]
            .into_iter()
            .flat_map(|resource| {
                ["get", "update", "create"].map(|verb| format!("{resource} {verb}"))
            });
        assert_eq!(rights(leader), wanted.collect(), "{case}");
        // The Lease, and what all operators show data planes; what is made has no name yet.
        let tls = format!("{}-manager-tls", args.lease);
        for (rule, name) in [(0, args.lease.as_str()), (2, &tls)] {
            assert_eq!(leader["rules"][rule]["resourceNames"], json!([name]));
            assert_eq!(leader["rules"][rule]["verbs"], json!(["get", "update"]));
        }
        assert_eq!(leader["metadata"]["namespace"], "sluice-system");
    }
}

#[test]
fn what_is_not_set_is_as_without_the_chart() {
    let own = Args::try_parse_from(["sluice-operator"]).unwrap();
    let objects = objects("defaults");
    let charts = args(pod(&objects));
    assert_eq!(charts.data_plane_image, own.data_plane_image);
    assert_eq!(charts.redis_image, own.redis_image);
    assert_eq!(charts.watch_namespaces, own.watch_namespaces);
    let image = &pod(&objects)["spec"]["containers"][0]["image"];
    for image in [
        image.as_str().unwrap(),
        &own.data_plane_image,
        &own.redis_image,
    ] {
        let (first, _) = image.split_once('/').unwrap_or_default();
        assert!(!first.contains(['.', ':']), "{image} names a registry");
    }
    assert_eq!(
        image,
        concat!("sluice-operator:", env!("CARGO_PKG_VERSION"))
    );
    let version = format!("\nversion: {}\n", env!("CARGO_PKG_VERSION"));
    assert!(read("Chart.yaml").contains(&version));
}

#[test]
fn ports_are_where_the_operator_listens() {
    for case in CASES {
        let objects = objects(case);
        let container = &pod(&objects)["spec"]["containers"][0];
        let admin = args(pod(&objects)).admin;
        assert!(admin.ip().is_unspecified());
        assert_eq!(container["ports"][0]["containerPort"], admin.port());
        let services = of_kind(&objects, "Service");
        let [service, manager, monitor] = services[..] else {
            panic!("{services:?}");
        };
        let args_of_pod = args(pod(&objects));
        let name = identity::service(&args_of_pod.lease);
        assert_eq!(manager["metadata"]["name"], name);
        assert_eq!(manager["spec"]["ports"][0]["port"], FLEET_PORT);
        let place = format!("https://{name}.sluice-system.svc:{FLEET_PORT}");
        assert_eq!(
            Args {
                namespace: "sluice-system".to_owned(),
                ..args_of_pod.clone()
            }
            .manager(),
            place
        );
        assert_eq!(
            container["ports"][1]["containerPort"],
            args_of_pod.fleet.port()
        );
        assert_eq!(
            manager["spec"]["ports"][0]["targetPort"],
            container["ports"][1]["name"]
        );
        assert_eq!(
            container["ports"][2]["containerPort"],
            args_of_pod.monitor.port()
        );
        assert_eq!(
            monitor["spec"]["ports"][0]["targetPort"],
            container["ports"][2]["name"]
        );
        let port = &service["spec"]["ports"][0];
        assert_eq!(port["targetPort"], container["ports"][0]["name"]);
        let test = args(only(&objects, "Pod"));
        let Some(Command::Test { operator }) = &test.command else {
            panic!("{test:?}");
        };
        let host = format!(
            "{}.sluice-system",
            service["metadata"]["name"].as_str().unwrap()
        );
        assert_eq!(operator.host(), Some(host.as_str()));
        assert_eq!(
            operator.port_u16().map(Value::from).as_ref(),
            Some(&port["port"])
        );
    }
}

/// By its labels the operator is let into the Redis that it runs.
#[test]
fn the_operator_is_let_into_redis() {
    let owner = Owner {
        namespace: "n".to_owned(),
        name: "g".to_owned(),
        uid: "u".to_owned(),
    };
    let passwords = managed::generate().unwrap();
    let plan = managed::build::Plan {
        owner: &owner,
        spec: &serde_json::from_value(json!({})).unwrap(),
        default_image: "example.com/redis:8",
        passwords: &passwords,
        certificate: None,
        pods: &[],
        live: &Live::new(),
    };
    let made = managed::build::build(&plan, None);
    let policy = made
        .iter()
        .find(|object| object.kind == Kind::NetworkPolicy);
    let from = policy
        .unwrap()
        .body
        .pointer("/spec/ingress/0/from")
        .unwrap();
    let peers = from.as_array().unwrap().iter();
    let labels: Vec<&Value> = peers
        .filter(|peer| peer.get("namespaceSelector").is_some())
        .map(|peer| &peer["podSelector"]["matchLabels"])
        .collect();
    assert_eq!(labels.len(), 1);
    for case in CASES {
        let objects = objects(case);
        for (key, value) in labels[0].as_object().unwrap() {
            assert_eq!(&pod(&objects)["metadata"]["labels"][key], value, "{case}");
        }
    }
}

/// The names that the alerts are about.
fn asked_for() -> BTreeSet<String> {
    let objects = objects("everything");
    let groups = only(&objects, "PrometheusRule")["spec"]["groups"].as_array();
    let rules = groups.unwrap().iter();
    let rules = rules.flat_map(|group| group["rules"].as_array().unwrap());
    let mut names = BTreeSet::new();
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let found = words.filter(|word| word.starts_with("sluice_"));
        let count = names.len();
        names.extend(found.map(str::to_owned));
        assert!(names.len() > count, "nothing new: {expression}");
    }
    names
}

#[test]
fn alerts_about_operators_are_about_metrics_that_there_are() {
    let mut registry = Registry::default();
    let _metrics = Metrics::register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let known: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let names = asked_for().into_iter();
    let names: Vec<_> = names
        .filter(|name| name.starts_with("sluice_operator_"))
        .collect();
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        assert!(known.contains(name.as_str()), "no metric is called {name}");
    }
}

/// The data plane is another program, so its sources are read.
#[test]
fn alerts_about_gateways_are_about_metrics_that_there_are() {
    let mut known = BTreeSet::new();
    registered(&chart().join("../../dataplane/src"), &mut known);
    assert!(known.len() > 30, "{known:?}");
    for name in asked_for() {
        let plain = name.strip_suffix("_total").unwrap_or(&name);
        let is_known = known.contains(plain) || name.starts_with("sluice_operator_");
        assert!(is_known, "{name} is in none of {known:?}");
    }
}

/// The names of the metrics that files below this folder register.
fn registered(folder: &Path, known: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            registered(&path, known);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let prefix = text.split("sub_registry_with_prefix(\"").nth(1);
        let prefix = prefix.and_then(|rest| rest.split('"').next());
        for call in ["register(", "register_with_unit(", "add(", "add_in("] {
            for rest in text.split(call).skip(1) {
                let Some(rest) = rest.trim_start().strip_prefix('"') else {
                    continue;
                };
                let (name, rest) = rest.split_once('"').unwrap();
                let arguments = rest.split(';').next().unwrap();
                let unit = ["Bytes", "Seconds"]
                    .into_iter()
                    .find(|unit| arguments.contains(&format!("Unit::{unit}")));
                let parts = [prefix, Some(name), unit].into_iter().flatten();
                known.insert(parts.collect::<Vec<_>>().join("_").to_lowercase());
            }
        }
    }
}
