//! A Gateway that the API server takes and that cannot be carried out says so, and what runs goes on as before.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::cluster::Namespace;
use sluice_e2e::operator::stage::{
    AT_ONCE, REDIS, gateway, operator, ready, running, says, slices_have_the_pods, stage, with,
};

/// A value somewhere in a spec, and what is said of it.
type Wrong = (&'static str, Value, &'static str);

/// A text that no message may hold.
const PASSWORD: &str = "hidden-from-all";

/// What the cases below refer to.
fn material() -> String {
    let private = [
        "-----BEGIN ",
        "PRIVATE KEY-----\nAAAA\n-----END ",
        "PRIVATE KEY-----\n",
    ];
    let secret = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    let keys = json!({
        "empty": "", "blank": "  ", "line": format!("{PASSWORD}\n"), "good": PASSWORD,
        "text": PASSWORD, "private": private.concat(),
        "database": format!("redis://user:{PASSWORD}@redis/3"),
        "address": format!("redis://user:{PASSWORD}@redis"),
    });
    let certificate = json!({"tls.crt": PASSWORD, "tls.key": PASSWORD});
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "keys"},
        "data": {"jwks": "{}", "no-keys": "{\"keys\": []}"},
    });
    let objects = [
        secret("keys", keys),
        secret("certificate", certificate),
        secret("of-nothing", json!({})),
        map,
    ];
    objects.map(|object| format!("{object}\n---\n")).concat()
}

#[tokio::test]
async fn a_wrong_gateway_says_so_and_serves_as_before() -> Result<()> {
    let namespace = stage("wrong").await?;
    let operator = operator(&namespace, "only").await?;
    let result = wrong_gateways(&namespace).await;
    let result = result.with_context(|| operator.log());
    namespace.explain(result)
}

async fn wrong_gateways(namespace: &Namespace) -> Result<()> {
    let mut good = gateway(1);
    good["spec"]["ingest"] = json!({"upstreams": [{"name": "main", "url": "http://upstream"}]});
    let objects = format!("{REDIS}{}{good}", material());
    namespace.apply(&objects).await?;
    ready(namespace).await?;
    slices_have_the_pods(namespace, 1).await?;
    let before = running(namespace).await?;
    let cases = wrong_references()
        .into_iter()
        .map(|case| ("RefNotFound", case));
    let cases = cases.chain(
        wrong_keys()
            .into_iter()
            .chain(wrong_addresses())
            .map(|case| ("Invalid", case)),
    );
    let mut slowest = Duration::ZERO;
    for (reason, (pointer, value, wanted)) in cases {
        let bad = with(&good, pointer, value)?;
        namespace.apply(&bad.to_string()).await?;
        let condition = ["Accepted", "False", reason];
        let (message, took) = says(namespace, "slgw/demo", condition, wanted, AT_ONCE).await?;
        ensure!(message.contains("; "), "{pointer}: no remedy: {message}");
        ensure!(!message.contains(PASSWORD), "{pointer}: {message}");
        slowest = slowest.max(took);
        let now = running(namespace).await?;
        ensure!(now == before, "{pointer}: {before:#}\n{now:#}");
    }
    eprintln!("what was wrong was said after at most {slowest:?}");
    let stalled = ["Stalled", "True", "Invalid"];
    says(namespace, "slgw/demo", stalled, "", AT_ONCE).await?;
    namespace.apply(&good.to_string()).await?;
    ready(namespace).await?;
    let now = running(namespace).await?;
    ensure!(now == before, "{before:#}\n{now:#}");
    Ok(())
}

fn secret_ref(name: &str, key: &str) -> Value {
    json!({"secretRef": {"name": name, "key": key}})
}

fn wrong_references() -> Vec<Wrong> {
    let api_key = "/spec/relay/serverApi";
    let listener = |secret: &str| {
        let tls = json!({"certificateRef": {"name": secret}});
        json!([{"name": "clients", "port": 8000, "protocol": "HTTPS", "tls": tls}])
    };
    vec![
        (
            api_key,
            json!({"keySecretRef": {"name": "missing", "key": "k"}}),
            "spec.relay.serverApi.keySecretRef.name: Secret",
        ),
        (
            api_key,
            json!({"keySecretRef": {"name": "keys", "key": "goood"}}),
            "has no key \"goood\"; write good",
        ),
        (
            "/spec/listeners",
            listener("missing"),
            "does not exist; add the Secret, or name one that exists",
        ),
        (
            "/spec/listeners",
            listener("of-nothing"),
            "has no key \"tls.crt\"; add the key to it",
        ),
        (
            "/spec/relay/authentication/jwt",
            json!({"jwks": {"configMapRef": {"name": "missing", "key": "k"}}}),
            "does not exist; add the ConfigMap",
        ),
    ]
}

fn wrong_keys() -> Vec<Wrong> {
    let jwt = "/spec/relay/authentication/jwt";
    let api_key = |key: &str| json!({"keySecretRef": {"name": "keys", "key": key}});
    let tls = json!({"certificateRef": {"name": "certificate"}});
    vec![
        (
            "/spec/listeners",
            json!([{"name": "clients", "port": 8081}]),
            "write another port",
        ),
        (
            "/spec/listeners",
            json!([{"name": "clients", "port": 8000, "protocol": "HTTPS", "tls": tls}]),
            "tls.crt of Secret",
        ),
        (
            "/spec/relay/serverApi",
            api_key("empty"),
            "is empty; give it a value",
        ),
        (
            "/spec/relay/serverApi",
            api_key("blank"),
            "is blank; give it a value",
        ),
        (
            "/spec/relay/serverApi",
            api_key("line"),
            "ends with a line break; write it without",
        ),
        (
            jwt,
            json!({"hmac": [secret_ref("keys", "line")]}),
            "ends with a line break",
        ),
        (
            jwt,
            json!({"publicKeys": [secret_ref("keys", "text")]}),
            "is not a PEM key",
        ),
        (
            jwt,
            json!({"publicKeys": [secret_ref("keys", "private")]}),
            "is a private key; put only",
        ),
        (
            jwt,
            json!({"jwks": {"configMapRef": {"name": "keys", "key": "jwks"}}}),
            "is not a JSON Web Key Set; put JSON",
        ),
        (
            jwt,
            json!({"jwks": {"configMapRef": {"name": "keys", "key": "no-keys"}}}),
            "the key set holds no key",
        ),
        (
            jwt,
            json!({"jwks": {"url": "ftp://keys"}}),
            "the scheme is unknown; write an http://",
        ),
    ]
}

fn wrong_addresses() -> Vec<Wrong> {
    let external = |external: Value| json!({"external": external});
    let url_ref = json!({"name": "keys", "key": "address"});
    let password_ref = json!({"passwordSecretRef": {"name": "keys", "key": "good"}});
    let upstreams = json!([{"name": "main", "url": "http://[1:2:3]"}]);
    vec![
        (
            "/spec/redis",
            external(json!({"url": "redis://[1:2]"})),
            "the host is no host; write",
        ),
        (
            "/spec/redis",
            external(json!({"url": "redis://redis:99999"})),
            "1 to 65535; write",
        ),
        (
            "/spec/redis",
            external(json!({"urlSecretRef": {"name": "keys", "key": "database"}})),
            "the address names a database",
        ),
        (
            "/spec/redis",
            external(json!({"url": "rediss://redis", "tls": {"ca": secret_ref("keys", "text")}})),
            "is not a PEM certificate; put",
        ),
        (
            "/spec/redis",
            external(json!({"urlSecretRef": url_ref, "tls": {"serverName": "redis"}})),
            "without TLS; write rediss://",
        ),
        (
            "/spec/redis",
            external(json!({"urlSecretRef": url_ref, "credentials": password_ref})),
            "there are credentials besides; keep one of them",
        ),
        (
            "/spec/ingest/upstreams",
            upstreams,
            "the host is no host; write http://",
        ),
    ]
}
