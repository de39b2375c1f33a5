//! Presence: entries, leases, reaping.

use std::time::Instant;

use futures_util::future::join_all;

use super::super::{Holder, PresenceCount, Reaped};
use super::*;

pub(super) async fn run(harness: &dyn Harness) {
    entries_are_added_replaced_and_removed(harness).await;
    users_are_counted_once(harness).await;
    channels_and_accounts_are_apart(harness).await;
    an_entry_taken_over_is_not_the_old_holders(harness).await;
    ended_leases_hide_entries_at_once(harness).await;
    each_ended_entry_is_reaped_once(harness).await;
    concurrent_reapers_share(harness).await;
}

/// The two holders of a fleet, whether it has two nodes or one.
fn holder(node: usize) -> Holder {
    Holder(format!("node-{}", node % 2).into())
}

async fn fleet_with_leases(harness: &dyn Harness) -> Fleet<'_> {
    let fleet = Fleet::new(harness).await;
    for node in 0..2 {
        fleet
            .presence(node)
            .renew(&holder(node), harness.tick() * 1000)
            .await
            .unwrap();
    }
    fleet
}

impl Fleet<'_> {
    async fn join(&self, node: usize, channel: &Channel, info: Arc<ClientInfo>) {
        self.presence(node)
            .join(&holder(node), channel, info)
            .await
            .unwrap();
    }

    async fn leave(&self, node: usize, channel: &Channel, client: &str) -> bool {
        self.presence(node)
            .leave(&holder(node), channel, client)
            .await
            .unwrap()
    }

    /// Who every node sees; and that the count agrees.
    async fn present(&self, channel: &Channel) -> Vec<(String, String)> {
        let mut views = Vec::new();
        for node in 0..self.nodes.len() {
            let list = self.presence(node).list(channel).await.unwrap();
            let mut seen: Vec<_> = list
                .iter()
                .map(|info| (info.client.to_string(), info.user.to_string()))
                .collect();
            seen.sort();
            let users: std::collections::HashSet<_> = seen.iter().map(|(_, user)| user).collect();
            let counted = PresenceCount {
                clients: seen.len() as u32,
                users: users.len() as u32,
            };
            assert_eq!(self.presence(node).count(channel).await.unwrap(), counted);
            views.push(seen);
        }
        assert!(
            views.windows(2).all(|pair| pair[0] == pair[1]),
            "all nodes see the same"
        );
        views.swap_remove(0)
    }

    async fn clients(&self, channel: &Channel) -> Vec<String> {
        self.present(channel)
            .await
            .into_iter()
            .map(|(client, _)| client)
            .collect()
    }
}

fn clients_of(reaped: &[Reaped]) -> Vec<String> {
    let mut clients: Vec<_> = reaped
        .iter()
        .map(|reaped| reaped.info.client.to_string())
        .collect();
    clients.sort();
    clients
}

async fn entries_are_added_replaced_and_removed(harness: &dyn Harness) {
    let fleet = fleet_with_leases(harness).await;
    assert!(fleet.present(&channel()).await.is_empty());
    assert!(!fleet.leave(0, &channel(), "c1").await);
    let full = ClientInfo {
        conn_info: "{}".into(),
        chan_info: "[1]".into(),
        ..(*info("u1", "c1")).clone()
    };
    fleet.join(0, &channel(), Arc::new(full.clone())).await;
    assert_eq!(*fleet.presence(1).list(&channel()).await.unwrap()[0], full);
    fleet.join(0, &channel(), info("u1", "c1")).await;
    fleet.join(1, &channel(), info("u2", "c2")).await;
    fleet.join(0, &channel(), info("u3", "c3")).await;
    assert_eq!(fleet.clients(&channel()).await, ["c1", "c2", "c3"]);
    fleet.join(1, &channel(), info("u4", "c2")).await;
    assert!(
        fleet
            .present(&channel())
            .await
            .contains(&("c2".into(), "u4".into())),
        "replaced"
    );
    assert!(fleet.leave(1, &channel(), "c2").await);
    assert!(!fleet.leave(1, &channel(), "c2").await);
    assert!(fleet.leave(0, &channel(), "c1").await);
    assert_eq!(fleet.clients(&channel()).await, ["c3"]);
    assert!(fleet.leave(0, &channel(), "c3").await);
    assert!(fleet.present(&channel()).await.is_empty());
}

async fn users_are_counted_once(harness: &dyn Harness) {
    let fleet = fleet_with_leases(harness).await;
    for client in 0..60 {
        fleet
            .join(
                client,
                &channel(),
                info(&format!("u{}", client % 7), &format!("c{client}")),
            )
            .await;
        fleet.present(&channel()).await;
    }
    let count = fleet.presence(0).count(&channel()).await.unwrap();
    assert_eq!(
        count,
        PresenceCount {
            clients: 60,
            users: 7
        }
    );
    for client in 0..60 {
        assert!(fleet.leave(client, &channel(), &format!("c{client}")).await);
        fleet.present(&channel()).await;
    }
}

async fn channels_and_accounts_are_apart(harness: &dyn Harness) {
    let fleet = fleet_with_leases(harness).await;
    let others = [
        Channel::new("b", "x"),
        Channel::new("", "x"),
        Channel::new("a", "y"),
    ];
    fleet.join(0, &channel(), info("u", "c")).await;
    for other in &others {
        assert!(fleet.present(other).await.is_empty());
        assert!(!fleet.leave(0, other, "c").await);
    }
    fleet.join(0, &others[0], info("u", "c")).await;
    assert!(fleet.leave(0, &channel(), "c").await);
    assert_eq!(fleet.clients(&others[0]).await, ["c"]);
}

async fn an_entry_taken_over_is_not_the_old_holders(harness: &dyn Harness) {
    let fleet = fleet_with_leases(harness).await;
    for others in [&[][..], &["c2", "c3"]] {
        for other in others {
            fleet.join(0, &channel(), info("u", other)).await;
        }
        fleet.join(0, &channel(), info("u", "c1")).await;
        fleet.join(1, &channel(), info("u", "c1")).await;
        // Holders are named by the caller, so this holds on one node too.
        assert!(!fleet.leave(0, &channel(), "c1").await);
        assert!(fleet.clients(&channel()).await.contains(&"c1".to_owned()));
        assert!(fleet.leave(1, &channel(), "c1").await);
    }
}

async fn ended_leases_hide_entries_at_once(harness: &dyn Harness) {
    in_time(async || ended_leases_hide_entries(harness).await).await;
}

async fn ended_leases_hide_entries(harness: &dyn Harness) -> InTime {
    let fleet = fleet_with_leases(harness).await;
    let (tick, dying) = (harness.tick(), Holder("dying".into()));
    let presence = fleet.presence(0);
    let personal = Channel::new("a", "#u2");
    presence
        .join(&dying, &channel(), info("u2", "c2"))
        .await
        .unwrap();
    assert!(
        fleet.present(&channel()).await.is_empty(),
        "no lease, not visible"
    );
    let renewed = Instant::now();
    presence.renew(&dying, tick * 4).await.unwrap();
    presence
        .join(&dying, &personal, info("u2", "c2"))
        .await
        .unwrap();
    fleet.join(1, &channel(), info("u1", "c1")).await;
    fleet.join(1, &channel(), info("u2", "c3")).await;
    let clients = fleet.clients(&channel()).await;
    if renewed.elapsed() >= tick * 4 {
        return InTime(false);
    }
    assert_eq!(clients, ["c1", "c2", "c3"]);
    harness.pass(tick * 2).await;
    let renewed = Instant::now();
    presence.renew(&dying, tick * 4).await.unwrap();
    harness.pass(tick * 3).await;
    let clients = fleet.clients(&channel()).await;
    let reaped = presence.reap().await.unwrap();
    if renewed.elapsed() >= tick * 4 {
        return InTime(false);
    }
    assert_eq!(clients, ["c1", "c2", "c3"], "renewed");
    assert!(reaped.is_empty());
    harness.pass(tick * 2).await;
    assert_eq!(
        fleet.clients(&channel()).await,
        ["c1", "c3"],
        "hidden before anyone reaps"
    );
    assert!(fleet.present(&personal).await.is_empty());
    presence.renew(&dying, tick * 1000).await.unwrap();
    assert_eq!(
        fleet.clients(&channel()).await,
        ["c1", "c2", "c3"],
        "back in time"
    );
    InTime(true)
}

async fn each_ended_entry_is_reaped_once(harness: &dyn Harness) {
    let fleet = fleet_with_leases(harness).await;
    let (tick, dying) = (harness.tick(), Holder("dying".into()));
    let presence = fleet.presence(0);
    let personal = Channel::new("b", "#u2");
    presence.renew(&dying, tick * 2).await.unwrap();
    for client in ["c1", "c2", "c3"] {
        presence
            .join(&dying, &channel(), info("u", client))
            .await
            .unwrap();
    }
    presence
        .join(&dying, &personal, info("u2", "c4"))
        .await
        .unwrap();
    presence
        .join(&dying, &channel(), info("u", "taken"))
        .await
        .unwrap();
    fleet.join(1, &channel(), info("u", "taken")).await;
    assert!(presence.leave(&dying, &channel(), "c3").await.unwrap());
    harness.pass(tick * 3).await;
    assert!(
        presence.leave(&dying, &channel(), "c2").await.unwrap(),
        "a late leave takes it from the reaper"
    );
    let reaped = fleet.presence(1).reap().await.unwrap();
    assert_eq!(clients_of(&reaped), ["c1", "c4"]);
    let of_personal: Vec<_> = reaped
        .iter()
        .filter(|reaped| reaped.channel == personal)
        .collect();
    assert_eq!(clients_of(&reaped).len(), 2);
    assert_eq!(*of_personal[0].info, *info("u2", "c4"));
    assert!(fleet.presence(0).reap().await.unwrap().is_empty());
    assert_eq!(fleet.clients(&channel()).await, ["taken"]);
    assert!(!presence.leave(&dying, &channel(), "c1").await.unwrap());
    presence.renew(&dying, tick * 1000).await.unwrap();
    assert_eq!(
        fleet.clients(&channel()).await,
        ["taken"],
        "what was reaped does not come back by itself"
    );
    presence
        .join(&dying, &channel(), info("u", "c1"))
        .await
        .unwrap();
    assert_eq!(fleet.clients(&channel()).await, ["c1", "taken"]);
}

async fn concurrent_reapers_share(harness: &dyn Harness) {
    const CLIENTS: usize = 300;
    let fleet = fleet_with_leases(harness).await;
    let dying = Holder("dying".into());
    fleet
        .presence(0)
        .renew(&dying, harness.tick())
        .await
        .unwrap();
    for client in 0..CLIENTS {
        let channel = Channel::new("a", &format!("ch{}", client % 20));
        fleet
            .presence(0)
            .join(&dying, &channel, info("u", &format!("c{client:03}")))
            .await
            .unwrap();
    }
    harness.pass(harness.tick() * 2).await;
    let reapers = (0..4).map(|reaper| {
        let presence = fleet.node(reaper).presence.clone();
        tokio::spawn(async move { presence.reap().await.unwrap() })
    });
    let reaped: Vec<Reaped> = join_all(reapers)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    let expected: Vec<String> = (0..CLIENTS).map(|client| format!("c{client:03}")).collect();
    assert_eq!(clients_of(&reaped), expected);
}
