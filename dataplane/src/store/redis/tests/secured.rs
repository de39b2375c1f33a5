//! A cluster that speaks TLS only and knows its users, each limited to the keys and channels of Sluice.

use sluice_crds::config::{Redis, RedisAddress, RedisTls, Secret};
use sluice_e2e::redis::{AclUser, Tls};

use super::*;
use crate::relay::channel::Channel;
use crate::store::{Broker, NewPublication, PublishOptions, Retention};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_an_acl_user_are_enough() {
    let tls = Tls::generate(false).unwrap();
    let options = Options {
        password: Some("of-default".to_owned()),
        users: vec![AclUser {
            name: "sluice".to_owned(),
            password: Some("secret".to_owned()),
            rules: "~sluice:* resetchannels &sluice:* +@all -@dangerous +cluster|nodes".to_owned(),
        }],
        tls: Some(tls.clone()),
        ..Options::default()
    };
    let servers = RedisCluster::start(3, 1, options).await.unwrap();
    let seeds = servers.nodes().iter().map(|server| RedisAddress {
        host: "127.0.0.1".to_owned(),
        port: server.port(),
    });
    let redis = Redis {
        seeds: seeds.collect(),
        tls: Some(RedisTls {
            ca: Some(Secret::new(tls.ca.into_bytes())),
            client: None,
            server_name: None,
        }),
        username: Some("sluice".to_owned()),
        password: Some(Secret::new(b"secret".to_vec())),
    };
    let settings = Settings::new(&redis, fresh_gateway()).unwrap();
    let sink = Arc::new(RecordingSink::default());
    let process = Process::start(settings, sink.clone()).await;
    for index in 0..12 {
        let channel = Channel::new("a", &index.to_string());
        process.broker.subscribe(&channel).await.unwrap();
        for history in [None, Some((10, Duration::from_secs(60)))] {
            let publication = NewPublication {
                data: index.to_string().into(),
                ..NewPublication::default()
            };
            let options = PublishOptions {
                history: history.map(|(size, ttl)| Retention { size, ttl }),
                ..PublishOptions::default()
            };
            process
                .broker
                .publish(&channel, publication, options)
                .await
                .unwrap();
        }
    }
    for _ in 0..400 {
        if sink.publications().len() >= 24 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sink.publications().len(), 24);
}
