//! A deleted Gateway takes everything with it but the volumes that its policy keeps; made again it has its old data.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluice_e2e::cluster::Namespace;
use sluice_e2e::operator::stage::{gateway, get, operator, ready, stage, with};
use tokio::time::sleep;

/// Servers take their time to stop.
const GONE: Duration = Duration::from_secs(120);
/// From ready to every server knowing where the others are now.
const SERVED: Duration = Duration::from_secs(30);
const KEYS: usize = 30;

#[tokio::test]
async fn volumes_of_one_redis_outlive_their_gateway_by_policy() -> Result<()> {
    let managed = json!({"topology": "Standalone"});
    volumes_outlive("standalone", managed, 1).await
}

#[tokio::test]
async fn volumes_of_a_redis_cluster_outlive_their_gateway_by_policy() -> Result<()> {
    let managed = json!({"topology": "Cluster", "replicasPerShard": 1});
    volumes_outlive("sharded", managed, 6).await
}

async fn volumes_outlive(prefix: &str, mut managed: Value, servers: usize) -> Result<()> {
    let namespace = stage(prefix).await?;
    let operator = operator(&namespace, "only").await?;
    managed["storage"] = json!({"size": "100Mi"});
    managed["resources"] = json!({
        "requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"},
    });
    let result = delete_and_make_again(&namespace, managed, servers).await;
    let result = result.with_context(|| operator.log());
    namespace.explain(result)
}

async fn delete_and_make_again(
    namespace: &Namespace,
    managed: Value,
    servers: usize,
) -> Result<()> {
    let retained = with(&gateway(1), "/spec/redis", json!({"managed": managed}))?;
    namespace.apply(&retained.to_string()).await?;
    ready(namespace).await?;
    for number in 0..KEYS {
        let text = number.to_string();
        let answer = redis(namespace, &["SET", &key(number), &text]).await?;
        ensure!(answer == "OK", "SET: {answer}");
    }
    delete(namespace).await?;
    let volumes = volumes(namespace).await?;
    ensure!(volumes.len() == servers, "{volumes:?}");
    let began = Instant::now();
    namespace.apply(&retained.to_string()).await?;
    ready(namespace).await?;
    eprintln!("ready {:?} after it was made again", began.elapsed());
    for number in 0..KEYS {
        let answer = redis(namespace, &["GET", &key(number)]).await?;
        ensure!(answer == number.to_string(), "{}: {answer:?}", key(number));
    }
    ensure!(self::volumes(namespace).await? == volumes, "other volumes");
    // The policy may change its mind until the end.
    let pointer = "/spec/redis/managed/storage/whenDeleted";
    let deleted = with(&retained, pointer, json!("Delete"))?;
    namespace.apply(&deleted.to_string()).await?;
    let is_told = async || {
        let sets = get(namespace, &["statefulsets"]).await?;
        let sets = sets["items"].as_array().context("items")?;
        let policy = "/spec/persistentVolumeClaimRetentionPolicy/whenDeleted";
        Ok(sets
            .iter()
            .all(|set| set.pointer(policy) == Some(&json!("Delete"))))
    };
    let cluster = namespace.cluster();
    cluster
        .wait_for("the policy is known", GONE, is_told)
        .await?;
    ready(namespace).await?;
    delete(namespace).await?;
    let are_gone = async || {
        let left = self::volumes(namespace).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(true)
    };
    cluster
        .wait_for("the volumes are gone", GONE, are_gone)
        .await
}

fn key(number: usize) -> String {
    format!("sluice:proof:{number}")
}

/// Asks the first server as the data planes do, or the one that it names.
async fn redis(namespace: &Namespace, words: &[&str]) -> Result<String> {
    let secret = get(namespace, &["secret/demo-redis"]).await?;
    let password = secret["data"]["dataplane"].as_str().context("a password")?;
    let password = String::from_utf8(STANDARD.decode(password)?)?;
    let line = format!(
        "REDISCLI_AUTH={password} timeout 5 redis-cli -c --user dataplane {}",
        words.join(" ")
    );
    // Servers that have just come back name each other's former addresses for some seconds.
    let deadline = Instant::now() + SERVED;
    loop {
        let asked = namespace.shell("demo-redis-s0-0", &line).await;
        // It says as an answer what a data plane would take as a reason to ask again.
        let asked = asked.and_then(|answer| {
            ensure!(!answer.starts_with("CLUSTERDOWN"), "{answer}");
            Ok(answer.trim().to_owned())
        });
        match asked {
            Ok(answer) => return Ok(answer),
            Err(error) => ensure!(Instant::now() < deadline, "{error:#}"),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Names and identities of the claims.
async fn volumes(namespace: &Namespace) -> Result<Vec<String>> {
    let claims = get(namespace, &["persistentvolumeclaims"]).await?;
    let claims = claims["items"].as_array().context("items")?;
    let shown = claims.iter().map(|claim| {
        let metadata = &claim["metadata"];
        format!("{} {}", metadata["name"], metadata["uid"])
    });
    Ok(shown.collect())
}

/// Deletes the Gateway and waits until nothing of it is left but volumes.
async fn delete(namespace: &Namespace) -> Result<()> {
    let began = Instant::now();
    namespace
        .kubectl(&["delete", "slgw", "demo", "--timeout=60s"])
        .await?;
    let kinds = "deployments,statefulsets,replicasets,pods,services,endpointslices,configmaps,secrets,\
                 serviceaccounts,poddisruptionbudgets,networkpolicies,controllerrevisions";
    let selector = "--selector=sluice.dev/gateway=demo";
    let is_gone = async || {
        let left = get(namespace, &[kinds, selector]).await?;
        let left = left["items"].as_array().context("items")?;
        let shown = left.iter().map(|object| {
            let metadata = &object["metadata"];
            format!("{} {}", object["kind"], metadata["name"])
        });
        let shown: Vec<String> = shown.collect();
        ensure!(shown.is_empty(), "{shown:?}");
        Ok(true)
    };
    let cluster = namespace.cluster();
    cluster
        .wait_for("everything is gone", GONE, is_gone)
        .await?;
    eprintln!("everything was gone after {:?}", began.elapsed());
    Ok(())
}

/// Who makes a Gateway again need not wait until the former one is gone.
#[tokio::test]
async fn a_gateway_that_is_made_again_at_once_is_served() -> Result<()> {
    let namespace = stage("again").await?;
    let operator = operator(&namespace, "only").await?;
    let mut again = gateway(1);
    again["spec"]["redis"] = json!({"managed": {"topology": "Standalone"}});
    let result = async {
        namespace.apply(&again.to_string()).await?;
        ready(&namespace).await?;
        let before = get(&namespace, &["deployment/demo"]).await?;
        let words = ["delete", "slgw", "demo", "--wait=false"];
        namespace.kubectl(&words).await?;
        namespace.apply(&again.to_string()).await?;
        let is_another = async || {
            let now = get(&namespace, &["deployment/demo"]).await?;
            Ok(now["metadata"]["uid"] != before["metadata"]["uid"])
        };
        let what = "its Deployment is another";
        let cluster = namespace.cluster();
        cluster.wait_for(what, GONE, is_another).await?;
        ready(&namespace).await?;
        let log = operator.log();
        ensure!(!log.contains("belongs to somebody else"), "its own objects");
        Ok(())
    };
    let result = result.await.with_context(|| operator.log());
    namespace.explain(result)
}
