//! The one owner of a gateway's decisions: reports come into its mailbox, it ticks once a second, directives and plans go out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sluice_proto::fleet::{Directive, Report};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::facts::{Facts, PodName};
use crate::limits::{MAILBOX, TICK};
use crate::monitor::{Looked, Recorder};
use crate::plan::PlanSummary;
use crate::planner::Planner;
use crate::policy::Policy;

/// A handle: the fleet ends when all are gone.
#[derive(Clone)]
pub struct Fleet {
    mailbox: mpsc::Sender<Mail>,
    policy: Arc<watch::Sender<Policy>>,
    facts: Arc<watch::Sender<Option<Facts>>>,
    plans: watch::Receiver<Arc<PlanSummary>>,
    /// Of streams.
    numbers: Arc<AtomicU64>,
}

enum Mail {
    /// A stream has begun; one of the same pod before it gets nothing more.
    Attend(PodName, Stream),
    Report(Box<Report>),
    /// The stream with this number ended.
    Left(PodName, u64),
    Look(Look),
}

/// A question, with the way of its answer.
type Look = Box<dyn FnOnce(&Looked<'_>) + Send>;

/// What leads to a pod.
struct Stream {
    number: u64,
    directives: watch::Sender<Option<Arc<Directive>>>,
}

/// A pod's stream, on the side of the manager.
pub(crate) struct Attendance {
    mailbox: mpsc::Sender<Mail>,
    pod: PodName,
    number: u64,
    pub(crate) directives: watch::Receiver<Option<Arc<Directive>>>,
}

/// The fleet is gone: this process does not lead any more.
#[derive(Debug)]
pub(crate) struct Ended;

impl Fleet {
    /// `term`: higher than that of any manager before it; the fleet corrects it by what pods say. The future is the fleet.
    pub fn start(term: u64, policy: Policy) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (mailbox, mails) = mpsc::channel(MAILBOX);
        let (policy, policies) = watch::channel(policy);
        let (known, facts) = watch::channel(None);
        let (plan, plans) = watch::channel(Arc::default());
        let fleet = Self {
            mailbox,
            policy: Arc::new(policy),
            facts: Arc::new(known),
            plans,
            numbers: Arc::default(),
        };
        (fleet, run(term, mails, policies, facts, plan))
    }

    /// The latest wins.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.send_if_modified(|held| {
            let changed = *held != policy;
            *held = policy;
            changed
        });
    }

    /// What Kubernetes knows. Before the first call pods are known by their reports only.
    pub fn set_facts(&self, facts: impl Into<Facts>) {
        let facts = facts.into();
        self.facts.send_if_modified(|held| {
            let changed = held.as_ref() != Some(&facts);
            *held = Some(facts);
            changed
        });
    }

    pub fn plans(&self) -> watch::Receiver<Arc<PlanSummary>> {
        self.plans.clone()
    }

    /// A pod that needs no directives, because it is the only one.
    pub async fn report(&self, report: Report) {
        // A fleet that has ended need not know.
        let _ = self.mailbox.send(Mail::Report(Box::new(report))).await;
    }

    /// Asks the fleet's owner something that is answered at once. `None`: there is no answer, or the fleet has ended.
    pub async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Looked<'_>) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let look: Look = Box::new(move |fleet| {
            // Whoever asked may have gone.
            let _ = reply.send(question(fleet));
        });
        self.mailbox.send(Mail::Look(look)).await.ok()?;
        answer.await.ok()?
    }

    pub(crate) async fn attend(&self, pod: PodName) -> Result<Attendance, Ended> {
        let (sender, directives) = watch::channel(None);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let stream = Stream {
            number,
            directives: sender,
        };
        let mail = Mail::Attend(pod.clone(), stream);
        self.mailbox.send(mail).await.map_err(|_| Ended)?;
        Ok(Attendance {
            mailbox: self.mailbox.clone(),
            pod,
            number,
            directives,
        })
    }
}

impl Attendance {
    pub(crate) async fn report(&self, report: Report) -> Result<(), Ended> {
        let mail = Mail::Report(Box::new(report));
        self.mailbox.send(mail).await.map_err(|_| Ended)
    }

    /// Nothing more will come on it.
    pub(crate) async fn leave(self) {
        // A fleet that has ended need not know.
        let _ = self.mailbox.send(Mail::Left(self.pod, self.number)).await;
    }
}

type Streams = BTreeMap<PodName, Stream>;

async fn run(
    term: u64,
    mut mails: mpsc::Receiver<Mail>,
    mut policies: watch::Receiver<Policy>,
    mut facts: watch::Receiver<Option<Facts>>,
    plan: watch::Sender<Arc<PlanSummary>>,
) {
    let policy = policies.borrow_and_update().clone();
    let mut planner = Planner::new(term, policy, now());
    let mut streams = Streams::new();
    let mut recorder = Recorder::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Between two ticks: a pod turns out to be silent.
    let mut wake = None;
    loop {
        let mut due = false;
        tokio::select! {
            mail = mails.recv() => match mail {
                None => return,
                Some(Mail::Attend(pod, stream)) => {
                    streams.insert(pod, stream);
                }
                Some(Mail::Report(mut report)) => {
                    if let Some(past) = report.past.take() {
                        recorder.learn(&report.instance, &past, unix_s());
                    }
                    due = planner.note(*report, now());
                }
                Some(Mail::Left(pod, number)) => {
                    if streams.get(&pod).is_some_and(|stream| stream.number == number) {
                        planner.note_left(&pod, now());
                        wake = planner.silent_at(now());
                    }
                }
                Some(Mail::Look(look)) => look(&recorder.look(&planner, now(), unix_s())),
            },
            _ = ticks.tick() => due = true,
            () = sleep_until(wake.unwrap_or_else(now).into()), if wake.is_some() => due = true,
            changed = policies.changed() => {
                if changed.is_err() {
                    return;
                }
                planner.set_policy(policies.borrow_and_update().clone());
            }
            changed = facts.changed() => {
                if changed.is_err() {
                    return;
                }
                let known = facts.borrow_and_update().clone();
                planner.set_facts(known.unwrap_or_default(), now());
                due = true;
            }
        }
        if due {
            let tick = planner.tick(now());
            wake = planner.silent_at(now());
            for (pod, directive) in tick.directives {
                if let Some(stream) = streams.get(&pod) {
                    stream.directives.send_replace(Some(Arc::new(directive)));
                }
            }
            streams.retain(|_, stream| !stream.directives.is_closed());
            plan.send_replace(tick.summary);
            recorder.record(&planner, now(), unix_s());
        }
    }
}

/// For people.
#[expect(
    clippy::disallowed_methods,
    reason = "what is shown gets its time from here"
)]
fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// The only clock of the manager.
#[expect(
    clippy::disallowed_methods,
    reason = "decisions get the time from here"
)]
fn now() -> Instant {
    Instant::now()
}
