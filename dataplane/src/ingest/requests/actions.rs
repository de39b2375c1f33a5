//! Replay and discard: one request, or those that match a filter, a bounded number at a time.
//!
//! A replay is a new entry in the application's lane for replays; only when it is stored the old one is settled, so
//! that a crash between repeats rather than loses. Many are replayed in the order in which they were accepted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};

use super::filter::Query;
use super::{Refusal, Requests, not_found};
use crate::clock::unix_ms;
use crate::store::queue::{EntryId, Found, Lane, NewEntry, Outcome, QueueError, State, Verdict};

/// What one call may take; whoever asked goes on with `next`.
const BULK_TIME_MAX: Duration = Duration::from_secs(5);

/// What became of one of many.
enum Done {
    Yes,
    /// It is no longer what it was when it was found.
    Skipped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Replay,
    Discard,
}

impl Requests {
    pub(super) async fn replay(&self, id: EntryId) -> Result<Value, Refusal> {
        let (found, request) = self.queue.get(id).await?.ok_or_else(|| not_found(id))?;
        let conflict = |problem: &str| {
            let problem = format!("request {id} {problem}");
            Err(Refusal(StatusCode::CONFLICT, problem))
        };
        match found.verdict.as_ref().map(|verdict| verdict.outcome) {
            None => return conflict("waits to be delivered anyway"),
            Some(Outcome::Replayed) => return conflict("was replayed already"),
            Some(Outcome::Delivered | Outcome::Parked | Outcome::Discarded) => {}
        }
        match self.replay_found(&found, request).await? {
            Some(new) => Ok(json!({ "id": id.to_string(), "replayedAs": new.to_string() })),
            None => conflict("was settled by somebody else meanwhile"),
        }
    }

    pub(super) async fn discard(&self, id: EntryId) -> Result<Value, Refusal> {
        let (found, _) = self.queue.get(id).await?.ok_or_else(|| not_found(id))?;
        if !self.discard_found(&found).await? {
            let problem = format!("request {id} neither waits nor is parked");
            return Err(Refusal(StatusCode::CONFLICT, problem));
        }
        Ok(json!({ "id": id.to_string() }))
    }

    /// `{"matched", "replayed", "skipped", "next", "error"?}`
    pub(super) async fn replay_all(&self, query: Query) -> Result<Value, Refusal> {
        let wanted = match query.filter.state {
            Some(State::Settled(Outcome::Parked | Outcome::Delivered | Outcome::Discarded)) => true,
            Some(State::Settled(Outcome::Replayed) | State::Waiting) | None => false,
        };
        if !wanted {
            return Err(bad_state("parked, delivered or discarded"));
        }
        self.all(query, Action::Replay).await
    }

    /// `{"matched", "discarded", "skipped", "next", "error"?}`
    pub(super) async fn discard_all(&self, query: Query) -> Result<Value, Refusal> {
        let wanted = match query.filter.state {
            Some(State::Waiting | State::Settled(Outcome::Parked)) => true,
            Some(State::Settled(Outcome::Delivered | Outcome::Discarded | Outcome::Replayed))
            | None => false,
        };
        if !wanted {
            return Err(bad_state("waiting or parked"));
        }
        self.all(query, Action::Discard).await
    }

    async fn all(&self, mut query: Query, action: Action) -> Result<Value, Refusal> {
        if action == Action::Replay {
            // What is replayed now must not be found again when it is delivered.
            let now_ms = unix_ms();
            let until_ms = query.filter.until_ms;
            query.filter.until_ms = Some(until_ms.map_or(now_ms, |until_ms| until_ms.min(now_ms)));
        }
        let page = self
            .queue
            .find(&query.filter, query.after, query.limit)
            .await?;
        let deadline = Instant::now() + BULK_TIME_MAX;
        let (mut matched, mut done, mut skipped) = (0, 0, 0);
        let mut next = page.next;
        let mut error = None;
        let mut last = query.after;
        for found in &page.found {
            if Instant::now() >= deadline {
                next = last;
                break;
            }
            match self.one(found, action).await {
                Ok(Done::Yes) => done += 1,
                Ok(Done::Skipped) => skipped += 1,
                Err(failure) => {
                    error = Some(failure.to_string());
                    next = last;
                    break;
                }
            }
            matched += 1;
            last = Some(found.id);
        }
        let name = match action {
            Action::Replay => "replayed",
            Action::Discard => "discarded",
        };
        let mut counts = json!({ "matched": matched, "skipped": skipped });
        counts[name] = done.into();
        counts["next"] = next.map(|id| id.to_string()).into();
        if let Some(error) = error {
            counts["error"] = error.into();
        }
        Ok(counts)
    }

    async fn one(&self, found: &Found, action: Action) -> Result<Done, QueueError> {
        let done = match action {
            Action::Discard => self.discard_found(found).await?,
            Action::Replay => match self.queue.get(found.id).await? {
                Some((now, request)) if same_state(&now, found) => {
                    self.replay_found(&now, request).await?.is_some()
                }
                Some(_) | None => false,
            },
        };
        Ok(if done { Done::Yes } else { Done::Skipped })
    }

    /// `None`: somebody else settled it first.
    async fn replay_found(
        &self,
        found: &Found,
        request: bytes::Bytes,
    ) -> Result<Option<EntryId>, QueueError> {
        let new = (self.ids)();
        let entry = NewEntry {
            id: new,
            lane: Lane {
                replay: true,
                ..found.lane.clone()
            },
            key: found.key.clone(),
            barrier: found.barrier.clone(),
            cost: found.cost,
            replay_of: Some(found.id),
            request,
        };
        self.queue.append(entry).await?;
        let was_parked = found
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.outcome == Outcome::Parked);
        if !was_parked {
            return Ok(Some(new));
        }
        if self
            .queue
            .dismiss(found.id, dismissal(found, Outcome::Replayed))
            .await?
        {
            return Ok(Some(new));
        }
        // Another operator was faster, and one repetition is enough.
        self.queue
            .dismiss(new, dismissal(found, Outcome::Discarded))
            .await?;
        Ok(None)
    }

    async fn discard_found(&self, found: &Found) -> Result<bool, QueueError> {
        let discarded = self
            .queue
            .dismiss(found.id, dismissal(found, Outcome::Discarded))
            .await?;
        if discarded {
            self.metrics.discarded();
        }
        Ok(discarded)
    }
}

/// What is known of the last attempt stays.
fn dismissal(found: &Found, outcome: Outcome) -> Verdict {
    let before = found.verdict.as_ref();
    Verdict {
        outcome,
        reason: before.map_or_else(Arc::default, |before| Arc::clone(&before.reason)),
        http_status: before.map_or(0, |before| before.http_status),
        attempts: before.map_or(0, |before| before.attempts),
        upstream: before.map_or_else(Arc::default, |before| Arc::clone(&before.upstream)),
        at_ms: unix_ms(),
    }
}

fn same_state(one: &Found, other: &Found) -> bool {
    let outcome = |found: &Found| found.verdict.as_ref().map(|verdict| verdict.outcome);
    outcome(one) == outcome(other)
}

fn bad_state(expected: &str) -> Refusal {
    let problem = format!("state: this needs a filter by state: {expected}");
    Refusal(StatusCode::BAD_REQUEST, problem)
}
