//! Who should hold which partitions. Pure.
//!
//! Every data plane that takes part decides by the same list, so that nobody has to be asked: the first ones of the list
//! hold one more when it does not come out even.

use std::time::Duration;

/// What is known of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Held here; whether anything waits in it.
    Mine { is_idle: bool },
    /// Being given back.
    Leaving,
    /// Held by another one.
    Theirs,
    /// Nobody holds it, for so long; zero if it was not looked at yet.
    Free(Duration),
}

/// A partition that nobody held for so long is taken, whoever should have it.
const ORPHANED_AFTER: Duration = Duration::from_secs(5);

/// How many of `count` partitions the data plane is to hold. Who is not in the list takes part too.
pub(super) fn wanted(live: &[String], me: &str, count: usize) -> usize {
    let rank = live.iter().filter(|name| name.as_str() < me).count();
    let others = live.iter().filter(|name| name.as_str() != me).count();
    let pods = others + 1;
    count / pods + usize::from(rank < count % pods)
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Moves {
    pub(super) take: Vec<u16>,
    pub(super) give: Vec<u16>,
}

/// `offset`: where this one begins to look for free partitions, so that several do not all try the same.
pub(super) fn moves(seen: &[Seen], wanted: usize, offset: usize) -> Moves {
    let mine = |seen: &&Seen| matches!(seen, Seen::Mine { .. });
    let held = seen.iter().filter(mine).count();
    let mut moves = Moves::default();
    let mut room = wanted.saturating_sub(held);
    for index in 0..seen.len() {
        let index = (index + offset) % seen.len();
        let Seen::Free(time) = seen[index] else {
            continue;
        };
        if room > 0 {
            room -= 1;
            moves.take.push(index as u16);
        } else if time >= ORPHANED_AFTER {
            moves.take.push(index as u16);
        }
    }
    let mut surplus = held.saturating_sub(wanted);
    // Idle ones first: nothing has to wait for them.
    for idle in [true, false] {
        for (index, seen) in seen.iter().enumerate().rev() {
            if surplus > 0 && *seen == (Seen::Mine { is_idle: idle }) {
                surplus -= 1;
                moves.give.push(index as u16);
            }
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINE: Seen = Seen::Mine { is_idle: false };
    const NEW: Seen = Seen::Free(Duration::ZERO);

    #[test]
    fn a_share_is_even_and_covers_all() {
        for pods in 1..30_usize {
            let live: Vec<String> = (0..pods).map(|pod| format!("pod-{pod}")).collect();
            let shares: Vec<usize> = live.iter().map(|me| wanted(&live, me, 12)).collect();
            assert_eq!(shares.iter().sum::<usize>(), 12, "{pods} pods");
            let (most, least) = (shares.iter().max().unwrap(), shares.iter().min().unwrap());
            assert!(most - least <= 1, "{shares:?}");
        }
        assert_eq!(wanted(&[], "me", 12), 12);
        assert_eq!(wanted(&["other".into()], "me", 12), 6);
    }

    #[test]
    fn takes_what_is_free_and_gives_what_is_too_much() {
        let idle = Seen::Mine { is_idle: true };
        let table: [(&[Seen], usize, Moves); 5] = [
            (
                &[NEW, NEW, NEW],
                2,
                Moves {
                    take: vec![1, 2],
                    give: vec![],
                },
            ),
            (&[MINE, Seen::Theirs, NEW], 1, Moves::default()),
            (
                &[MINE, Seen::Theirs, Seen::Free(ORPHANED_AFTER)],
                1,
                Moves {
                    take: vec![2],
                    give: vec![],
                },
            ),
            (
                &[idle, MINE, MINE],
                1,
                Moves {
                    take: vec![],
                    give: vec![0, 2],
                },
            ),
            (&[MINE, Seen::Leaving, Seen::Leaving], 1, Moves::default()),
        ];
        for (seen, wanted, expected) in table {
            assert_eq!(moves(seen, wanted, 1), expected, "{seen:?}");
        }
    }

    proptest! {
        /// Data planes that come and go end with an even share each.
        #[test]
        fn it_settles(pods in 1..8_usize, first in 0..8_usize) {
            const COUNT: usize = 12;
            let live: Vec<String> = (0..pods).map(|pod| format!("pod-{pod}")).collect();
            let mut owner: Vec<Option<usize>> = vec![(first < pods).then_some(first); COUNT];
            for _ in 0..3 {
                for (pod, me) in live.iter().enumerate() {
                    let seen: Vec<Seen> = owner.iter().map(|owner| match owner {
                        Some(owner) if *owner == pod => MINE,
                        Some(_) => Seen::Theirs,
                        None => NEW,
                    }).collect();
                    let moves = moves(&seen, wanted(&live, me, COUNT), pod);
                    for partition in moves.give {
                        owner[usize::from(partition)] = None;
                    }
                    for partition in moves.take {
                        owner[usize::from(partition)] = Some(pod);
                    }
                }
            }
            for (pod, me) in live.iter().enumerate() {
                let held = owner.iter().filter(|owner| **owner == Some(pod)).count();
                prop_assert_eq!(held, wanted(&live, me, COUNT));
            }
        }
    }
}
