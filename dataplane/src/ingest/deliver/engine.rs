//! The delivery thread's loop: events in, decisions of the scheduler out.
//!
//! Everything that waits for something (an answer, the store, a timer) is a task that ends with an event. The loop
//! takes all events that have come, asks the scheduler for what is next until there is none, hands verdicts to the
//! recorder together, and sleeps until the next event or the instant the scheduler names.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use sluice_crds::config::GatewayConfig;
use sluice_proto::fleet::Version;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, MissedTickBehavior};

use self::attempt::Answered;
use self::calls::WaitingCall;
use self::recorder::Recorder;
use self::servers::ServerState;
use self::upkeep::Upkeep;
use super::hold::Hold;
use super::scheduler::{Attempt, Claim, Load, Scheduler, UpstreamId};
use super::{Command, DeliverParts, Figures, FleetLink, Report};
use crate::clock::unix_ms;
use crate::ingest::limiter::Sample;
use crate::ingest::metrics::Metrics;
use crate::ingest::proxy::Call;
use crate::ingest::upstream::Connection;
use crate::ingest::verdict::Dialect;
use crate::store::queue::{Claimed, Queue, QueueError};

mod attempt;
mod calls;
mod judge;
mod recorder;
mod servers;
mod upkeep;

/// Events taken before the scheduler is asked again: what has come is worth more when it is fresh.
const EVENTS_PER_TURN: usize = 1024;
/// Gauges, idle connections, and a look at the queue in case something was missed.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// After a failure of the store, before it is asked again.
const STORE_PAUSE: Duration = Duration::from_millis(200);
/// What recording the last verdicts may take beyond the deadline.
const RECORD_GRACE: Duration = Duration::from_secs(1);

enum Event {
    Answered(Box<Answered>),
    Claimed(Claim, Result<Vec<Claimed>, QueueError>),
    Loaded(Load, Result<Vec<Option<bytes::Bytes>>, QueueError>),
    /// `false`: the store refuses, and it is being tried again.
    Recorded(Vec<Attempt>, bool),
    CallEnded {
        upstream: UpstreamId,
        sample: Sample,
        /// The answer was read to its end.
        connection: Option<Connection>,
    },
    Health {
        upstream: UpstreamId,
        serial: u64,
        healthy: bool,
    },
}

pub(super) struct Engine {
    scheduler: Scheduler,
    config: watch::Receiver<Arc<GatewayConfig>>,
    queue: Arc<dyn Queue>,
    changes: watch::Receiver<u64>,
    calls: Option<mpsc::Receiver<Call>>,
    waiting_calls: VecDeque<WaitingCall>,
    metrics: Arc<Metrics>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::UnboundedReceiver<Event>,
    /// As many events are under way as requests in flight and calls to the store, which are bounded.
    sender: mpsc::UnboundedSender<Event>,
    servers: HashMap<UpstreamId, ServerState>,
    last_serial: u64,
    recorder: Recorder,
    upkeep: Upkeep,
    tasks: JoinSet<()>,
    dialect: Dialect,
    store_fails: bool,
    stopping: Option<(Instant, oneshot::Sender<usize>)>,
    fleet: FleetLink,
    /// A directive whose rates are in use, and when what was sent before is paid for.
    settling: Option<(Version, Instant)>,
}

impl Engine {
    pub(super) fn new(parts: DeliverParts, commands: mpsc::Receiver<Command>) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            scheduler: Scheduler::new(),
            config: parts.config,
            changes: parts.queue.changes(),
            calls: Some(parts.calls),
            waiting_calls: VecDeque::new(),
            recorder: Recorder::new(Arc::clone(&parts.queue), sender.clone()),
            queue: parts.queue,
            metrics: parts.metrics,
            commands,
            events,
            sender,
            servers: HashMap::new(),
            last_serial: 0,
            upkeep: Upkeep::new(),
            tasks: JoinSet::new(),
            dialect: Dialect::Generic,
            store_fails: false,
            stopping: None,
            fleet: parts.fleet,
            settling: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.follow_rates();
        self.configure();
        loop {
            self.turn();
            if self.is_done() {
                break;
            }
            let wake = self.wake_at();
            let calls_open = self.calls.is_some() && self.has_room_for_calls();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Some(event) = self.events.recv() => self.take_events(event),
                call = receive(&mut self.calls), if calls_open => match call {
                    Some(call) => self.take_call(call),
                    None => self.calls = None,
                },
                Ok(()) = self.fleet.rates.changed() => self.follow_rates(),
                Ok(()) = self.config.changed() => self.configure(),
                Ok(()) = self.changes.changed() => self.upkeep.look(),
                _ = ticks.tick() => self.tick(),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        self.end().await;
    }

    fn take_events(&mut self, first: Event) {
        self.event(first);
        for _ in 1..EVENTS_PER_TURN {
            match self.events.try_recv() {
                Ok(event) => self.event(event),
                Err(_) => return,
            }
        }
    }

    fn event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Answered(answered) => self.answered(*answered, now),
            Event::Claimed(claim, result) => {
                self.note_store(result.as_ref().err());
                self.scheduler.claimed(&claim, result.ok(), now.into_std());
            }
            Event::Loaded(load, result) => {
                self.note_store(result.as_ref().err());
                self.scheduler.loaded(&load, result.ok(), now.into_std());
            }
            Event::Recorded(attempts, recorded) => self.recorded(attempts, recorded, now),
            Event::CallEnded {
                upstream,
                sample,
                connection,
            } => self.call_ended(upstream, sample, connection, now),
            Event::Health {
                upstream,
                serial,
                healthy,
            } => self.health(upstream, serial, healthy),
        }
    }

    /// Does all that can be done now.
    fn turn(&mut self) {
        let now = Instant::now();
        self.say_applied(now);
        self.scan(now);
        self.serve_calls(now);
        while let Some(dispatch) = self.scheduler.next(now.into_std()) {
            self.send(dispatch, now);
        }
        while let Some(load) = self.scheduler.next_load(now.into_std()) {
            self.load(load);
        }
        while let Some(claim) = self.scheduler.next_claim() {
            self.claim(claim);
        }
        self.recorder.flush();
        while self.tasks.try_join_next().is_some() {}
    }

    fn wake_at(&self) -> Instant {
        let far = Instant::now() + UPKEEP_INTERVAL;
        let scheduled = self.scheduler.wake_at().map(Instant::from_std);
        let stopping = self.stopping.as_ref().map(|(deadline, _)| *deadline);
        [
            scheduled,
            self.calls_wake_at(),
            self.upkeep.wake_at(),
            self.settling.map(|(_, at)| at),
            stopping,
        ]
        .into_iter()
        .flatten()
        .fold(far, Instant::min)
    }

    fn claim(&mut self, claim: Claim) {
        let (queue, sender) = (Arc::clone(&self.queue), self.sender.clone());
        spawn_local(async move {
            let result = queue.claim(&claim.lane, claim.limits).await;
            let _ = sender.send(Event::Claimed(claim, result));
        });
    }

    fn load(&mut self, load: Load) {
        let (queue, sender) = (Arc::clone(&self.queue), self.sender.clone());
        spawn_local(async move {
            let tokens: Vec<_> = load.entries.iter().map(|(_, token)| *token).collect();
            let result = queue.load(&tokens).await;
            if result.is_err() {
                // The same is asked again at once.
                tokio::time::sleep(STORE_PAUSE).await;
            }
            let _ = sender.send(Event::Loaded(load, result));
        });
    }

    fn note_store(&mut self, failure: Option<&QueueError>) {
        if let Some(failure) = failure {
            tracing::warn!(%failure, "queue cannot be read, trying again");
            self.upkeep.look_after(STORE_PAUSE);
        }
    }

    fn recorded(&mut self, attempts: Vec<Attempt>, recorded: bool, now: Instant) {
        if recorded {
            self.recorder.done();
        }
        if self.store_fails == recorded {
            self.store_fails = !recorded;
            self.set_stop();
        }
        for attempt in attempts {
            self.scheduler.recorded(attempt, now.into_std());
        }
    }

    fn set_stop(&mut self) {
        let why = if self.stopping.is_some() {
            Some(Hold::Draining)
        } else {
            self.store_fails.then_some(Hold::Store)
        };
        self.scheduler.stop(why);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Report(reply) => {
                let at = Instant::now().into_std();
                let report = Report {
                    lanes: self.scheduler.lane_reports(),
                    upstreams: self.scheduler.upstream_reports(at),
                    caps: self.scheduler.cap_reports(at),
                    at,
                };
                // Whoever asked may have given up.
                let _ = reply.send(report);
            }
            Command::Figures(reply) => {
                let now = Instant::now().into_std();
                let figures = Figures {
                    queue: self.queue.stats(),
                    ..self.scheduler.figures(now, unix_ms())
                };
                let _ = reply.send(figures);
            }
            Command::Stop { deadline, done } => {
                self.stopping = Some((deadline, done));
                self.set_stop();
            }
        }
    }

    /// Uses the parts that the manager gives.
    fn follow_rates(&mut self) {
        let rates = Arc::clone(&self.fleet.rates.borrow_and_update());
        let now = Instant::now();
        let version = rates.version;
        let paid = self.scheduler.share(rates, now.into_std());
        let before = self.settling.map(|(_, at)| at);
        let at = paid.map(Instant::from_std).max(before).unwrap_or(now);
        self.settling = Some((version, at));
        self.say_applied(now);
    }

    fn say_applied(&mut self, now: Instant) {
        if let Some((version, at)) = self.settling
            && at <= now
        {
            self.settling = None;
            self.fleet.applied.send_if_modified(|applied| {
                let is_new = *applied != version;
                *applied = version;
                is_new
            });
        }
    }

    fn is_done(&self) -> bool {
        let Some((deadline, _)) = &self.stopping else {
            return false;
        };
        let idle = self.scheduler.in_flight() == 0 && self.recorder.is_idle();
        idle || Instant::now() >= *deadline
    }

    /// Gives up what is under way, and records what is known.
    async fn end(mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.event(event);
        }
        let given_up = self.scheduler.in_flight();
        self.tasks.shutdown().await;
        let paid = self.scheduler.paid_at(Instant::now().into_std());
        self.fleet.ended.send_replace(Some(paid));
        let recording = async {
            while !self.recorder.is_idle() {
                self.recorder.flush();
                match self.events.recv().await {
                    Some(Event::Recorded(_, true)) => self.recorder.done(),
                    Some(_) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(RECORD_GRACE, recording).await.is_err() {
            tracing::error!("verdicts could not be recorded before the end");
        }
        if let Some((_, done)) = self.stopping {
            let _ = done.send(given_up);
        }
    }
}

async fn receive(calls: &mut Option<mpsc::Receiver<Call>>) -> Option<Call> {
    match calls {
        Some(calls) => calls.recv().await,
        None => None,
    }
}
