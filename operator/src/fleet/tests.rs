use serde_json::{Value, json};

use super::tokens::tests::Signer;
use super::*;
use crate::fixtures::{ApiServer, SMALL, validated};
use crate::packed::Packed;

fn pod(name: &str, template: &str, created: i64) -> Arc<PodView> {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "labels": {"pod-template-hash": template}},
    });
    let mut view = PodView::of(&serde_json::from_value(pod).unwrap());
    view.created = created;
    Arc::new(view)
}

#[test]
fn pods_of_the_youngest_ones_template_are_current() {
    let mut ended = (*pod("d", "three", 9)).clone();
    ended.ended = true;
    let pods = [
        pod("a", "one", 1),
        pod("b", "one", 2),
        pod("c", "two", 3),
        Arc::new(ended),
    ];
    let found = facts(&pods);
    let current: Vec<_> = found
        .iter()
        .map(|pod| (&*pod.name, pod.current_revision))
        .collect();
    assert_eq!(current, [("a", false), ("b", false), ("c", true)]);
}

/// Far from now, so that tokens count.
const LATER: u64 = 9_999_999_999;

fn token(signer: &Signer, pod: &str, uid: &str) -> String {
    let claims = json!({
        "iss": "https://cluster", "aud": ["sluice-manager"], "exp": LATER,
        "kubernetes.io": {
            "namespace": "n", "pod": {"name": pod, "uid": uid}, "serviceaccount": {"name": "g"},
        },
    });
    signer.sign(&json!({"alg": "ES256", "kid": "k"}), &claims)
}

fn data_plane(name: &str, uid: &str) -> PodView {
    let pod: Value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "uid": uid, "labels": {
            "sluice.dev/gateway": "g", "app.kubernetes.io/component": "dataplane",
        }},
    });
    PodView::of(&serde_json::from_value(pod).unwrap())
}

/// Managers of a cluster with this key, and with the pods `g-a` and `g-b` of the Gateway `n/g`.
fn fleets(signer: &Signer) -> Arc<Fleets> {
    let server = ApiServer::default();
    let discovery = json!({"issuer": "https://cluster"});
    server.put("/.well-known/openid-configuration", discovery);
    server.put(
        "/openid/v1/jwks",
        json!({"keys": [{"kty": "unheard of"}, signer.jwk()]}),
    );
    let world = Arc::new(World::default());
    for (name, uid) in [("g-a", "1"), ("g-b", "2")] {
        world
            .pods
            .put(("n".to_owned(), name.to_owned()), data_plane(name, uid));
    }
    let (_, trusted) = watch::channel("".into());
    let keys = identity::Cluster::new(server.client());
    Arc::new(Fleets::new(world, keys, trusted, Arc::new(|_| {})))
}

#[tokio::test]
async fn who_comes_to_lead_looks_at_all_gateways() {
    let world = Arc::new(World::default());
    let gateway = serde_json::from_value(crate::fixtures::gateway("{}")).unwrap();
    let key = ("n".to_owned(), "g".to_owned());
    world.gateways.put(key.clone(), Packed::new(&gateway, None));
    let (_, trusted) = watch::channel("".into());
    let keys = identity::Cluster::new(ApiServer::default().client());
    let woken = Arc::new(Mutex::new(Vec::new()));
    let wake = {
        let woken = Arc::clone(&woken);
        Arc::new(move |key| woken.lock().unwrap().push(key))
    };
    let fleets = Fleets::new(world, keys, trusted, wake);
    for leads in [false, true, true, false, true] {
        fleets.lead(leads);
        tokio::task::yield_now().await;
    }
    assert_eq!(*woken.lock().unwrap(), [key.clone(), key]);
}

fn wishes() -> Policy {
    Policy {
        applications: std::collections::BTreeSet::new(),
        caps: BTreeMap::new(),
        scaling: sluice_manager::Scaling {
            min: 0,
            max: 3,
            connections_per_replica: 1_000,
            ..sluice_manager::Scaling::default()
        },
        rebalance: sluice_manager::Rebalance::Steer,
        moves_per_second: None,
        fence_delay: Duration::from_secs(15),
        steering: true,
    }
}

#[tokio::test]
async fn a_data_plane_is_heard_where_its_gateway_is_led_and_as_itself_only() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let fleets = fleets(&signer);
    let own = token(&signer, "g-a", "1");
    let refused = async |token: Option<&str>, gateway: &str, pod: &str| {
        fleets.admit(token, gateway, pod).await.err()
    };
    assert_eq!(
        refused(Some(&own), "n/g", "g-a").await,
        Some(Refusal::NotLeading)
    );
    let (leads, leading) = watch::channel(true);
    let followed = {
        let fleets = Arc::clone(&fleets);
        tokio::spawn(async move { fleets.follow(leading).await })
    };
    tokio::task::yield_now().await;
    assert!(matches!(
        refused(Some(&own), "n/g", "g-a").await,
        Some(Refusal::Unknown(_))
    ));
    let key = ("n".to_owned(), "g".to_owned());
    let config = validated(SMALL).config;
    fleets.feed(&key, wishes(), &config, &[], None);
    assert_eq!(refused(Some(&own), "n/g", "g-a").await, None);
    let forged = token(&stranger, "g-a", "1");
    let former = token(&signer, "g-a", "0");
    for (token, gateway, pod) in [
        (None, "n/g", "g-a"),
        (Some(forged.as_str()), "n/g", "g-a"),
        (Some("x"), "n/g", "g-a"),
    ] {
        let why = refused(token, gateway, pod).await;
        assert!(
            matches!(why, Some(Refusal::Unauthenticated(_))),
            "{token:?}: {why:?}"
        );
    }
    // Another pod's place, a pod of that name that was there before, and one that is not there.
    let gone = token(&signer, "g-c", "3");
    for (token, pod) in [(&own, "g-b"), (&former, "g-a"), (&gone, "g-c")] {
        let why = refused(Some(token), "n/g", pod).await;
        assert!(matches!(why, Some(Refusal::Forbidden(_))), "{pod}: {why:?}");
    }
    assert!(matches!(
        refused(Some(&own), "other", "g-a").await,
        Some(Refusal::Unknown(_))
    ));
    leads.send_replace(false);
    while refused(Some(&own), "n/g", "g-a").await != Some(Refusal::NotLeading) {
        tokio::task::yield_now().await;
    }
    assert!(fleets.plans().is_none());
    drop(leads);
    followed.await.unwrap();
}
