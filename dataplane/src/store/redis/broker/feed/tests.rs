use super::*;

fn feed() -> Feed {
    Feed::new(Channel::new("a", "x"), 1)
}

fn id(serial: u64) -> Id {
    Id {
        publisher: 7,
        serial,
    }
}

fn judge(feed: &mut Feed, offset: u64, serial: u64) -> Verdict {
    let at = At { offset, epoch: "e" };
    feed.judge(at, id(serial), Instant::now())
}

/// A feed that was handed 1..=top with serials like the offsets.
fn at(top: u64) -> Feed {
    let mut feed = feed();
    for offset in 1..=top {
        assert_eq!(judge(&mut feed, offset, offset), Verdict::Deliver);
    }
    feed
}

/// An entry's frame is its serial.
fn entry(offset: u64, serial: u64) -> (u64, Bytes) {
    (offset, Bytes::from(serial.to_string()))
}

fn serial_of(frame: &[u8]) -> Option<Id> {
    Some(id(std::str::from_utf8(frame).ok()?.parse().ok()?))
}

fn part(top: u64, entries: &[(u64, u64)]) -> Part {
    Part {
        epoch: "e".into(),
        top,
        top_id: entries.last().map(|(_, serial)| id(*serial)),
        entries: entries.iter().map(|(o, s)| entry(*o, *s)).collect(),
        is_full: false,
    }
}

fn missed(offsets: &[u64], lost: bool) -> Healed {
    Healed::Missed {
        entries: offsets
            .iter()
            .map(|offset| entry(*offset, *offset))
            .collect(),
        lost,
    }
}

#[test]
fn second_copies_are_dropped_and_the_next_is_delivered() {
    let mut feed = at(3);
    for offset in 1..=3 {
        assert_eq!(judge(&mut feed, offset, offset), Verdict::Drop);
    }
    assert_eq!(judge(&mut feed, 4, 4), Verdict::Deliver);
}

#[test]
fn without_a_position_serials_tell() {
    let mut feed = feed();
    assert!(feed.is_new(id(5)) && !feed.is_new(id(5)) && feed.is_new(id(9)));
    assert!(!feed.is_new(id(8)), "order before completeness");
    let other = Id {
        publisher: 8,
        serial: 1,
    };
    assert!(feed.is_new(other) && feed.is_new(id(10)));
    for publisher in 100..100 + PUBLISHERS_KNOWN as u64 {
        feed.is_new(Id {
            publisher,
            serial: 1,
        });
    }
    assert_eq!(feed.publishers.len(), PUBLISHERS_KNOWN);
}

#[test]
fn a_jump_is_healed_from_the_stream() {
    let mut feed = at(2);
    assert_eq!(judge(&mut feed, 5, 5), Verdict::Heal(Cause::Gap));
    assert!(feed.begin_healing(Cause::Gap));
    assert!(!feed.begin_healing(Cause::Gap), "once is enough");
    assert_eq!(judge(&mut feed, 6, 6), Verdict::Hold);
    feed.hold(b"6");
    let read = part(5, &[(2, 2), (3, 3), (4, 4), (5, 5)]);
    assert_eq!(feed.compare(read, serial_of), missed(&[3, 4, 5], false));
    let held = feed.end_healing().unwrap();
    assert_eq!(held, [Bytes::from_static(b"6")]);
    assert_eq!(judge(&mut feed, 5, 5), Verdict::Drop);
    assert_eq!(judge(&mut feed, 6, 6), Verdict::Deliver);
}

#[test]
fn what_is_not_kept_any_more_is_told() {
    let mut feed = at(2);
    feed.begin_healing(Cause::Gap);
    let read = part(6, &[(5, 5), (6, 6)]);
    assert_eq!(feed.compare(read, serial_of), missed(&[5, 6], true));
    let mut feed = at(2);
    feed.begin_healing(Cause::Gap);
    assert_eq!(feed.compare(part(6, &[]), serial_of), missed(&[], true));
    assert!(feed.end_healing().is_some());
    assert_eq!(judge(&mut feed, 7, 7), Verdict::Deliver);
}

#[test]
fn another_history_voids_the_epoch() {
    let mut fallen = at(5);
    fallen.begin_healing(Cause::Doubt);
    let diverged = Healed::Diverged("e".into());
    assert_eq!(fallen.compare(part(3, &[]), serial_of), diverged);
    let mut same_height = at(5);
    assert_eq!(judge(&mut same_height, 5, 99), Verdict::Heal(Cause::Doubt));
    assert_eq!(judge(&mut same_height, 4, 99), Verdict::Heal(Cause::Doubt));
    same_height.begin_healing(Cause::Doubt);
    let read = part(5, &[(5, 99)]);
    assert_eq!(same_height.compare(read, serial_of), diverged);
    let mut overtaken = at(5);
    overtaken.begin_healing(Cause::Doubt);
    let read = part(7, &[(5, 99), (6, 100), (7, 101)]);
    assert_eq!(overtaken.compare(read, serial_of), diverged);
    overtaken.restart("f".into(), 7, Some(id(101)));
    assert!(overtaken.end_healing().is_some());
    let next = At {
        offset: 8,
        epoch: "f",
    };
    assert_eq!(
        overtaken.judge(next, id(1), Instant::now()),
        Verdict::Deliver
    );
}

#[test]
fn a_stray_message_of_an_old_primary_changes_nothing() {
    let mut feed = at(5);
    feed.begin_healing(Cause::Doubt);
    assert_eq!(
        feed.compare(part(5, &[(5, 5)]), serial_of),
        missed(&[], false)
    );
    assert!(feed.end_healing().is_some());
    assert!(feed.is_at("e", 5, Some(id(5))) && !feed.is_at("e", 5, Some(id(6))));
}

#[test]
fn what_cannot_be_verified_in_doubt_is_told() {
    let mut feed = at(5);
    feed.begin_healing(Cause::Doubt);
    assert_eq!(
        feed.compare(part(6, &[(6, 6)]), serial_of),
        missed(&[6], true)
    );
    let mut feed = at(5);
    feed.begin_healing(Cause::Gap);
    assert_eq!(
        feed.compare(part(6, &[(6, 6)]), serial_of),
        missed(&[6], false)
    );
}

#[test]
fn another_epoch_is_a_loss() {
    let mut feed = at(5);
    let other = At {
        offset: 1,
        epoch: "f",
    };
    let verdict = feed.judge(other, id(1), Instant::now());
    assert_eq!(verdict, Verdict::Heal(Cause::Doubt));
    feed.begin_healing(Cause::Doubt);
    let read = Part {
        epoch: "f".into(),
        ..part(1, &[])
    };
    assert_eq!(feed.compare(read, serial_of), missed(&[], true));
}

#[test]
fn a_position_that_was_read_drops_nothing_and_hides_no_gap() {
    let mut feed = feed();
    assert!(!feed.begin_healing(Cause::Gap), "nothing is followed yet");
    feed.note_top(4, &"e".into(), Some(id(4)));
    assert_eq!(
        judge(&mut feed, 3, 3),
        Verdict::Deliver,
        "it was on its way"
    );
    assert_eq!(judge(&mut feed, 4, 4), Verdict::Deliver);
    let mut feed = self::feed();
    feed.note_top(4, &"e".into(), Some(id(4)));
    assert_eq!(judge(&mut feed, 6, 6), Verdict::Heal(Cause::Gap));
    assert!(feed.begin_healing(Cause::Gap));
    let read = part(6, &[(4, 4), (5, 5), (6, 6)]);
    assert_eq!(feed.compare(read, serial_of), missed(&[5, 6], false));
}

#[test]
fn an_interruption_before_the_first_read_is_remembered() {
    let mut feed = feed();
    assert!(!feed.begin_healing(Cause::Gap));
    assert!(feed.note_top(4, &"e".into(), Some(id(4))));
    assert!(!feed.note_top(5, &"e".into(), Some(id(5))), "once");
}

#[test]
fn what_waits_is_bounded_and_read_again() {
    let mut feed = at(1);
    feed.begin_healing(Cause::Gap);
    for _ in 0..=HELD_MESSAGES {
        feed.hold(b"x");
    }
    assert!(feed.end_healing().is_none(), "read once more");
    assert_eq!(feed.end_healing().map(|held| held.len()), Some(0));
}

#[test]
fn copies_too_old_to_be_known_are_doubted_rarely() {
    let mut feed = at(RECENT_IDS as u64 + 2);
    assert_eq!(judge(&mut feed, 1, 1), Verdict::Heal(Cause::Doubt));
    assert_eq!(judge(&mut feed, 2, 2), Verdict::Drop);
}
