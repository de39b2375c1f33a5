//! Two data planes in one process, told of each other without a store.

use std::sync::OnceLock;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::relay::api::tests::{call, shared_with_peers};
use crate::relay::channel::Channel;
use crate::relay::mailbox::Item;
use crate::relay::worker::Order;
use crate::store::embedded::Alone;

/// Hands messages to the other process at once.
#[derive(Default)]
struct Wire {
    me: &'static str,
    other: OnceLock<Arc<Surveys>>,
}

#[async_trait]
impl Peers for Wire {
    async fn tell_others(&self, message: Bytes) -> Result<usize, StoreError> {
        self.other
            .get()
            .unwrap()
            .told(Holder(self.me.into()), message);
        Ok(1)
    }

    async fn tell(&self, peer: &Holder, message: Bytes) -> Result<(), StoreError> {
        assert_ne!(&*peer.0, self.me);
        self.other
            .get()
            .unwrap()
            .told(Holder(self.me.into()), message);
        Ok(())
    }
}

/// Both answer each other until the test ends.
fn pair() -> (Arc<Shared>, Arc<Shared>) {
    let wires = ["a", "b"].map(|me| {
        Arc::new(Wire {
            me,
            other: OnceLock::new(),
        })
    });
    let [a, b] = wires.clone().map(|wire| shared_with_peers(wire));
    let _ = wires[0].other.set(Arc::clone(b.surveys()));
    let _ = wires[1].other.set(Arc::clone(a.surveys()));
    for shared in [&a, &b] {
        let shared = Arc::clone(shared);
        tokio::spawn(async move { answer_all(&shared).await });
    }
    (a, b)
}

async fn join(shared: &Shared, account: &str, channel: &str) {
    let channel = Channel::new(account, channel);
    shared
        .router()
        .join(0, &channel, shared.broker())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn channels_are_those_of_all() {
    let (a, b) = pair();
    join(&a, "", "x").await;
    join(&b, "", "x").await;
    join(&b, "", "y").await;
    join(&b, "other", "z").await;
    let found = call(&a, "channels", json!({})).await;
    let expected = json!({"x": {"num_clients": 2}, "y": {"num_clients": 1}});
    assert_eq!(found["result"]["channels"], expected);
    let found = call(&b, "channels", json!({"pattern": "y*"})).await;
    assert_eq!(
        found["result"]["channels"],
        json!({"y": {"num_clients": 1}})
    );
}

#[tokio::test(start_paused = true)]
async fn orders_reach_the_workers_of_all() {
    let (a, b) = pair();
    let body = json!({"user": "u", "account": "acc", "whitelist": ["c"],
        "disconnect": {"code": 4001, "reason": "because"}});
    assert_eq!(call(&a, "disconnect", body).await, json!({"result": {}}));
    let subscribe = json!({"user": "u", "channel": "x", "info": {"deep": [1, null]}, "data": null,
        "override": {"presence": {"value": true}}});
    assert_eq!(
        call(&b, "subscribe", subscribe).await,
        json!({"result": {}})
    );
    for shared in [a, b] {
        for mailbox in shared.router().mailboxes() {
            let orders: Vec<String> = mailbox.take().await.iter().map(told_order).collect();
            assert_eq!(orders.len(), 2, "{orders:?}");
            assert!(
                orders[0].contains("4001") && orders[0].contains("because"),
                "{orders:?}"
            );
            assert!(orders[1].contains("deep"), "{orders:?}");
        }
    }
}

fn told_order(item: &Item) -> String {
    match item {
        Item::Order(Order::Control {
            target, control, ..
        }) => format!("{target:?} {control:?}"),
        Item::Order(_) | Item::Event(..) => panic!("not a control"),
    }
}

#[tokio::test(start_paused = true)]
async fn info_lists_every_process_and_waits_for_none_for_ever() {
    let (a, b) = pair();
    let info: Value = call(&a, "info", json!({})).await;
    assert_eq!(info["result"]["nodes"].as_array().unwrap().len(), 2);
    let deaf = shared_with_peers(Arc::new(Wire {
        me: "deaf",
        other: OnceLock::from(Arc::<Surveys>::default()),
    }));
    let info = call(&deaf, "info", json!({})).await;
    assert_eq!(info["result"]["nodes"].as_array().unwrap().len(), 1);
    assert!(deaf.surveys().waiting.lock().is_empty());
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_understood_is_passed_over() {
    let alone = shared_with_peers(Arc::new(Alone));
    for message in [
        "",
        "{}",
        r#"{"answer":{"id":7,"result":{}}}"#,
        r#"{"later":{"id":1}}"#,
        "[1]",
    ] {
        alone
            .surveys()
            .told(Holder("x".into()), Bytes::from_static(message.as_bytes()));
    }
    assert_eq!(
        call(&alone, "channels", json!({})).await["result"]["channels"],
        json!({})
    );
}
