use super::*;

#[derive(Default)]
struct World {
    oracle: Oracle,
    stats: Stats,
}

impl World {
    fn send(&mut self, device: &str, query: &str) -> Outcome {
        let who = Who {
            app: "a".into(),
            device: device.into(),
        };
        let parameters = Parameters::of(query, "", b"").unwrap();
        self.oracle.begin(&who, &mut self.stats);
        self.oracle.finish(
            &who,
            &parameters,
            fingerprint(query, b"", ""),
            &mut self.stats,
        )
    }
}

#[test]
fn order_loss_and_repetition_are_told_apart() {
    let mut world = World::default();
    for query in ["seq=1", "seq=2"] {
        assert_eq!(world.send("d", query), Outcome::Applied);
    }
    assert_eq!(world.send("d", "seq=2"), Outcome::DuplicateIgnored);
    assert_eq!(world.send("d", "seq=1"), Outcome::Repeated);
    assert_eq!(world.send("d", "seq=5"), Outcome::Applied);
    assert_eq!((world.stats.missing, world.stats.out_of_order), (2, 0));
    assert_eq!(world.send("d", "seq=3"), Outcome::Applied);
    assert_eq!((world.stats.missing, world.stats.out_of_order), (1, 1));
    assert_eq!(world.send("e", "seq=1"), Outcome::Applied);
    let summary = world
        .oracle
        .summaries()
        .find(|user| user.device == "d")
        .unwrap();
    assert_eq!(
        (summary.last_seq, summary.applied, summary.missing),
        (5, 4, 1)
    );
}

#[test]
fn sessions_are_begun_before_they_go_on() {
    let mut world = World::default();
    world.send("d", "seq=1&begin_session=1");
    world.send("d", "seq=2&session_duration=5");
    world.send("d", "seq=3&end_session=1");
    assert_eq!(world.stats.session_orphans, 0);
    world.send("d", "seq=4&session_duration=5");
    assert_eq!(world.stats.session_orphans, 1);
}

#[test]
fn a_merge_waits_for_the_old_device_and_takes_its_session() {
    let mut world = World::default();
    world.send("old", "seq=1&begin_session=1");
    world.send("new", "seq=1&old_device_id=old&old_seq=1");
    world.send("new", "seq=2&session_duration=1");
    assert_eq!(
        (world.stats.merges_early, world.stats.session_orphans),
        (0, 0)
    );
    world.send("old", "seq=2");
    assert_eq!(world.stats.after_merge, 1);
    world.send("x", "seq=1");
    world.send("y", "seq=1&old_device_id=x&old_seq=2");
    assert_eq!((world.stats.merges, world.stats.merges_early), (2, 1));
}

#[test]
fn two_requests_of_a_device_at_a_time_are_seen() {
    let mut world = World::default();
    let who = Who {
        app: "a".into(),
        device: "d".into(),
    };
    world.oracle.begin(&who, &mut world.stats);
    world.oracle.begin(&who, &mut world.stats);
    assert_eq!(world.stats.overlaps, 1);
    world.oracle.abandon(&who);
    world.oracle.abandon(&who);
    world.oracle.begin(&who, &mut world.stats);
    assert_eq!(world.stats.overlaps, 1);
}
