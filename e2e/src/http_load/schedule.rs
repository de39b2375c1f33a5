//! When each request is due.

use std::time::Duration;

/// A time with one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// Without a limit: as fast as answers come, one request under way per connection.
    pub per_second: Option<f64>,
    pub seconds: f64,
}

impl Phase {
    #[must_use]
    pub const fn rate(per_second: f64, seconds: f64) -> Self {
        Self {
            per_second: Some(per_second),
            seconds,
        }
    }

    #[must_use]
    pub const fn flat_out(seconds: f64) -> Self {
        Self {
            per_second: None,
            seconds,
        }
    }
}

/// When a request is to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Due {
    /// At this time since the start.
    At(Duration),
    /// At once, if it is before this time.
    NowUntil(Duration),
    /// Not any more.
    Over,
}

/// Phases, one after the other. One without a limit can only be the last.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Number of its first request, its rate, its begin in seconds.
    phases: Vec<(u64, Option<f64>, f64)>,
    requests: u64,
    seconds: f64,
}

impl Schedule {
    #[must_use]
    pub fn new(phases: &[Phase]) -> Self {
        let (mut requests, mut seconds) = (0, 0.0);
        let mut all = Vec::new();
        for phase in phases {
            all.push((requests, phase.per_second, seconds));
            requests += match phase.per_second {
                Some(rate) => (rate * phase.seconds).round() as u64,
                None => u64::MAX / 2,
            };
            seconds += phase.seconds;
        }
        Self {
            phases: all,
            requests,
            seconds,
        }
    }

    /// When request `number` (from 0) is due.
    #[must_use]
    pub fn due(&self, number: u64) -> Due {
        if number >= self.requests {
            return Due::Over;
        }
        let phase = self.phases.iter().rfind(|phase| phase.0 <= number);
        match phase {
            Some((first, Some(rate), begin)) => {
                let at = begin + (number - first) as f64 / rate;
                Due::At(Duration::from_secs_f64(at))
            }
            Some((_, None, _)) => Due::NowUntil(self.length()),
            None => Due::Over,
        }
    }

    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let schedule = Schedule::new(&[Phase::rate(10.0, 1.0), Phase::rate(100.0, 0.5)]);
        let at = |number| schedule.due(number);
        assert_eq!(at(0), Due::At(Duration::ZERO));
        assert_eq!(at(5), Due::At(Duration::from_millis(500)));
        assert_eq!(at(10), Due::At(Duration::from_secs(1)));
        assert_eq!(at(35), Due::At(Duration::from_millis(1250)));
        assert_eq!(at(60), Due::Over);
        let flat_out = Schedule::new(&[Phase::flat_out(2.0)]);
        assert_eq!(flat_out.due(1 << 40), Due::NowUntil(Duration::from_secs(2)));
    }
}
