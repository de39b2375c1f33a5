//! Data planes on a Redis Cluster that takes only encrypted connections with certificates, and only a user with the rights
//! that the README names.

use anyhow::Result;
use serde_json::{Value, json};
use sluice_e2e::fleet::Fleet;
use sluice_e2e::manifest::Manifest;
use sluice_e2e::redis::{AclUser, Options, RedisCluster, Tls};
use sluice_e2e::token;

/// As in the README.
const RULES: &str = "~sluice:* &sluice:* -@all +@read +@write +@pubsub +@scripting +@connection +@transaction +time +info +wait \
     +config|get +cluster|nodes";

fn secret(name: &str, data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data })
}

fn manifest(url: &str, tls: &Tls) -> Manifest {
    let external = json!({
        "url": url,
        "tls": {
            "ca": { "secretRef": { "name": "authority", "key": "ca.crt" } },
            "clientCertificateRef": { "name": "client" },
        },
        "credentials": {
            "username": "gateway",
            "passwordSecretRef": { "name": "redis", "key": "password" },
        },
    });
    let mut client = secret(
        "client",
        &json!({ "tls.crt": tls.client_certificate, "tls.key": tls.client_key }),
    );
    client["type"] = json!("kubernetes.io/tls");
    Manifest {
        redis: Some(json!({ "external": external })),
        documents: vec![
            secret("authority", &json!({ "ca.crt": tls.ca })),
            secret("redis", &json!({ "password": "right" })),
            client,
        ],
        ..Manifest::full()
    }
}

#[tokio::test]
async fn an_encrypted_cluster_with_a_user_of_few_rights() -> Result<()> {
    let tls = Tls::generate(true)?;
    let options = Options {
        tls: Some(tls.clone()),
        password: Some("of-the-default-user".to_owned()),
        users: vec![AclUser {
            name: "gateway".to_owned(),
            password: Some("right".to_owned()),
            rules: RULES.to_owned(),
        }],
        ..Options::default()
    };
    let redis = RedisCluster::start(3, 1, options).await?;
    let manifest = manifest(&redis.url(), &tls);
    let fleet = Fleet::start_with(redis, &manifest, 2).await?;
    for number in 0..6 {
        let about = json!({ "channel": format!("x-{number}") });
        let mut reader = fleet.client(0, &token::user("reader")).await?;
        reader.call("subscribe", about.clone()).await?;
        let publish = json!({ "channel": format!("x-{number}"), "data": number });
        fleet.api(1).call("publish", publish).await?;
        assert_eq!(reader.push_of("pub").await?["pub"]["data"], number);
        let stats = reader.call("presence_stats", about).await?;
        assert_eq!(stats["num_clients"], 1);
    }
    fleet.redis.kill_primary(0).await?;
    // The promoted server knows the user and the scripts' texts are sent to it.
    let mut client = fleet.client(1, &token::user("later")).await?;
    let subscribed = async {
        for number in 0..6 {
            let about = json!({ "channel": format!("x-{number}") });
            while client
                .command("subscribe", about.clone())
                .await?
                .get("error")
                .is_some()
            {}
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), subscribed).await??;
    for plane in &fleet.planes {
        assert!(
            !plane.log_text().contains("right\""),
            "the password is in the log"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_told_on_the_admin_port() -> Result<()> {
    let options = Options {
        password: Some("right".to_owned()),
        ..Options::default()
    };
    let redis = RedisCluster::start(1, 0, options).await?;
    let wrong = Manifest {
        redis: Some(json!({ "external": {
            "url": redis.url(),
            "credentials": { "passwordSecretRef": { "name": "redis", "key": "password" } },
        } })),
        documents: vec![secret("redis", &json!({ "password": "wrong" }))],
        ..Manifest::full()
    };
    let ended = sluice_e2e::sluice::Sluice::start(&wrong).await;
    let told = format!("{:#}", ended.err().expect("never ready"));
    assert!(told.contains("WRONGPASS"), "{told}");
    assert!(
        !told.contains("\"wrong\""),
        "the password is in the log: {told}"
    );
    Ok(())
}
