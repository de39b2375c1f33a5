//! How a fleet was before this manager, as its data planes remember it: what each says, summed up by time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_proto::fleet::{PAST_MAX, PAST_STEP_S, Past, PastPoint};

/// Processes that are heard: more than there are pods.
const HEARD_MAX: usize = 20_000;
/// In the order of the fleet's fields: what is summed up is so but for the age of the oldest request.
const OLDEST: usize = 4;

#[derive(Debug, Clone, Default)]
pub(crate) struct Before {
    heard: BTreeSet<Arc<str>>,
    /// By the time at which each begins.
    points: BTreeMap<u64, [f64; 8]>,
}

impl Before {
    /// `until_s`: since then the manager knows better. Each process is heard once.
    pub(crate) fn learn(&mut self, instance: &Arc<str>, past: &Past, until_s: u64) {
        if self.heard.len() >= HEARD_MAX || !self.heard.insert(Arc::clone(instance)) {
            return;
        }
        let earliest = until_s.saturating_sub(PAST_MAX as u64 * PAST_STEP_S);
        let starts = (0..).map(|number: u64| past.from_s.saturating_add(number * PAST_STEP_S));
        for (start, point) in starts.zip(&past.points) {
            let Some(point) = point else {
                continue;
            };
            if start < earliest || start.saturating_add(PAST_STEP_S) > until_s {
                continue;
            }
            let sums = self.points.entry(start).or_default();
            for (field, (sum, value)) in sums.iter_mut().zip(values(point)).enumerate() {
                *sum = if field == OLDEST {
                    sum.max(value)
                } else {
                    *sum + value
                };
            }
        }
    }

    /// Points of this width from a time on, a multiple of it, until before another; nothing where nothing was known at all.
    pub(crate) fn between(&self, since_s: u64, until_s: u64, step_s: u64) -> Vec<(u64, [f32; 8])> {
        let Some(first) = self.points.keys().next() else {
            return Vec::new();
        };
        let since_s = since_s.max(*first);
        let mut start = since_s - since_s % step_s;
        let mut shown = Vec::new();
        while start < until_s {
            shown.push((start, self.point(start, step_s)));
            start += step_s;
        }
        shown
    }

    fn point(&self, start: u64, step_s: u64) -> [f32; 8] {
        let of = start - start % PAST_STEP_S..start + step_s;
        let (mut sums, mut count) = ([0.0_f64; 8], 0_u32);
        for (_, values) in self.points.range(of) {
            count += 1;
            for (field, (sum, value)) in sums.iter_mut().zip(values).enumerate() {
                *sum = if field == OLDEST {
                    sum.max(*value)
                } else {
                    *sum + value
                };
            }
        }
        if count == 0 {
            return [f32::NAN; 8];
        }
        let mut field = 0;
        sums.map(|sum| {
            let is_oldest = field == OLDEST;
            field += 1;
            (if is_oldest {
                sum
            } else {
                sum / f64::from(count)
            }) as f32
        })
    }
}

fn values(point: &PastPoint) -> [f64; 8] {
    [
        point.arrived_per_minute,
        point.delivered_per_minute,
        point.failed_per_minute,
        point.waiting,
        point.oldest_seconds,
        point.connections,
        point.messages_in_per_second,
        point.messages_out_per_second,
    ]
    .map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(from_s: u64, arrived: &[Option<f32>]) -> Past {
        let point = |arrived| PastPoint {
            arrived_per_minute: arrived,
            oldest_seconds: arrived,
            ..PastPoint::default()
        };
        Past {
            from_s,
            points: arrived.iter().map(|value| value.map(point)).collect(),
        }
    }

    fn shown(before: &Before, since_s: u64, until_s: u64, step_s: u64) -> Vec<(u64, f32, f32)> {
        let points = before.between(since_s, until_s, step_s).into_iter();
        points
            .map(|(start, point)| (start, point[0], point[OLDEST]))
            .collect()
    }

    #[test]
    fn what_processes_say_is_summed_up_and_each_is_heard_once() {
        let mut before = Before::default();
        let (one, other) = (
            past(1_000, &[Some(6.0), None, Some(2.0)]),
            past(1_010, &[Some(3.0), Some(4.0), Some(9.0)]),
        );
        before.learn(&"a".into(), &one, 1_030);
        before.learn(&"b".into(), &other, 1_030);
        before.learn(&"a".into(), &one, 1_030);
        let wanted = [(1_000, 6.0, 6.0), (1_010, 3.0, 3.0), (1_020, 6.0, 4.0)];
        assert_eq!(shown(&before, 0, 1_030, 10), wanted);
        // Finer than what is known, and coarser.
        assert_eq!(
            shown(&before, 1_019, 1_021, 1),
            [(1_019, 3.0, 3.0), (1_020, 6.0, 4.0)]
        );
        assert_eq!(shown(&before, 0, 1_020, 60), [(960, 4.5, 6.0)]);
        // What the manager knows itself is not taken from others.
        assert_eq!(shown(&before, 1_020, 1_020, 10), []);
    }

    #[test]
    fn what_cannot_be_is_not_taken() {
        let mut before = Before::default();
        before.learn(&"old".into(), &past(10, &[Some(1.0)]), 1_000_000);
        before.learn(&"ahead".into(), &past(2_000_000, &[Some(1.0)]), 1_000_000);
        before.learn(
            &"end".into(),
            &past(u64::MAX - u64::MAX % 10, &[Some(1.0); 3]),
            1_000_000,
        );
        assert!(before.points.is_empty());
        for n in 0..HEARD_MAX + 10 {
            before.learn(
                &n.to_string().into(),
                &past(999_000, &[Some(1.0)]),
                1_000_000,
            );
        }
        assert_eq!((before.heard.len(), before.points.len()), (HEARD_MAX, 1));
    }
}
