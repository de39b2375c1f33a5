use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use std::time::Instant;

use super::{Seq, Window};
use crate::ingest::deliver::hold::Hold;
use crate::ingest::entry::EVERY_KEY;
use crate::store::queue::{Claimed, EntryId, Token};

const ALL: usize = usize::MAX;

fn claimed(id: u64, key: &str, barrier: &str) -> Claimed {
    Claimed {
        id: EntryId(id.into()),
        token: Token(id),
        key: Bytes::copy_from_slice(key.as_bytes()),
        barrier: Bytes::copy_from_slice(barrier.as_bytes()),
        cost: 1,
        attempts: 0,
        request: Bytes::from(id.to_string()),
    }
}

fn window(entries: &[(&str, &str)]) -> Window {
    let mut window = Window::new(true);
    for (index, (key, barrier)) in entries.iter().enumerate() {
        window.push(claimed(index as u64 + 1, key, barrier), ALL);
    }
    window
}

/// Sends everything that may go, and returns it in order.
fn send_all(window: &mut Window, now: Instant) -> Vec<Seq> {
    std::iter::from_fn(|| {
        let head = window.head(now)?;
        window.send(head.seq).map(|_| head.seq)
    })
    .collect()
}

fn done(window: &mut Window, seq: Seq) {
    window.settle(seq);
    window.remove(seq);
}

#[test]
fn one_of_each_key_goes_at_a_time() {
    let now = Instant::now();
    let mut window = window(&[("a", ""), ("a", ""), ("b", ""), ("", ""), ("", "")]);
    assert_eq!(send_all(&mut window, now), [1, 3, 4, 5]);
    window.settle(1);
    assert!(
        send_all(&mut window, now).is_empty(),
        "not before the verdict is recorded"
    );
    window.remove(1);
    assert_eq!(send_all(&mut window, now), [2]);
}

#[test]
fn a_failed_entry_stays_first_of_its_key() {
    let now = Instant::now();
    let mut window = window(&[("a", ""), ("a", ""), ("b", ""), ("b", "")]);
    assert_eq!(send_all(&mut window, now), [1, 3]);
    let due = now + Duration::from_secs(1);
    window.retry(1, due, 1);
    done(&mut window, 3);
    assert_eq!(send_all(&mut window, now), [4]);
    assert_eq!(window.why_none().unwrap().why, Hold::Backoff);
    assert_eq!(window.next_due(), Some(due));
    let head = window.head(due).unwrap();
    assert_eq!((head.seq, head.has_request), (1, false), "it is read again");
    assert_eq!(window.missing(10, ALL), [(1, Token(1))]);
    window.loaded(1, Some(Bytes::from_static(b"1")));
    let sending = window.send(1).unwrap();
    assert_eq!((sending.attempts, sending.failures), (1, 1));
}

#[test]
fn a_barrier_waits_for_both_and_both_wait_for_it() {
    let now = Instant::now();
    let mut window = window(&[
        ("old", ""),
        ("new", ""),
        ("new", "old"),
        ("old", ""),
        ("new", ""),
    ]);
    assert_eq!(send_all(&mut window, now), [1, 2]);
    done(&mut window, 1);
    assert!(send_all(&mut window, now).is_empty());
    done(&mut window, 2);
    assert_eq!(send_all(&mut window, now), [3]);
    done(&mut window, 3);
    assert_eq!(send_all(&mut window, now), [4, 5]);
}

#[test]
fn a_barrier_with_its_own_key_or_alone_is_a_key() {
    let now = Instant::now();
    let mut window = window(&[("a", "a"), ("", "a"), ("a", "")]);
    assert_eq!(send_all(&mut window, now), [1]);
    done(&mut window, 1);
    assert_eq!(send_all(&mut window, now), [2]);
    done(&mut window, 2);
    assert_eq!(send_all(&mut window, now), [3]);
}

#[test]
fn a_fence_waits_for_all_and_all_wait_for_it() {
    let now = Instant::now();
    let mut window = Window::new(true);
    let keys: [&[u8]; 6] = [b"a", b"", EVERY_KEY, b"a", b"", EVERY_KEY];
    for (index, key) in keys.into_iter().enumerate() {
        let mut entry = claimed(index as u64 + 1, "", "");
        entry.key = Bytes::from_static(key);
        window.push(entry, ALL);
    }
    assert_eq!(send_all(&mut window, now), [1, 2]);
    done(&mut window, 2);
    assert!(send_all(&mut window, now).is_empty());
    done(&mut window, 1);
    assert_eq!(send_all(&mut window, now), [3]);
    done(&mut window, 3);
    assert_eq!(send_all(&mut window, now), [4, 5]);
    done(&mut window, 4);
    done(&mut window, 5);
    assert_eq!(send_all(&mut window, now), [6]);
}

#[test]
fn without_order_nothing_waits() {
    let now = Instant::now();
    let mut window = window(&[("a", ""), ("a", "b"), ("b", "")]);
    assert_eq!(send_all(&mut window, now), [1]);
    window.set_ordered(false);
    assert_eq!(send_all(&mut window, now), [2, 3]);
    window.push(claimed(4, "a", ""), ALL);
    assert_eq!(send_all(&mut window, now), [4]);
    window.set_ordered(true);
    window.push(claimed(5, "a", ""), ALL);
    window.push(claimed(6, "a", ""), ALL);
    assert_eq!(send_all(&mut window, now), [5]);
}

#[test]
fn requests_are_bounded_and_read_again() {
    let now = Instant::now();
    let mut window = Window::new(true);
    for id in 1..=20 {
        let mut entry = claimed(id, if id < 15 { "a" } else { "" }, "");
        entry.request = Bytes::from(vec![b'x'; 100]);
        window.push(entry, 250);
    }
    assert_eq!(window.held_bytes(), 200);
    assert_eq!(send_all(&mut window, now), [1]);
    assert_eq!(window.missing(2, ALL), [(15, Token(15)), (16, Token(16))]);
    assert_eq!(window.missing(10, 250).len(), 2);
    assert_eq!(window.missing(10, 1).len(), 1, "one, however large");
    window.loaded(15, Some(Bytes::from_static(b"15")));
    window.loaded(16, None);
    assert_eq!(send_all(&mut window, now), [15]);
    assert_eq!(window.len(), 19, "what somebody else settled is gone");
    window.forget_requests();
    assert_eq!(window.held_bytes(), 102, "what is in flight");
}

#[test]
fn a_large_request_is_kept_when_it_is_next() {
    let mut window = Window::new(true);
    window.push(claimed(1, "a", ""), 0);
    window.push(claimed(2, "b", ""), 0);
    let head = window.head(Instant::now()).unwrap();
    assert_eq!((head.seq, head.has_request), (1, true));
    assert_eq!(window.missing(10, ALL), [(2, Token(2))]);
}

#[test]
fn entries_that_vanish_free_their_line() {
    let now = Instant::now();
    let mut window = window(&[("a", ""), ("a", "b"), ("b", "")]);
    window.remove(2);
    assert_eq!(send_all(&mut window, now), [1, 3]);
    done(&mut window, 1);
    done(&mut window, 3);
    assert_eq!(
        (window.len(), window.lines.len(), window.line_of.len()),
        (0, 0, 0)
    );
    assert_eq!(
        (window.held_bytes(), window.in_flight(), window.settling()),
        (0, 0, 0)
    );
}

#[test]
fn a_blocked_backlog_says_so() {
    let now = Instant::now();
    let mut window = window(&[("a", ""), ("a", "")]);
    assert_eq!(send_all(&mut window, now), [1]);
    assert_eq!(window.why_none().unwrap().why, Hold::OrderBlocked);
    done(&mut window, 1);
    assert_eq!(send_all(&mut window, now), [2]);
    assert_eq!(window.why_none(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Push { key: u8, barrier: u8 },
    Send,
    Finish { which: usize, fails: bool },
    Forget,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..5, 0u8..24).prop_map(|(key, barrier)| Step::Push { key, barrier }),
        4 => Just(Step::Send),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, fails)| Step::Finish { which, fails }),
        1 => Just(Step::Forget),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..200)
}

/// What the window promises, told by its history.
#[derive(Default)]
struct Oracle {
    /// Keys of each entry, in order of claims.
    keys: HashMap<Seq, Vec<u8>>,
    settled: HashSet<Seq>,
}

impl Oracle {
    fn earlier_are_settled(&self, seq: Seq, concerns: impl Fn(&[u8]) -> bool) -> bool {
        let mut earlier = self
            .keys
            .iter()
            .filter(|(other, keys)| **other < seq && concerns(keys));
        earlier.all(|(other, _)| self.settled.contains(other))
    }

    fn may_send(&self, seq: Seq) -> bool {
        self.keys[&seq]
            .iter()
            .all(|key| self.earlier_are_settled(seq, |keys| keys.contains(key)))
            && self.earlier_are_settled(seq, |keys| {
                keys.contains(&EVERY) || self.keys[&seq].contains(&EVERY)
            })
    }
}

/// Stands for the key that all others are in.
const EVERY: u8 = 6;

fn key_name(key: u8) -> Bytes {
    match key {
        1..5 => Bytes::from(key.to_string()),
        EVERY => Bytes::from_static(EVERY_KEY),
        _ => Bytes::new(),
    }
}

proptest! {
    #[test]
    fn order_holds_per_key_under_any_failures(steps in steps()) {
        let mut now = Instant::now();
        let mut window = Window::new(true);
        let mut oracle = Oracle::default();
        let mut in_flight: Vec<Seq> = Vec::new();
        for step in steps.into_iter().chain([Step::Wait]) {
            match step {
                Step::Push { key, barrier } => {
                    let seq = oracle.keys.len() as Seq + 1;
                    let mut entry = claimed(seq, "", "");
                    entry.key = key_name(key);
                    entry.barrier = key_name(barrier);
                    window.push(entry, 20);
                    let keys = [key, barrier].into_iter().filter(|key| !key_name(*key).is_empty());
                    oracle.keys.insert(seq, keys.collect());
                }
                Step::Send => {
                    // Entries whose time has come are ready first.
                    window.head(now);
                    for (seq, _) in window.missing(2, ALL) {
                        window.loaded(seq, Some(Bytes::from(seq.to_string())));
                    }
                    if let Some(head) = window.head(now) {
                        prop_assert!(oracle.may_send(head.seq), "{} overtakes", head.seq);
                        let sending = window.send(head.seq);
                        prop_assert_eq!(sending.unwrap().request, Bytes::from(head.seq.to_string()));
                        in_flight.push(head.seq);
                    }
                }
                Step::Finish { which, fails } if !in_flight.is_empty() => {
                    let seq = in_flight.swap_remove(which % in_flight.len());
                    if fails {
                        window.retry(seq, now + Duration::from_secs(1), 1);
                    } else {
                        done(&mut window, seq);
                        oracle.settled.insert(seq);
                    }
                }
                Step::Finish { .. } => {}
                Step::Forget => window.forget_requests(),
                Step::Wait => now += Duration::from_secs(2),
            }
            prop_assert_eq!(window.in_flight(), in_flight.len());
        }
        // Whatever happened, all that is left can be sent.
        for seq in in_flight.drain(..) {
            done(&mut window, seq);
            oracle.settled.insert(seq);
        }
        while let Some(head) = window.head(now) {
            prop_assert!(oracle.may_send(head.seq));
            window.loaded(head.seq, Some(Bytes::from_static(b"x")));
            prop_assert!(window.send(head.seq).is_some());
            done(&mut window, head.seq);
            oracle.settled.insert(head.seq);
        }
        prop_assert_eq!(window.len(), 0);
        prop_assert_eq!(window.held_bytes(), 0);
        prop_assert_eq!(window.lines.len(), 0);
    }
}
