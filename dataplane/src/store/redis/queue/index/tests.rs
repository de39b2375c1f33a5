use bytes::Bytes;

use super::super::block::pack;
use super::*;
use crate::store::queue::{EntryId, NewEntry, Outcome};

fn lane() -> Lane {
    Lane {
        partition: 1,
        application: "a".into(),
        replay: false,
    }
}

fn block(first: u64, count: u64, mark: Mark) -> Block {
    let entry = |serial: u64| NewEntry {
        id: EntryId(u128::from(serial) << 80),
        lane: lane(),
        key: Bytes::new(),
        barrier: Bytes::new(),
        cost: 1,
        replay_of: None,
        request: vec![0; serial as usize].into(),
    };
    let entries: Vec<_> = (first..first + count).map(entry).collect();
    pack(&entries, mark).block
}

fn waiting(count: usize) -> States {
    States::waiting(count)
}

fn claim_all(index: &mut Index, number: u64, block: &Block) -> Vec<u16> {
    let states = waiting(block.rows.len());
    index.claim(number, block, &states, |_| true)
}

#[test]
fn entries_are_claimed_once_and_in_order() {
    let mut index = Index::new(7);
    let (one, two) = (block(10, 3, [1; 4]), block(20, 2, [2; 4]));
    index.add(7, &one.head, &waiting(3));
    index.add(9, &two.head, &waiting(2));
    index.add(7, &two.head, &waiting(2));
    assert_eq!((index.tail(), index.first(), index.blocks()), (10, 7, 2));
    assert_eq!(index.next_blocks(&lane(), 9), [7, 9]);
    let mut left = 2;
    let states = waiting(3);
    let claimed = index.claim(7, &one, &states, |_| {
        left -= 1;
        left >= 0
    });
    assert_eq!(claimed, [0, 1]);
    assert_eq!(claim_all(&mut index, 7, &one), [2]);
    assert_eq!(index.next_blocks(&lane(), 9), [9]);
    assert_eq!(claim_all(&mut index, 9, &one), [0; 0], "another block");
    assert_eq!(index.settling(7, 2).unwrap().request_bytes, 12);
    assert_eq!(index.settling(9, 0), None, "not claimed");
    for entry in 0..3 {
        index.settled(7, entry);
    }
    assert_eq!((index.settling(7, 2), index.first()), (None, 9));
}

#[test]
fn after_a_loss_claims_stay_and_lost_verdicts_are_done_again() {
    let mut index = Index::new(1);
    let (one, two) = (block(1, 3, [1; 4]), block(5, 1, [2; 4]));
    index.add(1, &one.head, &waiting(3));
    index.add(2, &two.head, &waiting(1));
    claim_all(&mut index, 1, &one);
    claim_all(&mut index, 2, &two);
    index.settled(1, 0);
    index.settled(1, 1);
    let mut index = index.again(1);
    assert!(index.settling(1, 2).is_some(), "verdicts go on meanwhile");
    assert_eq!(index.next_blocks(&lane(), 9), [0; 0]);
    let mut states = waiting(3);
    states.outcomes[0] = Some(Outcome::Delivered);
    index.add(1, &one.head, &states);
    let other = block(9, 1, [3; 4]);
    index.add(2, &other.head, &waiting(1));
    assert_eq!(claim_all(&mut index, 1, &one), [1], "its verdict was lost");
    assert!(index.settling(1, 2).is_some(), "still claimed");
    assert!(!index.is_block(2, 2) && index.is_block(2, 3));
    assert_eq!(claim_all(&mut index, 2, &other), [0]);
    index.unclaim_all();
    assert_eq!(index.settling(1, 2), None);
    assert_eq!(index.next_blocks(&lane(), 9), [1, 2]);
    assert_eq!(claim_all(&mut index, 1, &one), [1, 2]);
}

#[test]
fn what_others_settled_is_not_claimed() {
    let mut index = Index::new(0);
    let one = block(1, 2, [1; 4]);
    index.add(0, &one.head, &waiting(2));
    let mut states = waiting(2);
    states.outcomes = vec![Some(Outcome::Discarded); 2];
    assert_eq!(index.claim(0, &one, &states, |_| true), [0; 0]);
    assert_eq!(index.blocks(), 0);
    index.add(1, &one.head, &states);
    assert_eq!((index.blocks(), index.tail()), (0, 2));
}

#[test]
fn older_numbers_never_replace_newer_ones() {
    let mut index = Index::new(0);
    let counts = |waiting, version| Counts {
        waiting,
        waiting_bytes: 10,
        parked: 0,
        version,
    };
    index.count(lane(), counts(5, 7));
    index.count(lane(), counts(9, 6));
    assert_eq!(index.waiting(), 5);
    index.count_all(&HashMap::new(), 6);
    assert_eq!(index.waiting(), 5, "older than the lane's");
    assert_eq!(index.lane_stats().count(), 1);
    index.count_all(&HashMap::new(), 8);
    assert_eq!((index.waiting(), index.lane_stats().count()), (0, 0));
}
