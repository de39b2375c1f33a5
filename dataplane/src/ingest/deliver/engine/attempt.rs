//! One attempt to deliver an entry: out, the answer in, and what follows from it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sluice_crds::config::Delivery;
use tokio::time::Instant;

use super::Engine;
use super::Event;
use super::judge::{self, judge};
use crate::clock::unix_ms;
use crate::ingest::deliver::outgoing::outgoing;
use crate::ingest::deliver::scheduler::{Attempt, Dispatch, UpstreamId};
use crate::ingest::entry::StoredRequest;
use crate::ingest::limiter::{Class, Sample, SampleOutcome};
use crate::ingest::upstream::{Failure, Server, read_body};
use crate::ingest::verdict::{self, Context, Judged, Reason, backoff};
use crate::store::queue::{EntryId, Outcome, Token, Verdict};

/// How long an application's last success says that the upstream knows it.
const SUCCESS_MEMORY: Duration = Duration::from_secs(300);

/// An upstream's answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// As much of it as was read.
    pub(super) body: Bytes,
}

/// How an attempt ended.
pub(super) enum End {
    Answer(Reply),
    NotConnected,
    Broken,
    TimedOut,
    /// The entry cannot be made a request; no upstream was asked.
    Unsendable(&'static str),
}

/// An attempt that ended.
pub(super) struct Answered {
    attempt: Attempt,
    upstream: UpstreamId,
    label: Arc<str>,
    id: EntryId,
    token: Token,
    attempts: u32,
    failures: u32,
    delivery: Arc<Delivery>,
    took: Duration,
    end: End,
}

/// Failures that are not the request's own make it wait no longer than so many: the upstream's limits decide then how
/// often it is asked.
const OTHERS_FAILURES_MAX: u32 = 3;

impl Engine {
    pub(super) fn send(&mut self, dispatch: Dispatch, now: Instant) {
        if !self.queue.may_send(dispatch.sending.token) {
            self.forget(&dispatch, now);
            return;
        }
        let mut answered = Answered {
            attempt: Attempt {
                lane: dispatch.lane,
                seq: dispatch.seq,
            },
            upstream: dispatch.upstream,
            label: Arc::default(),
            id: dispatch.sending.id,
            token: dispatch.sending.token,
            attempts: dispatch.sending.attempts,
            failures: dispatch.sending.failures,
            delivery: dispatch.delivery,
            took: Duration::ZERO,
            end: End::NotConnected,
        };
        let Some(state) = self.servers.get(&dispatch.upstream) else {
            // Only upstreams with a server are healthy, so this is a race with the configuration at most.
            let _ = self.sender.send(Event::Answered(Box::new(answered)));
            return;
        };
        answered.label = Arc::clone(&state.label);
        let stored = match StoredRequest::decode(dispatch.sending.request) {
            Ok(stored) => stored,
            Err(failure) => {
                tracing::error!(id = %answered.id, %failure, "entry parked");
                answered.end = End::Unsendable("Damaged");
                let _ = self.sender.send(Event::Answered(Box::new(answered)));
                return;
            }
        };
        let (server, sender) = (Rc::clone(&state.server), self.sender.clone());
        let timeout = dispatch.timeout;
        self.tasks.spawn_local(async move {
            let mut kept = None;
            let exchange = exchange(&server, &stored, &mut kept);
            answered.end = tokio::time::timeout(timeout, exchange)
                .await
                .unwrap_or(End::TimedOut);
            answered.took = now.elapsed();
            drop(stored);
            // The loop has ended, and the entry is delivered again by the next process.
            let _ = sender.send(Event::Answered(Box::new(answered)));
            if let Some(connection) = kept {
                server.keep(connection).await;
            }
        });
    }

    /// The entry is another process's to deliver now, or nobody's.
    fn forget(&mut self, dispatch: &Dispatch, now: Instant) {
        let sample = Sample {
            latency: Duration::ZERO,
            outcome: SampleOutcome::Abandoned,
        };
        self.scheduler
            .ended(dispatch.upstream, Class::Queued, sample, now.into_std());
        let attempt = Attempt {
            lane: dispatch.lane,
            seq: dispatch.seq,
        };
        self.scheduler.recorded(attempt, now.into_std());
    }

    pub(super) fn answered(&mut self, answered: Answered, now: Instant) {
        let attempt = answered.attempt;
        let judged = judge(&answered.end, &self.context(&answered, now));
        let outcome = judged
            .as_ref()
            .map_or(SampleOutcome::Abandoned, |judged| judged.outcome);
        let sample = Sample {
            latency: answered.took,
            outcome,
        };
        self.scheduler
            .ended(answered.upstream, Class::Queued, sample, now.into_std());
        if let Some(failed) = judge::fails(outcome) {
            self.scheduler
                .blame(answered.upstream, Some(answered.id), failed, now.into_std());
        }
        let Some(Judged {
            verdict, attempts, ..
        }) = judged
        else {
            let reason = answered.unsendable();
            self.settle(&answered, Outcome::Parked, reason, answered.attempts, now);
            return;
        };
        self.metrics
            .attempted(&answered.label, judge::name(outcome), answered.took);
        match verdict {
            verdict::Verdict::Done { .. } => {
                self.settle(&answered, Outcome::Delivered, "", attempts, now);
            }
            verdict::Verdict::Park { reason, info } => {
                tracing::debug!(id = %answered.id, reason = reason.name(), info, "request parked");
                self.settle(&answered, Outcome::Parked, reason.name(), attempts, now);
            }
            verdict::Verdict::Retry { reason, after } => {
                let own = attempts > answered.attempts;
                let failures = answered.failures.saturating_add(1);
                let pause = backoff(
                    answered.delivery.backoff_initial,
                    answered.delivery.backoff_max,
                    if own {
                        failures
                    } else {
                        failures.min(OTHERS_FAILURES_MAX)
                    },
                    fastrand::f64(),
                );
                let pause = after.map_or(pause, |after| pause.max(after));
                self.repeat(&answered, reason, attempts, pause, now);
            }
            verdict::Verdict::PauseLane {
                reason,
                probe_after,
            } => {
                self.scheduler
                    .pause_lane(attempt.lane, probe_after, now.into_std());
                self.repeat(&answered, reason, attempts, Duration::ZERO, now);
            }
        }
    }

    fn context(&self, answered: &Answered, now: Instant) -> Context {
        let succeeded_at = self.scheduler.succeeded_at(answered.attempt.lane);
        let since = succeeded_at.map(|at| now.into_std().saturating_duration_since(at));
        let last = answered.attempts.saturating_add(1) >= answered.delivery.attempts;
        let upstream_fails = self.scheduler.is_failing_others(
            answered.upstream,
            answered.id,
            (answered.is_blamable(), last),
            now.into_std(),
        );
        Context {
            dialect: self.dialect,
            application_succeeds: since.is_some_and(|since| since < SUCCESS_MEMORY),
            upstream_fails,
            attempts: answered.attempts,
            attempts_max: answered.delivery.attempts,
            now_ms: unix_ms(),
        }
    }

    fn settle(
        &mut self,
        answered: &Answered,
        outcome: Outcome,
        reason: &'static str,
        attempts: u32,
        now: Instant,
    ) {
        let application = self.scheduler.application_name(answered.attempt.lane);
        let delivered = outcome == Outcome::Delivered;
        let at_ms = unix_ms();
        if delivered {
            let delay = at_ms.saturating_sub(answered.id.accepted_ms());
            self.metrics
                .delivered(&application, Duration::from_millis(delay));
        } else {
            self.metrics.parked(&application, reason);
        }
        let verdict = Verdict {
            outcome,
            reason: reason.into(),
            http_status: answered.status(),
            attempts,
            upstream: Arc::clone(&answered.label),
            at_ms,
        };
        self.recorder
            .settle(answered.attempt, answered.token, verdict);
        self.scheduler
            .settle(answered.attempt, delivered, now.into_std());
    }

    fn repeat(
        &mut self,
        answered: &Answered,
        reason: Reason,
        attempts: u32,
        pause: Duration,
        now: Instant,
    ) {
        let application = self.scheduler.application_name(answered.attempt.lane);
        self.metrics.retried(&application, reason.name());
        if attempts > answered.attempts {
            self.recorder.used_attempts(answered.token, attempts);
        }
        let at = now + pause;
        self.scheduler
            .retry(answered.attempt, at.into_std(), attempts, now.into_std());
    }
}

impl Answered {
    fn unsendable(&self) -> &'static str {
        match self.end {
            End::Unsendable(reason) => reason,
            End::Answer(_) | End::NotConnected | End::Broken | End::TimedOut => "",
        }
    }

    /// Answered by the upstream itself, and not that it is unavailable or too busy.
    fn is_blamable(&self) -> bool {
        !matches!(self.status(), 0 | 408 | 429 | 502..=504)
    }

    fn status(&self) -> u16 {
        match &self.end {
            End::Answer(reply) => reply.status.as_u16(),
            End::NotConnected | End::Broken | End::TimedOut | End::Unsendable(_) => 0,
        }
    }
}

async fn exchange(
    server: &Server,
    stored: &StoredRequest,
    kept: &mut Option<crate::ingest::upstream::Connection>,
) -> End {
    let make = || outgoing(stored, server.address());
    let Some(request) = make() else {
        return End::Unsendable("InvalidTarget");
    };
    // Sent twice does no harm here: what is not answered is repeated anyway.
    let (response, connection) = match server.exchange(request, Some(&make)).await {
        Ok(answer) => answer,
        Err(failure) => return failure.into(),
    };
    let (head, mut body) = response.into_parts();
    match read_body(&mut body, verdict::REPLY_BODY_MAX).await {
        Ok(read) => {
            if read.complete {
                *kept = Some(connection);
            }
            End::Answer(Reply {
                status: head.status,
                headers: head.headers,
                body: read.bytes,
            })
        }
        Err(failure) => failure.into(),
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotConnected(reason) => {
                tracing::debug!(%reason, "not connected to the upstream");
                Self::NotConnected
            }
            Failure::Broken(reason) => {
                tracing::debug!(%reason, "connection to the upstream broke");
                Self::Broken
            }
        }
    }
}
