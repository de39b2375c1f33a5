//! A resolved configuration survives its way through a file, holds no secret on it, and is refused when it is bad.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use serde_json::{Value, json};
use sluice_crds::config::{GatewayConfig, Jwks, JwksSource, Secret};
use sluice_crds::config_file::{self, Encoded};
use sluice_crds::{manifest, resolve};

/// Every manifest at hand that is good.
fn configs() -> Vec<(String, GatewayConfig)> {
    let mut configs = Vec::new();
    for dir in ["tests/resolve", "../examples", "../e2e/profiles"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let (objects, _) = manifest::load(std::slice::from_ref(&path), None);
            for gateway in resolve::resolve_each(&objects).gateways {
                let name = format!("{} {}", path.display(), gateway.name);
                configs.extend(gateway.config.map(|config| (name, config)));
            }
        }
    }
    assert!(configs.len() >= 8, "{} configurations", configs.len());
    configs
}

fn config(name: &str) -> GatewayConfig {
    let found = configs().into_iter().find(|(path, _)| path.contains(name));
    found.unwrap().1
}

fn decode(encoded: &Encoded) -> Result<GatewayConfig, Vec<String>> {
    let decoded = config_file::decode("config.json", &encoded.document, &encoded.secrets);
    decoded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// The document after a change by hand.
fn changed(config: &GatewayConfig, change: impl FnOnce(&mut Value)) -> Encoded {
    let mut encoded = config_file::encode(config);
    let mut value: Value = serde_json::from_str(&encoded.document).unwrap();
    change(&mut value);
    encoded.document = value.to_string();
    encoded
}

/// Removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = format!("sluice-config-file-{name}-{}", std::process::id());
        Self(env::temp_dir().join(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    for (name, config) in configs() {
        let encoded = config_file::encode(&config);
        assert_eq!(decode(&encoded), Ok(config.clone()), "{name}");
        assert_eq!(encoded, config_file::encode(&config), "{name}");
        for (file, secret) in &encoded.secrets {
            let shown = String::from_utf8_lossy(secret.expose());
            // The golden manifests have short secrets such as `k`, which are in any text.
            let is_telling = shown.len() >= 6;
            let quoted = serde_json::to_string(&shown).unwrap();
            let quoted = quoted.trim_matches('"');
            assert!(
                !is_telling || !encoded.document.contains(quoted),
                "{name}: {file}"
            );
        }
        let scratch = Scratch::new("round");
        config_file::write(&config, &scratch.0).unwrap();
        let (path, secrets) = (scratch.0.join("config.json"), scratch.0.join("secrets"));
        assert_eq!(config_file::read(&path, &secrets), Ok(config), "{name}");
    }
}

#[test]
fn secrets_are_named_after_what_they_are_for() {
    let names = |config: &GatewayConfig| -> Vec<String> {
        config_file::encode(config).secrets.into_keys().collect()
    };
    assert_eq!(
        names(&config("redis-everything")),
        [
            "redis_password",
            "redis_tls_ca",
            "redis_tls_client_certificate",
            "redis_tls_client_privateKey"
        ]
    );
    // An application that comes or goes moves no other's keys.
    let mut config = config("ingest-everything");
    let before = config_file::encode(&config).secrets;
    let mut ingest = (**config.ingest.as_ref().unwrap()).clone();
    let mut first = (*ingest.applications[0]).clone();
    first.name = "a".to_owned();
    first.keys = vec![Secret::new(*b"another")];
    ingest.applications.insert(0, first.into());
    config.ingest = Some(ingest.into());
    let after = config_file::encode(&config).secrets;
    assert!(before.len() > 2 && after.len() > before.len());
    assert!(before.iter().all(|(name, secret)| after[name] == *secret));
    assert!(
        after.contains_key("ingest_applications_a_keys_0"),
        "{after:?}"
    );
}

#[test]
fn names_fit_into_a_secret_of_kubernetes() {
    let mut config = config("ingest-everything");
    let mut ingest = (**config.ingest.as_ref().unwrap()).clone();
    let longest = ["x", "y"].map(|last| format!("{}{last}", "n".repeat(252)));
    ingest.applications.truncate(1);
    for (index, name) in longest.into_iter().enumerate() {
        let mut long = (*ingest.applications[0]).clone();
        long.keys = vec![Secret::new(format!("key-{index}").into_bytes())];
        long.name = name;
        ingest.applications.push(long.into());
    }
    config.ingest = Some(ingest.into());
    let encoded = config_file::encode(&config);
    assert_eq!(decode(&encoded), Ok(config));
    let fits = |name: &String| name.len() <= 253 && !name.starts_with('.');
    assert!(
        encoded.secrets.keys().all(fits),
        "{:?}",
        encoded.secrets.keys()
    );
}

#[test]
fn the_address_of_a_key_set_may_be_secret() {
    let mut config = config("resolve/everything");
    let refresh = std::time::Duration::from_secs(60);
    for (url, is_secret) in [
        ("https://u:hidden@keys/x", true),
        ("https://keys/@x", false),
    ] {
        let jwt = config.relay.authentication.jwt.as_mut().unwrap();
        let source = JwksSource::Url(url.to_owned());
        jwt.jwks = Some(Jwks { source, refresh });
        let encoded = config_file::encode(&config);
        assert_eq!(encoded.document.contains(url), !is_secret);
        assert_eq!(decode(&encoded), Ok(config.clone()));
    }
}

#[test]
fn a_shared_upstream_stays_shared() {
    let mut config = config("ingest-everything");
    let mut ingest = (**config.ingest.as_ref().unwrap()).clone();
    let mut application = (*ingest.applications[0]).clone();
    application.upstreams = vec![Arc::clone(&ingest.upstreams[0])];
    ingest.applications[0] = application.into();
    config.ingest = Some(ingest.into());
    let decoded = decode(&config_file::encode(&config)).unwrap();
    let ingest = decoded.ingest.unwrap();
    assert!(Arc::ptr_eq(
        &ingest.applications[0].upstreams[0],
        &ingest.upstreams[0]
    ));
}

#[test]
fn versions_that_differ_understand_each_other() {
    for (name, config) in configs() {
        // A later writer: fields that this reader does not know, everywhere.
        let later = changed(&config, add_everywhere);
        assert_eq!(decode(&later), Ok(config.clone()), "{name}");
    }
    // An earlier writer knew no Redis.
    let config = config("relay");
    let earlier = changed(&config, |value| {
        value["gateway"].as_object_mut().unwrap().remove("redis");
    });
    assert_eq!(decode(&earlier), Ok(config.clone()));
    let next = changed(&config, |value| value["format"] = json!(2));
    let wanted = "file config.json: format: its format is 2, and this sluice reads 1; write it with the same version of sluice that reads it";
    assert_eq!(decode(&next), Err(vec![wanted.to_owned()]));
}

fn add_everywhere(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                match value.as_object_mut() {
                    // Its fields are namespaces.
                    Some(namespaces) if key == "namespaces" => {
                        namespaces.values_mut().for_each(add_everywhere);
                    }
                    Some(_) | None => add_everywhere(value),
                }
            }
            // A choice with a value is an object of one field, and so is a reference.
            if fields.len() > 1 {
                fields.insert("later".to_owned(), json!({ "x": [1] }));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(add_everywhere),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn a_secret_is_written_nowhere_else() {
    let secret = Secret::new(*b"hidden");
    assert!(serde_json::to_string(&secret).is_err());
    assert!(serde_json::to_string(&config("relay")).is_err());
    assert!(serde_json::from_str::<Secret>("{\"file\": \"x\"}").is_err());
}

#[test]
fn bad_files_are_refused_with_what_is_wrong() {
    let refused = |encoded: &Encoded| decode(encoded).unwrap_err().join("\n");
    let relay = config("relay");
    let text = |document: &str| Encoded {
        document: document.to_owned(),
        secrets: BTreeMap::new(),
    };
    for document in ["", "{", "[1]", "null", "\u{0}"] {
        assert!(
            refused(&text(document)).contains("config.json"),
            "{document:?}"
        );
    }
    assert!(refused(&text("{\"apiVersion\": \"v1\"}")).contains("sluice standalone"));
    let mut without = config_file::encode(&relay);
    let name = without.secrets.pop_first().unwrap().0;
    assert!(refused(&without).contains(&name));
}

/// Which configuration, what is changed in it, to what, and what is said of it.
fn bad_values() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    const RELAY: &str = "examples/relay";
    const INGEST: &str = "ingest-everything";
    vec![
        (
            RELAY,
            "/listeners/0/port",
            json!(0),
            "gateway.listeners[0].port: is zero",
        ),
        (RELAY, "/listeners/0/port", json!(70000), "70000"),
        (
            RELAY,
            "/listeners",
            json!([]),
            "gateway.listeners: there is none",
        ),
        (
            RELAY,
            "/relay/heartbeat/interval",
            json!("0s"),
            "heartbeat.interval: is no time",
        ),
        (
            RELAY,
            "/relay/heartbeat/interval",
            json!(25),
            "invalid type",
        ),
        (
            RELAY,
            "/drain/timeout",
            json!("soon"),
            "not a duration such as 1m30s",
        ),
        (
            INGEST,
            "/ingest/upstreams",
            json!([]),
            "gateway.ingest.upstreams: there is none",
        ),
        (
            INGEST,
            "/ingest/upstreams/0/weight",
            json!(0),
            "upstreams[0].weight: is zero",
        ),
        (
            INGEST,
            "/ingest/durability",
            json!("Replicated"),
            "needs a Redis",
        ),
        (INGEST, "/ingest/durability", json!("Later"), "Later"),
        (
            INGEST,
            "/ingest/delivery/backoffMax",
            json!("1ms"),
            "less than backoffInitial",
        ),
        (
            INGEST,
            "/ingest/applications/0/weight",
            json!(0),
            "applications[0].weight: is zero",
        ),
    ]
}

#[test]
fn values_that_nothing_can_be_done_with_are_refused() {
    for (name, pointer, value, wanted) in bad_values() {
        let pointer = format!("/gateway{pointer}");
        let bad = changed(&config(name), |document| {
            *document.pointer_mut(&pointer).expect(&pointer) = value;
        });
        let found = decode(&bad).unwrap_err().join("\n");
        assert!(found.contains(wanted), "{pointer}: {found}");
    }
}

#[test]
fn files_of_secrets_stay_in_their_directory() {
    let scratch = Scratch::new("files");
    let config = config("relay");
    config_file::write(&config, &scratch.0).unwrap();
    let (path, secrets) = (scratch.0.join("config.json"), scratch.0.join("secrets"));
    let first = config_file::fingerprint(&path, &secrets);
    assert_eq!(first, config_file::fingerprint(&path, &secrets));
    for entry in fs::read_dir(&secrets).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let name = fs::read_dir(&secrets).unwrap().next().unwrap().unwrap();
    fs::write(name.path(), "another secret").unwrap();
    assert_ne!(first, config_file::fingerprint(&path, &secrets));
    assert_ne!(config_file::read(&path, &secrets).unwrap(), config);
    fs::remove_file(name.path()).unwrap();
    let problems = config_file::read(&path, &secrets).unwrap_err();
    assert!(problems[0].object.contains(name.path().to_str().unwrap()));

    let document = fs::read_to_string(&path).unwrap();
    let leading_out = document.replace(name.file_name().to_str().unwrap(), "../config.json");
    fs::write(&path, leading_out).unwrap();
    let problems = config_file::read(&path, &secrets).unwrap_err();
    assert!(
        problems[0].what.contains("is no name of a secret"),
        "{problems:?}"
    );
}
