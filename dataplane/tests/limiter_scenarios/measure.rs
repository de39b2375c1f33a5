//! What a run did, and whether it is what was expected.

use crate::scenario::Expect;

const STRETCH_S: f64 = 5.0;

#[derive(Debug, Clone, Copy)]
struct End {
    at_s: f64,
    client: usize,
    is_ok: bool,
    latency_s: f64,
    queued_s: f64,
}

/// One tick of the clock.
#[derive(Debug, Clone, Copy)]
struct Tick {
    at_s: f64,
    /// Answers the upstream could give meanwhile; `None`: unbounded.
    possible: Option<f64>,
    backlog: bool,
    in_flight: u32,
}

pub(crate) struct Record {
    seconds: f64,
    base_s: f64,
    clients: usize,
    ends: Vec<End>,
    ticks: Vec<Tick>,
    sent: Vec<f64>,
    pub(crate) proxied: u64,
    pub(crate) proxied_held: u64,
}

/// Figures of a part of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) used: f64,
    pub(crate) rejected: f64,
    pub(crate) queue: f64,
    pub p50: f64,
    pub p99: f64,
    pub(crate) in_flight_max: f64,
    pub(crate) in_flight_mean: f64,
    pub(crate) rate_mean: f64,
    pub(crate) sent_per_second_max: f64,
    pub(crate) used_always: f64,
    pub(crate) proxied_held: f64,
    pub(crate) fair: f64,
    pub(crate) done_by_s: f64,
}

impl Record {
    pub(crate) fn new(seconds: f64, base_s: f64, clients: usize) -> Self {
        Self {
            seconds,
            base_s,
            clients,
            ends: Vec::new(),
            ticks: Vec::new(),
            sent: Vec::new(),
            proxied: 0,
            proxied_held: 0,
        }
    }

    pub(crate) fn tick(
        &mut self,
        at_s: f64,
        length_s: f64,
        capacity: Option<f64>,
        backlog: bool,
        in_flight: u32,
    ) {
        let possible = capacity.map(|capacity| capacity * length_s);
        self.ticks.push(Tick {
            at_s,
            possible,
            backlog,
            in_flight,
        });
    }

    pub(crate) fn sent(&mut self, at_s: f64) {
        self.sent.push(at_s);
    }

    pub(crate) fn ended(
        &mut self,
        at_s: f64,
        client: usize,
        is_ok: bool,
        latency_s: f64,
        queued_s: f64,
    ) {
        self.ends.push(End {
            at_s,
            client,
            is_ok,
            latency_s,
            queued_s,
        });
    }

    pub(crate) fn figures(&self, expect: &Expect) -> Figures {
        let from_s = expect.from_s;
        let to_s = expect.to_s.unwrap_or(self.seconds);
        let ends: Vec<&End> = self
            .ends
            .iter()
            .filter(|end| from_s <= end.at_s && end.at_s < to_s)
            .collect();
        let good: Vec<&&End> = ends.iter().filter(|end| end.is_ok).collect();
        let ticks: Vec<&Tick> = self
            .ticks
            .iter()
            .filter(|tick| from_s <= tick.at_s && tick.at_s < to_s)
            .collect();
        let mut latencies: Vec<f64> = good.iter().map(|end| end.latency_s / self.base_s).collect();
        let mut queued: Vec<f64> = good.iter().map(|end| end.queued_s / self.base_s).collect();
        let busy = ends.last().map_or(0.0, |end| end.at_s).min(to_s) - from_s;
        let in_flight: Vec<f64> = ticks
            .iter()
            .take_while(|tick| tick.at_s <= from_s + busy)
            .map(|tick| f64::from(tick.in_flight))
            .collect();
        let per_client: Vec<usize> = (0..self.clients)
            .map(|client| good.iter().filter(|end| end.client == client).count())
            .collect();
        let smallest = per_client.iter().min().copied().unwrap_or(0);
        Figures {
            used: self.used(from_s, to_s),
            rejected: (ends.len() - good.len()) as f64 / ends.len().max(1) as f64,
            queue: quantile(&mut queued, 0.5),
            p50: quantile(&mut latencies, 0.5),
            p99: quantile(&mut latencies, 0.99),
            in_flight_max: in_flight.iter().copied().fold(0.0, f64::max),
            in_flight_mean: in_flight.iter().sum::<f64>() / in_flight.len().max(1) as f64,
            rate_mean: good.len() as f64 / busy.max(1e-9),
            sent_per_second_max: self.sent_per_second_max(from_s, to_s),
            used_always: match expect.used_always_min {
                Some(_) => self.used_always(from_s, to_s),
                None => f64::NAN,
            },
            proxied_held: self.proxied_held as f64 / self.proxied.max(1) as f64,
            fair: (smallest * self.clients) as f64 / good.len().max(1) as f64,
            done_by_s: ends.last().map_or(0.0, |end| end.at_s),
        }
    }

    /// Answers while there was something to send, of those possible then.
    fn used(&self, from_s: f64, to_s: f64) -> f64 {
        let mut possible = 0.0;
        let mut answered = 0usize;
        let mut ends = self.ends.iter().filter(|end| end.is_ok).peekable();
        for pair in self.ticks.windows(2) {
            let (tick, next) = (pair[0], pair[1]);
            let mut count = 0;
            while ends.next_if(|end| end.at_s < next.at_s).is_some() {
                count += 1;
            }
            if tick.at_s < from_s || tick.at_s >= to_s || !tick.backlog {
                continue;
            }
            possible += tick.possible.unwrap_or(0.0);
            answered += count;
        }
        if possible == 0.0 {
            return 1.0;
        }
        answered as f64 / possible
    }

    fn used_always(&self, from_s: f64, to_s: f64) -> f64 {
        let mut worst = f64::INFINITY;
        let mut at_s = from_s;
        while at_s + STRETCH_S <= to_s + 1e-9 {
            worst = worst.min(self.used(at_s, at_s + STRETCH_S));
            at_s += STRETCH_S;
        }
        worst
    }

    fn sent_per_second_max(&self, from_s: f64, to_s: f64) -> f64 {
        let sent: Vec<f64> = self
            .sent
            .iter()
            .copied()
            .filter(|at_s| from_s <= *at_s && *at_s < to_s)
            .collect();
        let mut first = 0;
        let mut most = 0;
        for (index, at_s) in sent.iter().enumerate() {
            while at_s - sent[first] >= 1.0 {
                first += 1;
            }
            most = most.max(index + 1 - first);
        }
        most as f64
    }
}

impl Figures {
    /// What is out of bounds.
    pub(crate) fn misses(&self, expect: &Expect) -> Vec<String> {
        let mut misses = Vec::new();
        let mut least = |name: &str, value: f64, bound: Option<f64>| {
            if bound.is_some_and(|bound| value.is_nan() || value < bound) {
                misses.push(format!("{name} is {value:.3}, at least {bound:?}"));
            }
        };
        least("used", self.used, expect.used_min);
        least("used_always", self.used_always, expect.used_always_min);
        least("fair", self.fair, expect.fair_min);
        least(
            "in_flight_mean",
            self.in_flight_mean,
            expect.in_flight_mean.map(|range| range.0),
        );
        least(
            "rate_mean",
            self.rate_mean,
            expect.rate_mean.map(|range| range.0),
        );
        let mut most = |name: &str, value: f64, bound: Option<f64>| {
            if bound.is_some_and(|bound| value.is_nan() || value > bound) {
                misses.push(format!("{name} is {value:.3}, at most {bound:?}"));
            }
        };
        most("rejected", self.rejected, expect.rejected_max);
        most("queue", self.queue, expect.queue_max);
        most("p50", self.p50, expect.p50_max);
        most("p99", self.p99, expect.p99_max);
        most("in_flight_max", self.in_flight_max, expect.in_flight_max);
        most(
            "in_flight_mean",
            self.in_flight_mean,
            expect.in_flight_mean.map(|range| range.1),
        );
        most(
            "rate_mean",
            self.rate_mean,
            expect.rate_mean.map(|range| range.1),
        );
        most(
            "sent_per_second_max",
            self.sent_per_second_max,
            expect.sent_per_second_max,
        );
        most("proxied_held", self.proxied_held, expect.proxied_held_max);
        most("done_by_s", self.done_by_s, expect.done_by_s);
        misses
    }
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part) as usize]
}
