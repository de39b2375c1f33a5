//! A discrete-event run of limiters against the simulated upstream.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use sluice_dataplane::ingest::limiter::{
    Class, Limiter, LimiterSettings, Permit, Sample, SampleOutcome,
};

use crate::measure::Record;
use crate::scenario::{Load, Scenario};
use crate::upstream::{Arrival, Reply, Upstream};

const TICK_S: f64 = 0.05;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    Wake(usize),
    Arrive {
        proxied: bool,
    },
    /// A request that the upstream took is over.
    Over(usize),
    /// A request that it did not take.
    Ended(usize),
    TimedOut(usize),
}

struct Request {
    client: usize,
    class: Class,
    sent_s: f64,
    began_s: f64,
    settled: bool,
    reply: Reply,
}

struct Client {
    limiter: Limiter,
    join_at_s: f64,
    waiting: u64,
    proxied_waiting: u64,
    wake_s: Option<f64>,
}

pub(crate) struct Run<'a> {
    scenario: &'a Scenario,
    origin: Instant,
    now_s: f64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    upstream: Upstream,
    clients: Vec<Client>,
    requests: Vec<Request>,
    random: fastrand::Rng,
    arrived: u64,
    is_traced: bool,
    pub(crate) record: Record,
}

pub(crate) fn run(scenario: &Scenario, seed: u64) -> Record {
    let origin = Instant::now();
    let limiters = &scenario.limiters;
    let settings = LimiterSettings {
        concurrency_min: limiters.concurrency_min,
        concurrency_max: limiters.concurrency_max,
        weight: 1,
        timeout_max: Duration::from_secs_f64(limiters.timeout_s),
    };
    let clients: Vec<Client> = (0..)
        .zip(&limiters.join_at_s)
        .map(|(index, join_at_s)| Client {
            limiter: Limiter::new(settings, seed * 100 + index, origin),
            join_at_s: *join_at_s,
            waiting: match scenario.load {
                Load::Endless | Load::WithProxied { .. } => u64::MAX / 2,
                Load::Requests(requests) => requests,
                Load::Regular { .. } | Load::Arrivals(_) => 0,
            },
            proxied_waiting: 0,
            wake_s: None,
        })
        .collect();
    let upstream = Upstream::new(scenario, seed);
    let record = Record::new(scenario.seconds, upstream.base_s(), clients.len());
    let mut run = Run {
        scenario,
        origin,
        now_s: 0.0,
        events: BinaryHeap::new(),
        sequence: 0,
        upstream,
        clients,
        requests: Vec::new(),
        random: fastrand::Rng::with_seed(seed + 77),
        arrived: 0,
        is_traced: std::env::var_os("TRACE").is_some(),
        record,
    };
    run.push(0.0, Event::Tick);
    match &scenario.load {
        Load::Regular { .. } | Load::Arrivals(_) => run.push(0.0, Event::Arrive { proxied: false }),
        Load::WithProxied { .. } => run.push(10.0, Event::Arrive { proxied: true }),
        Load::Endless | Load::Requests(_) => {}
    }
    run.go();
    run.record
}

impl Run<'_> {
    fn push(&mut self, at_s: f64, event: Event) {
        self.sequence += 1;
        let at_ns = (at_s * 1e9).ceil() as u64;
        self.events.push(Reverse((at_ns, self.sequence, event)));
    }

    fn instant(&self) -> Instant {
        self.origin + Duration::from_nanos((self.now_s * 1e9).round() as u64)
    }

    fn go(&mut self) {
        while let Some(Reverse((at_ns, _, event))) = self.events.pop() {
            self.now_s = at_ns as f64 / 1e9;
            if self.now_s > self.scenario.seconds {
                break;
            }
            match event {
                Event::Tick => self.tick(),
                Event::Wake(client) => {
                    self.clients[client].wake_s = None;
                    self.dispatch(client);
                }
                Event::Arrive { proxied } => self.arrive(proxied),
                Event::Over(id) => self.over(id),
                Event::Ended(id) => {
                    let reply = self.requests[id].reply;
                    self.settle(id, reply);
                }
                Event::TimedOut(id) => self.timed_out(id),
            }
        }
    }

    fn tick(&mut self) {
        let begun = self.upstream.begin(self.now_s);
        self.serve(begun);
        for client in 0..self.clients.len() {
            self.dispatch(client);
        }
        let backlog = self.clients.iter().any(|client| client.waiting > 0);
        let capacity = self.upstream.capacity(self.now_s);
        let in_flight: u32 = self
            .clients
            .iter()
            .map(|client| client.limiter.snapshot(self.instant()).in_flight)
            .sum();
        self.record
            .tick(self.now_s, TICK_S, capacity, backlog, in_flight);
        if self.is_traced && ((self.now_s / TICK_S).round() as u64).is_multiple_of(20) {
            self.trace();
        }
        self.push(self.now_s + TICK_S, Event::Tick);
    }

    fn arrive(&mut self, proxied: bool) {
        if let Some(pause_s) = self.pause_s() {
            self.push(self.now_s + pause_s, Event::Arrive { proxied });
        }
        let client = (self.arrived % self.clients.len() as u64) as usize;
        self.arrived += 1;
        if proxied {
            self.record.proxied += 1;
            let now = self.instant();
            let client = &mut self.clients[client];
            client.proxied_waiting += 1;
            if client.limiter.permit(Class::Proxied, now) != Permit::Go {
                self.record.proxied_held += 1;
            }
        } else {
            self.clients[client].waiting += 1;
        }
        self.dispatch(client);
    }

    fn trace(&self) {
        for client in &self.clients {
            let snapshot = client.limiter.snapshot(self.instant());
            println!("{:6.1} {snapshot:?}", self.now_s);
        }
    }

    /// Until the next arrival; `None`: there is none.
    fn pause_s(&mut self) -> Option<f64> {
        let exponential = -(1.0 - self.random.f64()).ln();
        let now_s = self.now_s;
        match &self.scenario.load {
            Load::Regular {
                requests,
                interval_ms,
            } => (self.arrived + 1 < *requests).then_some(interval_ms / 1000.0),
            Load::Arrivals(phases) => {
                let current = phases.iter().rev().find(|phase| phase.from_s <= now_s);
                let next = phases.iter().find(|phase| phase.from_s > now_s);
                let until_s = next.map_or(f64::INFINITY, |phase| phase.from_s - now_s);
                let rate = current.map_or(0.0, |phase| phase.per_second);
                let pause_s = (exponential / rate).min(until_s);
                pause_s.is_finite().then_some(pause_s)
            }
            Load::WithProxied { per_second } => Some(exponential / per_second),
            Load::Endless | Load::Requests(_) => None,
        }
    }

    fn dispatch(&mut self, index: usize) {
        let now = self.instant();
        loop {
            let client = &mut self.clients[index];
            if self.now_s < client.join_at_s {
                return;
            }
            let class = if client.proxied_waiting > 0 {
                Class::Proxied
            } else if client.waiting > 0 {
                Class::Queued
            } else {
                return;
            };
            match client.limiter.permit(class, now) {
                Permit::Go => self.send(index, class),
                Permit::Hold { until, .. } => {
                    let Some(until) = until else { return };
                    let until_s = (until - self.origin).as_secs_f64();
                    assert!(until > now, "held until a time that has come");
                    if client.wake_s.is_none_or(|wake_s| until_s < wake_s) {
                        client.wake_s = Some(until_s);
                        self.push(until_s, Event::Wake(index));
                    }
                    return;
                }
            }
        }
    }

    fn send(&mut self, index: usize, class: Class) {
        let now = self.instant();
        let client = &mut self.clients[index];
        match class {
            Class::Queued => client.waiting -= 1,
            Class::Proxied => client.proxied_waiting -= 1,
        }
        let timeout_s = client.limiter.timeout().as_secs_f64();
        client.limiter.sent(class, now);
        self.record.sent(self.now_s);
        let id = self.requests.len();
        self.requests.push(Request {
            client: index,
            class,
            sent_s: self.now_s,
            began_s: self.now_s,
            settled: false,
            reply: Reply::Ok,
        });
        self.push(self.now_s + timeout_s, Event::TimedOut(id));
        match self.upstream.arrive(id, self.now_s) {
            Arrival::Ends { after_s, reply } => {
                self.requests[id].reply = reply;
                self.push(self.now_s + after_s, Event::Ended(id));
            }
            Arrival::Runs { after_s } => self.push(self.now_s + after_s, Event::Over(id)),
            Arrival::Waits | Arrival::Lost => {}
        }
    }

    fn serve(&mut self, begun: Vec<(usize, f64)>) {
        for (id, after_s) in begun {
            self.requests[id].began_s = self.now_s;
            self.push(self.now_s + after_s, Event::Over(id));
        }
    }

    fn over(&mut self, id: usize) {
        let begun = self.upstream.leave(self.now_s);
        self.serve(begun);
        self.settle(id, Reply::Ok);
    }

    fn timed_out(&mut self, id: usize) {
        if !self.requests[id].settled {
            self.finish(id, SampleOutcome::TimedOut);
        }
    }

    fn settle(&mut self, id: usize, reply: Reply) {
        if self.requests[id].settled {
            return;
        }
        let outcome = match reply {
            Reply::Ok => SampleOutcome::Ok,
            Reply::RateLimited(after_s) => SampleOutcome::RateLimited {
                retry_after: after_s.map(Duration::from_secs_f64),
            },
            Reply::Overloaded => SampleOutcome::Overloaded { retry_after: None },
            Reply::Erred => SampleOutcome::Erred,
            Reply::Failed => SampleOutcome::Failed,
        };
        self.finish(id, outcome);
    }

    fn finish(&mut self, id: usize, outcome: SampleOutcome) {
        let now = self.instant();
        let request = &mut self.requests[id];
        request.settled = true;
        let (index, class) = (request.client, request.class);
        let latency_s = self.now_s - request.sent_s;
        let queued_s = request.began_s - request.sent_s;
        let is_ok = outcome == SampleOutcome::Ok;
        self.record
            .ended(self.now_s, index, is_ok, latency_s, queued_s);
        let client = &mut self.clients[index];
        if !is_ok && class == Class::Queued {
            client.waiting += 1;
        }
        let sample = Sample {
            latency: Duration::from_secs_f64(latency_s),
            outcome,
        };
        client.limiter.settled(class, sample, now);
        self.dispatch(index);
    }
}
