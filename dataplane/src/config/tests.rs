use std::collections::BTreeMap;

use parking_lot::Mutex;
use sluice_crds::config::{
    Allowed, Authentication, Drain, Feature, Heartbeat, Limits, Namespace, Relay, Secret,
    TlsMaterial,
};

use super::*;

/// Metric handles are clones of what the registry holds, so scraping shows what `judge` counted.
fn scrape(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

pub(crate) fn sample() -> GatewayConfig {
    let namespace = Namespace {
        presence: true,
        join_leave: Feature::Disabled,
        history: None,
        recovery: Feature::Disabled,
        positioning: Feature::Disabled,
        delta: false,
        subscribe: Allowed::Anyone,
        publish: Allowed::Subscriber,
        ask_presence: Allowed::Subscriber,
        ask_history: Allowed::Subscriber,
    };
    GatewayConfig {
        name: "game".to_owned(),
        namespace: "default".to_owned(),
        listeners: vec![Listener {
            name: "web".to_owned(),
            port: 8000,
            tls: None,
        }],
        relay: Relay {
            authentication: Authentication {
                jwt: None,
                anonymous: true,
                expiry_grace: Duration::from_secs(25),
            },
            default_namespace: Arc::new(namespace),
            namespaces: BTreeMap::new(),
            personal_channel: true,
            limits: Limits {
                message_bytes: 65_536,
                queue_bytes_per_client: 1 << 20,
                channels_per_client: 128,
                channel_name_bytes: 255,
                connections: None,
                connections_per_account: None,
                connections_per_second: None,
                messages_per_second_per_client: None,
                commands_per_second_per_client: None,
                messages_per_second_per_account: None,
            },
            heartbeat: Heartbeat {
                interval: Duration::from_secs(25),
                timeout: Duration::from_secs(8),
            },
            server_api_key: Some(Secret::new(*b"top-secret-key")),
        },
        ingest: None,
        redis: None,
        data_planes_max: 1,
        drain: Drain {
            timeout: Duration::from_secs(30),
        },
    }
}

type Loaded = Result<GatewayConfig, Vec<String>>;

/// Files that a test rewrites: fingerprints to give one by one (the last again and again), and what is in the files.
#[derive(Clone)]
struct Files(Arc<Mutex<(Vec<u64>, Loaded)>>);

impl Files {
    fn new(loaded: Loaded) -> Self {
        Self(Arc::new(Mutex::new((vec![0], loaded))))
    }

    fn write(&self, fingerprints: &[u64], loaded: Loaded) {
        *self.0.lock() = (fingerprints.to_vec(), loaded);
    }
}

impl Source for Files {
    fn fingerprint(&self) -> u64 {
        let fingerprints = &mut self.0.lock().0;
        if fingerprints.len() > 1 {
            fingerprints.remove(0)
        } else {
            fingerprints[0]
        }
    }

    fn load(&self) -> Loaded {
        self.0.lock().1.clone()
    }
}

fn with_drain(seconds: u64) -> GatewayConfig {
    GatewayConfig {
        drain: Drain {
            timeout: Duration::from_secs(seconds),
        },
        ..sample()
    }
}

fn assert_metrics(registry: &Registry, generation: u32, applied: u32, refused: u32) {
    let text = scrape(registry);
    for line in [
        format!("sluice_config_generation {generation}"),
        format!("sluice_config_reloads_total{{result=\"applied\"}} {applied}"),
        format!("sluice_config_reloads_total{{result=\"refused\"}} {refused}"),
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "{line} is not in:\n{text}"
        );
    }
}

#[test]
fn the_first_configuration_must_be_good() {
    let files = Files::new(Err(vec![
        "gateway a: one".to_owned(),
        "gateway a: two".to_owned(),
    ]));
    let error = ConfigWatch::start(files, &mut Registry::default())
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "2 problems in the configuration:\n  gateway a: one\n  gateway a: two"
    );
}

#[tokio::test]
async fn changes_are_applied_or_refused_once() {
    let files = Files::new(Ok(sample()));
    let mut registry = Registry::default();
    let mut watch = ConfigWatch::start(files.clone(), &mut registry).unwrap();
    let mut receiver = watch.subscribe();
    watch.look().await;
    assert!(!receiver.has_changed().unwrap());
    assert_metrics(&registry, 1, 0, 0);

    files.write(&[1], Ok(with_drain(5)));
    watch.look().await;
    assert!(receiver.has_changed().unwrap());
    assert_eq!(
        receiver.borrow_and_update().drain.timeout,
        Duration::from_secs(5)
    );
    assert_metrics(&registry, 2, 1, 0);

    files.write(&[2], Err(vec!["no".to_owned()]));
    watch.look().await;
    watch.look().await;
    assert!(!receiver.has_changed().unwrap());
    assert_eq!(receiver.borrow().drain.timeout, Duration::from_secs(5));
    assert_metrics(&registry, 2, 1, 1);

    files.write(&[3], Ok(with_drain(5)));
    watch.look().await;
    assert!(
        !receiver.has_changed().unwrap(),
        "an equal configuration wakes nobody"
    );
    assert_metrics(&registry, 2, 2, 1);
}

#[tokio::test]
async fn files_in_the_middle_of_a_write_are_judged_later() {
    let files = Files::new(Ok(sample()));
    let mut registry = Registry::default();
    let mut watch = ConfigWatch::start(files.clone(), &mut registry).unwrap();
    files.write(&[1, 2], Err(vec!["half a document".to_owned()]));
    watch.look().await;
    assert_metrics(&registry, 1, 0, 0);
    files.write(&[2], Ok(with_drain(5)));
    watch.look().await;
    assert_metrics(&registry, 2, 1, 0);
}

#[tokio::test(start_paused = true)]
async fn the_files_are_looked_at_every_interval() {
    let files = Files::new(Ok(sample()));
    let watch = ConfigWatch::start(files.clone(), &mut Registry::default()).unwrap();
    let mut receiver = watch.subscribe();
    let following = tokio::spawn(watch.run(Duration::from_secs(1)));
    files.write(&[1], Ok(with_drain(9)));
    receiver.changed().await.unwrap();
    assert_eq!(receiver.borrow().drain.timeout, Duration::from_secs(9));
    following.abort();
}

#[test]
fn restarts_are_named() {
    let listener = |name: &str, port| Listener {
        name: name.to_owned(),
        port,
        tls: None,
    };
    let material = TlsMaterial {
        certificate: Secret::new(*b"a"),
        private_key: Secret::new(*b"b"),
    };
    let old = GatewayConfig {
        listeners: vec![listener("a", 1), listener("b", 2), listener("c", 3)],
        ..sample()
    };
    let mut new = GatewayConfig {
        name: "other".to_owned(),
        listeners: vec![
            listener("d", 4),
            listener("b", 5),
            Listener {
                tls: Some(material.clone()),
                ..listener("c", 3)
            },
        ],
        ..with_drain(1)
    };
    assert_eq!(
        needs_restart(&old, &new),
        [
            "gateway default/game became default/other",
            "listener a removed",
            "listener b moved from port 2 to 5",
            "listener c became HTTPS",
            "listener d added on port 4",
        ]
    );
    let old = new.clone();
    new.listeners[2].tls = Some(TlsMaterial {
        certificate: Secret::new(*b"renewed"),
        ..material
    });
    assert_eq!(
        needs_restart(&old, &new),
        [""; 0],
        "a renewed certificate is followed"
    );
}
