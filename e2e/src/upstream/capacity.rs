//! How much the upstream can serve: workers with a line before them, a rate, and a number at a time.
//!
//! Pure: what happens to a request is decided when it arrives, in time that is counted and not waited for. So a late
//! timer makes an answer late but never makes the upstream slower than it is set.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::settings::{Settings, Spread};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is served and done at this time.
    Serve { done_ns: u64 },
    /// It is turned away with this status.
    Refuse { status: u16 },
}

/// Who is busy until when.
#[derive(Debug, Default)]
pub struct Capacity {
    /// When each worker is free.
    workers: BinaryHeap<Reverse<u64>>,
    /// When those in line begin; ascending, because the line is first come, first served.
    line: VecDeque<u64>,
    /// When those inside are done.
    inside: BinaryHeap<Reverse<u64>>,
    tokens: f64,
    filled_ns: u64,
    /// Time that workers were and will be busy with what was admitted.
    pub busy_ns: u64,
}

impl Capacity {
    /// Decides about a request that arrives now. `chance` is uniform in 0..1.
    pub fn admit(&mut self, settings: &Settings, now_ns: u64, chance: f64) -> Admission {
        while self.line.front().is_some_and(|begin| *begin <= now_ns) {
            self.line.pop_front();
        }
        while self.inside.peek().is_some_and(|done| done.0 <= now_ns) {
            self.inside.pop();
        }
        self.resize(settings.workers as usize, now_ns);
        if let Some(limit) = settings.concurrency
            && self.inside.len() >= limit as usize
        {
            return Admission::Refuse { status: 503 };
        }
        let begin_ns = match self.workers.peek() {
            Some(free) => free.0.max(now_ns),
            None => now_ns,
        };
        if begin_ns > now_ns && self.line.len() >= settings.line as usize {
            return Admission::Refuse { status: 503 };
        }
        if let Some(rate) = settings.rate_per_second
            && !self.take_token(rate, settings.rate_burst, now_ns)
        {
            return Admission::Refuse { status: 429 };
        }
        let service_ns = service_ns(settings, chance);
        let done_ns = begin_ns + service_ns;
        if self.workers.pop().is_some() {
            self.workers.push(Reverse(done_ns));
        }
        if begin_ns > now_ns {
            self.line.push_back(begin_ns);
        }
        self.inside.push(Reverse(done_ns));
        self.busy_ns += service_ns;
        Admission::Serve { done_ns }
    }

    /// More workers begin at once; of too many, those that are free first go first.
    fn resize(&mut self, workers: usize, now_ns: u64) {
        while self.workers.len() > workers {
            self.workers.pop();
        }
        while self.workers.len() < workers {
            self.workers.push(Reverse(now_ns));
        }
    }

    fn take_token(&mut self, rate: f64, burst: f64, now_ns: u64) -> bool {
        let passed_ns = now_ns.saturating_sub(self.filled_ns);
        self.tokens = (self.tokens + passed_ns as f64 * rate / 1e9).min(burst.max(1.0));
        self.filled_ns = now_ns;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

fn service_ns(settings: &Settings, chance: f64) -> u64 {
    let factor = match settings.spread {
        Spread::Fixed => 1.0,
        Spread::Uniform => 0.5 + chance,
        // One in e^8 is longer than eight times the mean; it is cut there.
        Spread::Exponential => -(1.0 - chance).max(3.4e-4).ln(),
    };
    (settings.service_ms * factor * 1e6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn run(settings: &Settings, gap_ns: u64, requests: u64) -> (usize, usize, usize, u64) {
        let mut capacity = Capacity::default();
        let (mut served, mut busy, mut limited, mut longest) = (0, 0, 0, 0);
        for n in 1..=requests {
            let now = n * gap_ns;
            match capacity.admit(settings, now, 0.5) {
                Admission::Serve { done_ns } => {
                    served += 1;
                    longest = longest.max(done_ns - now);
                }
                Admission::Refuse { status: 429 } => limited += 1,
                Admission::Refuse { .. } => busy += 1,
            }
        }
        (served, busy, limited, longest)
    }

    #[test]
    fn workers_serve_what_they_can_and_the_line_is_bounded() {
        let settings = Settings {
            workers: 10,
            service_ms: 100.0,
            line: 20,
            ..Settings::default()
        };
        // 10 workers of 100 ms serve 100 per second; 200 per second come for 10 s.
        let (served, busy, _, longest) = run(&settings, 5 * MS, 2000);
        assert!((1000..=1030).contains(&served), "{served}");
        assert_eq!(served + busy, 2000);
        // Two rounds of the line and the own service.
        assert!(longest <= 300 * MS, "{longest}");
        let (served, busy, ..) = run(&settings, 11 * MS, 500);
        assert_eq!((served, busy), (500, 0));
    }

    #[test]
    fn a_rate_turns_away_what_is_above() {
        let settings = Settings {
            rate_per_second: Some(100.0),
            rate_burst: 5.0,
            ..Settings::default()
        };
        let (served, busy, limited, _) = run(&settings, MS, 10_000);
        assert!((995..=1006).contains(&served), "{served}");
        assert_eq!((busy, served + limited), (0, 10_000));
    }

    #[test]
    fn fewer_and_more_workers_take_effect() {
        let mut settings = Settings {
            workers: 2,
            service_ms: 10.0,
            line: 0,
            ..Settings::default()
        };
        let mut capacity = Capacity::default();
        let served = |capacity: &mut Capacity, settings: &Settings, now| match capacity
            .admit(settings, now, 0.0)
        {
            Admission::Serve { .. } => 1,
            Admission::Refuse { .. } => 0,
        };
        assert_eq!(
            (0..5)
                .map(|_| served(&mut capacity, &settings, MS))
                .sum::<u32>(),
            2
        );
        settings.workers = 4;
        assert_eq!(
            (0..5)
                .map(|_| served(&mut capacity, &settings, 2 * MS))
                .sum::<u32>(),
            2
        );
        settings.workers = 1;
        assert_eq!(
            (0..5)
                .map(|_| served(&mut capacity, &settings, 30 * MS))
                .sum::<u32>(),
            1
        );
        settings.concurrency = Some(1);
        settings.workers = 0;
        assert_eq!(
            (0..5)
                .map(|_| served(&mut capacity, &settings, 60 * MS))
                .sum::<u32>(),
            1
        );
    }
}
