use super::*;

fn asked() -> Address {
    Address::new("seed", 7_000)
}

fn learned(answers: &[&str]) -> Topology {
    let mut view = View::default();
    for answer in answers {
        view.learn(answer, &asked());
    }
    view.topology()
}

const BEFORE: &str = "\
a 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-8191\n\
b 10.0.0.2:6379@16379 master - 0 0 2 connected 8192-16383\n\
c 10.0.0.3:6379@16379 slave a 0 0 1 connected\n";

const AFTER: &str = "\
a 10.0.0.1:6379@16379 master,fail - 0 0 1 disconnected\n\
b 10.0.0.2:6379@16379 master - 0 0 2 connected 8192-16383\n\
c 10.0.0.3:6379@16379 myself,master - 0 0 3 connected 0-8191\n";

fn primary(topology: &Topology, slot: u16) -> String {
    topology.shard(slot).unwrap().primary.to_string()
}

#[test]
fn owners_and_replicas_are_read() {
    let topology = learned(&[BEFORE]);
    assert_eq!(topology.shards.len(), 2);
    assert_eq!(topology.uncovered(), 0);
    assert_eq!(primary(&topology, 0), "10.0.0.1:6379");
    assert_eq!(primary(&topology, 16_383), "10.0.0.2:6379");
    let shard = topology.shard(8_191).unwrap();
    assert_eq!(shard.replicas, [Address::new("10.0.0.3", 6_379)]);
    assert_eq!(topology.known.len(), 3);
}

#[test]
fn the_newest_claim_wins_whatever_the_order() {
    for answers in [[BEFORE, AFTER], [AFTER, BEFORE]] {
        let topology = learned(&answers);
        assert_eq!(primary(&topology, 0), "10.0.0.3:6379");
        assert_eq!(topology.shard(0).unwrap().epoch, 3);
        assert_eq!(primary(&topology, 9_000), "10.0.0.2:6379");
    }
}

#[test]
fn a_failed_primary_that_comes_back_is_a_replica() {
    let back = "\
a 10.0.0.1:6379@16379 slave c 0 0 3 connected\n\
b 10.0.0.2:6379@16379 master - 0 0 2 connected 8192-16383\n\
c 10.0.0.3:6379@16379 myself,master - 0 0 3 connected 0-8191\n";
    let topology = learned(&[BEFORE, AFTER, back]);
    assert_eq!(
        topology.shard(0).unwrap().replicas,
        [Address::new("10.0.0.1", 6_379)]
    );
}

#[test]
fn a_forgotten_server_is_not_asked_any_more() {
    let without = "\
a 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-8191\n\
b 10.0.0.2:6379@16379 master - 0 0 2 connected 8192-16383\n";
    let topology = learned(&[BEFORE, without]);
    assert!(!topology.known.contains(&Address::new("10.0.0.3", 6_379)));
}

#[test]
fn another_cluster_at_the_same_place_takes_over_in_time() {
    let another = "x 10.0.1.1:6379@16379 myself,master - 0 0 1 connected 0-16383\n";
    let mut view = View::default();
    view.learn(AFTER, &asked());
    view.learn(another, &asked());
    assert_eq!(
        primary(&view.topology(), 0),
        "10.0.0.3:6379",
        "one answer may be wrong"
    );
    for _ in 0..=FORGOTTEN_AFTER {
        view.learn(another, &asked());
    }
    let topology = view.topology();
    assert_eq!(primary(&topology, 0), "10.0.1.1:6379");
    assert_eq!(primary(&topology, 16_383), "10.0.1.1:6379");
    assert_eq!(topology.known.len(), 1);
}

#[test]
fn unusual_lines_are_understood_or_left_out() {
    let answer = "\
a :7001@17001 myself,master - 0 0 1 connected 0 2-3 [5->-b] 9-8 99999\n\
b 10.0.0.2:6379@16379,redis-1.example,shard-id=x master - 0 0 2 connected 5\n\
c :0@0 master,noaddr - 0 0 0 disconnected 7\n\
d [garbage\n\
\n";
    let topology = learned(&[answer]);
    assert_eq!(primary(&topology, 3), "seed:7001");
    assert_eq!(primary(&topology, 5), "redis-1.example:6379");
    assert!(topology.shard(1).is_none() && topology.shard(7).is_none());
    assert_eq!(topology.uncovered(), usize::from(SLOTS) - 4);
    assert_eq!(learned(&["", "nonsense"]).uncovered(), usize::from(SLOTS));
}

#[test]
fn v6_addresses() {
    let topology = learned(&["a ::1:6379@16379 myself,master - 0 0 1 connected 0-16383\n"]);
    assert_eq!(primary(&topology, 0), "[::1]:6379");
}

#[test]
fn one_server_owns_all() {
    let topology = Topology::single(asked());
    assert_eq!(topology.uncovered(), 0);
    assert_eq!(primary(&topology, 12_345), "seed:7000");
}
