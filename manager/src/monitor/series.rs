//! Figures of the last hours, at fitting resolutions, in bounded memory. Pure: takes the time as seconds since 1970.
//!
//! Each level keeps points of one width. A point is what was recorded in its stretch: the mean, or the most, by field. Where nothing was
//! recorded there is no number.

use std::collections::VecDeque;

/// Points of one width, and how many of them are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resolution {
    pub(crate) step_s: u64,
    pub(crate) kept: usize,
}

/// What a point says of the figures in its stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    Mean,
    Most,
}

/// Several figures over time.
#[derive(Debug, Clone)]
pub(crate) struct Series<const N: usize> {
    sums: [Sum; N],
    levels: Vec<Level<N>>,
}

#[derive(Debug, Clone)]
struct Level<const N: usize> {
    resolution: Resolution,
    points: VecDeque<[f32; N]>,
    /// The stretch that goes on: when it began, and what was recorded in it.
    began_s: u64,
    sum: [f64; N],
    count: u32,
}

/// Points one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stretch<const N: usize> {
    pub(crate) step_s: u64,
    /// When the first one begins.
    pub(crate) from_s: u64,
    pub(crate) points: Vec<[f32; N]>,
}

impl<const N: usize> Series<N> {
    pub(crate) fn new(sums: [Sum; N], resolutions: &[Resolution]) -> Self {
        let level = |resolution: &Resolution| Level {
            resolution: *resolution,
            points: VecDeque::new(),
            began_s: 0,
            sum: [0.0; N],
            count: 0,
        };
        Self {
            sums,
            levels: resolutions.iter().map(level).collect(),
        }
    }

    /// Time that goes back is taken for the same.
    pub(crate) fn record(&mut self, now_s: u64, values: [f64; N]) {
        for level in &mut self.levels {
            level.record(&self.sums, now_s, values);
        }
    }

    /// What there is since then: of the finest resolution that reaches back so far, or of the coarsest.
    pub(crate) fn since(&self, since_s: u64, now_s: u64) -> Option<Stretch<N>> {
        let span = now_s.saturating_sub(since_s);
        let reaches =
            |level: &&Level<N>| level.resolution.step_s * level.resolution.kept as u64 >= span;
        let level = self.levels.iter().find(reaches).or(self.levels.last())?;
        Some(level.since(&self.sums, since_s))
    }
}

impl<const N: usize> Level<N> {
    fn record(&mut self, sums: &[Sum; N], now_s: u64, values: [f64; N]) {
        let step = self.resolution.step_s;
        let start = (now_s - now_s % step).max(self.began_s);
        if start > self.began_s {
            self.finish(sums, start);
        }
        for ((sum, how), value) in self.sum.iter_mut().zip(sums).zip(values) {
            match how {
                Sum::Mean => *sum += value,
                Sum::Most => *sum = sum.max(value),
            }
        }
        self.count += 1;
    }

    /// The next stretch begins, with a gap before it if nothing was recorded for longer.
    fn finish(&mut self, sums: &[Sum; N], start: u64) {
        let Resolution { step_s, kept } = self.resolution;
        if self.count > 0 {
            self.points.push_back(self.point(sums));
            let missing = (start - self.began_s) / step_s - 1;
            let missing = usize::try_from(missing).unwrap_or(kept).min(kept);
            self.points
                .extend(std::iter::repeat_n([f32::NAN; N], missing));
            while self.points.len() > kept {
                self.points.pop_front();
            }
        }
        (self.began_s, self.sum, self.count) = (start, [0.0; N], 0);
    }

    fn point(&self, sums: &[Sum; N]) -> [f32; N] {
        let mut point = [f32::NAN; N];
        for ((point, how), sum) in point.iter_mut().zip(sums).zip(self.sum) {
            *point = match how {
                Sum::Mean => (sum / f64::from(self.count)) as f32,
                Sum::Most => sum as f32,
            };
        }
        point
    }

    fn since(&self, sums: &[Sum; N], since_s: u64) -> Stretch<N> {
        let step_s = self.resolution.step_s;
        let mut points: VecDeque<_> = self.points.clone();
        if self.count > 0 {
            points.push_back(self.point(sums));
        }
        let mut from_s = self.began_s + step_s - step_s * points.len() as u64;
        while from_s + step_s <= since_s && points.pop_front().is_some() {
            from_s += step_s;
        }
        Stretch {
            step_s,
            from_s,
            points: points.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [Resolution; 2] = [
        Resolution {
            step_s: 1,
            kept: 10,
        },
        Resolution {
            step_s: 10,
            kept: 6,
        },
    ];

    fn series() -> Series<2> {
        Series::new([Sum::Mean, Sum::Most], &LEVELS)
    }

    #[test]
    fn the_finest_that_reaches_back_so_far_is_shown() {
        let mut series = series();
        for second in 100..=145 {
            series.record(second, [second as f64, second as f64]);
        }
        let last = series.since(140, 145).unwrap();
        assert_eq!((last.step_s, last.from_s, last.points.len()), (1, 140, 6));
        assert_eq!(last.points[5], [145.0, 145.0]);
        let all = series.since(0, 145).unwrap();
        assert_eq!((all.step_s, all.from_s), (10, 100));
        // Of the last one half has gone by.
        assert_eq!(all.points[0], [104.5, 109.0]);
        assert_eq!(all.points[4], [142.5, 145.0]);
    }

    #[test]
    fn where_nothing_was_recorded_there_is_no_number() {
        let mut series = series();
        series.record(100, [1.0, 1.0]);
        series.record(103, [2.0, 2.0]);
        // A clock that was put back.
        series.record(101, [4.0, 4.0]);
        let shown = series.since(100, 103).unwrap().points;
        assert_eq!(shown.len(), 4);
        assert!(shown[1][0].is_nan() && shown[2][0].is_nan());
        assert_eq!(shown[3], [3.0, 4.0]);
        // A year of nothing costs no more than what is kept.
        series.record(40_000_000, [5.0, 5.0]);
        let shown = series.since(0, 40_000_000).unwrap();
        assert_eq!(shown.points.len(), 7);
        assert_eq!(shown.points[6], [5.0, 5.0]);
        assert!(
            super::tests::series()
                .since(0, 10)
                .unwrap()
                .points
                .is_empty()
        );
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_in_order(steps in prop::collection::vec((0..40_u64, 0.0..1e6_f64), 1..200)) {
            let mut series = series();
            let mut now = 1_000;
            for (step, value) in steps {
                now += step;
                series.record(now, [value, value]);
                for since in [0, now - 5, now] {
                    let shown = series.since(since, now).unwrap();
                    prop_assert!(shown.points.len() <= 11);
                    let end = shown.from_s + shown.step_s * shown.points.len() as u64;
                    prop_assert!(end > now && end <= now + shown.step_s, "{shown:?} at {now}");
                    prop_assert_eq!(shown.from_s % shown.step_s, 0);
                }
            }
        }
    }
}
