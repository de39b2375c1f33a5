//! Subscribe, unsubscribe, disconnect and refresh: what connections are told.

use tokio::time::Instant;

use super::*;
use crate::relay::codes;
use crate::relay::mailbox::Item;
use crate::relay::session::Control;
use crate::relay::worker::{Order, Target};

/// Calls, and answers with what every worker was told.
async fn told(method: &str, request: Value) -> (Value, Vec<(Arc<Target>, Control)>) {
    let shared = shared();
    let mut orders = Vec::new();
    let workers = async {
        for mailbox in shared.router().mailboxes() {
            for item in mailbox.take().await {
                if let Item::Order(Order::Control {
                    target,
                    control,
                    done: _,
                }) = item
                {
                    orders.push((target, control));
                }
            }
        }
    };
    let answer = tokio::select! {
        biased;
        (answer, ()) = async { tokio::join!(call(&shared, method, request), workers) } => answer,
        () = tokio::time::sleep(Duration::from_secs(60)) => unreachable!("an order is given or the test asks `refused`"),
    };
    (answer, orders)
}

/// Calls and expects that no worker is told anything.
async fn untold(method: &str, request: Value) -> Value {
    let shared = shared();
    let answer = call(&shared, method, request).await;
    let silent = tokio::time::timeout(
        Duration::from_millis(1),
        shared.router().mailboxes()[0].take(),
    )
    .await;
    assert!(silent.is_err(), "an order was given");
    answer
}

fn done() -> Value {
    json!({"result": {}})
}

#[tokio::test(start_paused = true)]
async fn every_worker_is_told_whom_to_disconnect() {
    let request = json!({"user": "u", "client": "c", "account": "acme", "whitelist": ["c2"]});
    let (answer, orders) = told("disconnect", request).await;
    assert_eq!(answer, done());
    assert_eq!(orders.len(), WORKERS);
    for (target, control) in orders {
        assert_eq!(
            (&*target.account, &*target.user, &*target.client),
            ("acme", "u", "c")
        );
        assert_eq!(target.except, ["c2"]);
        assert!(
            matches!(control, Control::Disconnect(disconnect) if disconnect == codes::DISCONNECT_FORCE)
        );
    }
    let request = json!({"user": "u", "disconnect": {"code": 4_001, "reason": "gone"}});
    let (_, orders) = told("disconnect", request).await;
    assert!(
        matches!(&orders[0].1, Control::Disconnect(given) if given.code == 4_001 && given.reason == "gone")
    );
}

#[tokio::test(start_paused = true)]
async fn bad_disconnects_reach_nobody() {
    for code in [0, 1_000, 2_999, 5_000, 65_536 + 3_000] {
        let request = json!({"user": "u", "disconnect": {"code": code, "reason": "r"}});
        assert_eq!(untold("disconnect", request).await, bad_request(), "{code}");
    }
    let long = json!({"user": "u", "disconnect": {"code": 3_000, "reason": "r".repeat(124)}});
    assert_eq!(untold("disconnect", long).await, bad_request());
    assert_eq!(
        untold("disconnect", json!({"user": "u", "account": "\n"})).await,
        bad_request()
    );
    // Nobody has a session.
    assert_eq!(
        untold("disconnect", json!({"user": "u", "session": "s"})).await,
        done()
    );
}

#[tokio::test(start_paused = true)]
async fn subscribe_carries_everything() {
    let request = json!({
        "user": "u", "channel": "full:a", "account": "acme", "info": {"i": 1}, "b64data": "AAE=", "expire_at": 5,
        "recover_since": {"offset": 3, "epoch": "e"},
        "override": {"presence": {"value": true}, "join_leave": {}, "force_recovery": null},
    });
    let (answer, orders) = told("subscribe", request).await;
    assert_eq!(answer, done());
    let Control::Subscribe(subscribe) = &orders[0].1 else {
        unreachable!("a subscribe")
    };
    assert_eq!(
        (subscribe.channel.account(), subscribe.channel.name()),
        ("acme", "full:a")
    );
    assert_eq!(
        (&subscribe.info[..], &subscribe.data[..]),
        (&br#"{"i":1}"#[..], &b"\x00\x01"[..])
    );
    assert_eq!(
        (subscribe.expires_at, subscribe.recover.clone()),
        (Some(5), Some((3, "e".to_owned())))
    );
    assert_eq!(
        (subscribe.overrides.presence, subscribe.overrides.join_leave),
        (Some(true), Some(false))
    );
    assert_eq!(
        (
            subscribe.overrides.force_recovery,
            subscribe.overrides.force_positioning
        ),
        (None, None)
    );

    assert_eq!(
        untold("subscribe", json!({"user": "u"})).await,
        bad_request()
    );
    assert_eq!(
        untold("subscribe", json!({"channel": "a"})).await,
        bad_request()
    );
    assert_eq!(
        untold(
            "subscribe",
            json!({"user": "u", "channel": "a", "b64info": "%"})
        )
        .await,
        bad_request()
    );
    assert_eq!(
        untold("subscribe", json!({"user": "u", "channel": "no:a"})).await,
        error(102, "unknown channel")
    );
}

#[tokio::test(start_paused = true)]
async fn unsubscribe_from_one_or_all() {
    let (_, orders) = told("unsubscribe", json!({"user": "u", "channel": "a"})).await;
    assert!(
        matches!(&orders[0].1, Control::Unsubscribe { channel: Some(channel) } if channel.name() == "a")
    );
    let (_, orders) = told("unsubscribe", json!({"user": "u"})).await;
    assert!(matches!(
        &orders[0].1,
        Control::Unsubscribe { channel: None }
    ));
    assert_eq!(
        untold("unsubscribe", json!({"user": "u", "channel": "no:a"})).await,
        error(102, "unknown channel")
    );
}

#[tokio::test(start_paused = true)]
async fn refresh_extends_or_ends() {
    let later = crate::clock::unix_ms() / 1_000 + 1_000;
    let (_, orders) = told("refresh", json!({"user": "u", "expire_at": later})).await;
    assert!(matches!(orders[0].1, Control::Refresh { expires_at: Some(at), .. } if at == later));
    for never in [json!({"user": "u"}), json!({"user": "u", "expire_at": -1})] {
        let (_, orders) = told("refresh", never).await;
        assert!(matches!(
            orders[0].1,
            Control::Refresh {
                expires_at: None,
                ..
            }
        ));
    }
    for over in [
        json!({"user": "u", "expired": true, "expire_at": later}),
        json!({"user": "u", "expire_at": 1}),
    ] {
        let (_, orders) = told("refresh", over).await;
        assert!(
            matches!(&orders[0].1, Control::Disconnect(disconnect) if *disconnect == codes::DISCONNECT_EXPIRED)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_worker_delays_the_answer_by_no_more_than_the_deadline() {
    let began = Instant::now();
    assert_eq!(
        call(&shared(), "disconnect", json!({"user": "u"})).await,
        done()
    );
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_secs(1) && waited < Duration::from_secs(2),
        "{waited:?}"
    );
}
