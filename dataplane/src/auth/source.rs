//! A key set that is kept fresh: a background task owns the fetching, everyone else reads the last good set.
//!
//! Owns the set, the task (it ends with the [`KeySource`]) and the rule for when to fetch: at once when started,
//! then at the configured interval, and when a token names an unknown key, but then at most every
//! [`DEMAND_INTERVAL`] however many clients ask. A failed fetch never takes away the set that is there.
//!
//! Readers may live on other runtimes than the task.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::AuthError;
use super::fetch::{Fetcher, Location};
use super::jwks::{KeySet, Verdict};
use super::token::Token;

#[cfg(test)]
mod tests;

/// Between fetches that tokens ask for: forged tokens cost the issuer no more than this.
const DEMAND_INTERVAL: Duration = Duration::from_secs(10);

/// How often a file is looked at, whatever the interval of refresh: reading it is cheap.
const FILE_INTERVAL: Duration = Duration::from_secs(5);

/// Keeps an interval of zero from becoming a busy loop.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// After a failed fetch, as long as there is no set at all and every client is turned away.
const RETRY_EMPTY: Duration = Duration::from_secs(1);

/// After a failed fetch, with an old set at hand.
const RETRY_LOADED: Duration = Duration::from_secs(10);

/// A key set at some location. Dropping it ends its task.
pub(super) struct KeySource {
    location: Location,
    refresh: Duration,
    loaded: watch::Receiver<Loaded>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// The outcome of all fetches so far.
#[derive(Clone, Default)]
struct Loaded {
    keys: Option<Arc<KeySet>>,
    /// Fetches that ended.
    fetches: u64,
    /// Why the last one failed.
    failure: Option<String>,
}

/// Lets readers ask the task for a fetch.
struct Shared {
    wake: Notify,
    demand: Mutex<Demand>,
}

/// `under_way` and `Loaded::fetches` change together under the lock, so that nobody waits for a fetch that has
/// ended already.
struct Demand {
    under_way: bool,
    last: Option<Instant>,
}

impl KeySource {
    /// `keys` is the set to begin with, from an earlier source of the same location.
    pub(super) fn start(
        location: Location,
        refresh: Duration,
        keys: Option<Arc<KeySet>>,
        runtime: &Handle,
    ) -> Self {
        let (publish, loaded) = watch::channel(Loaded {
            keys,
            ..Loaded::default()
        });
        // The first fetch is on its way from here on: tokens wait for it and do not ask for another.
        let demand = Mutex::new(Demand {
            under_way: true,
            last: None,
        });
        let shared = Arc::new(Shared {
            wake: Notify::new(),
            demand,
        });
        let interval = match location {
            Location::File(_) => refresh.min(FILE_INTERVAL),
            Location::Web(_) => refresh,
        };
        let task = Task {
            fetcher: Fetcher::new(location.clone()),
            interval: interval.max(INTERVAL_MIN),
            last_document: Bytes::new(),
            publish,
            shared: Arc::clone(&shared),
        };
        let task = runtime.spawn(task.run()).abort_handle();
        Self {
            location,
            refresh,
            loaded,
            shared,
            task,
        }
    }

    /// Whether this source does what a new one with these settings would do.
    pub(super) fn is(&self, location: &Location, refresh: Duration) -> bool {
        self.location == *location && self.refresh == refresh
    }

    /// The set, for a new source with the same location.
    pub(super) fn keys_of(&self, location: &Location) -> Option<Arc<KeySet>> {
        (self.location == *location)
            .then(|| self.loaded.borrow().keys.clone())
            .flatten()
    }

    /// Checks the signature with the keys at hand; `None` when a fetch may bring the key.
    pub(super) fn verify_at_hand(&self, token: &Token<'_>) -> Option<Result<(), AuthError>> {
        let keys = self.loaded.borrow().keys.clone()?;
        match keys.verify(token) {
            Verdict::Verified => Some(Ok(())),
            Verdict::Refused => Some(Err(AuthError::invalid("signature: does not match"))),
            Verdict::UnknownKey => None,
        }
    }

    /// Checks the signature, after a fetch if that can help.
    pub(super) async fn verify(&self, token: &Token<'_>) -> Result<(), AuthError> {
        let mut loaded = self.loaded.clone();
        let seen = loaded.borrow_and_update().fetches;
        if let Some(verdict) = self.verify_at_hand(token) {
            return verdict;
        }
        if self.ask(seen) {
            // An error means that the task is gone, and then the last state is all there is.
            let _ = loaded.wait_for(|loaded| loaded.fetches > seen).await;
        }
        if let Some(verdict) = self.verify_at_hand(token) {
            return verdict;
        }
        let loaded = self.loaded.borrow();
        match (&loaded.keys, &loaded.failure) {
            (Some(_), None) => Err(AuthError::invalid(
                "signature: no key of the key set matches",
            )),
            // The key may well exist, so the token cannot be called invalid.
            (Some(_) | None, Some(failure)) => Err(AuthError::Unavailable(failure.clone())),
            (None, None) => Err(AuthError::Unavailable("not loaded yet".to_owned())),
        }
    }

    /// Whether a fetch later than the first `seen` has ended or will end soon; starts one where allowed.
    fn ask(&self, seen: u64) -> bool {
        let mut demand = self.shared.demand.lock();
        if demand.under_way || self.loaded.borrow().fetches > seen {
            return true;
        }
        let now = Instant::now();
        if demand
            .last
            .is_some_and(|last| now.duration_since(last) < DEMAND_INTERVAL)
        {
            return false;
        }
        demand.last = Some(now);
        demand.under_way = true;
        self.shared.wake.notify_one();
        true
    }
}

impl Drop for KeySource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    fetcher: Fetcher,
    interval: Duration,
    /// Spares parsing (and log lines) while nothing changes.
    last_document: Bytes,
    publish: watch::Sender<Loaded>,
    shared: Arc<Shared>,
}

impl Task {
    async fn run(mut self) {
        loop {
            self.shared.demand.lock().under_way = true;
            let fetched = self.fetch().await;
            let wait = self.finish(fetched);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// The new set, or `None` when the document is the one that is known.
    async fn fetch(&mut self) -> Result<Option<KeySet>, String> {
        let document = self.fetcher.fetch().await?;
        if document == self.last_document {
            return Ok(None);
        }
        let keys = KeySet::parse(&document)?;
        self.last_document = document;
        Ok(Some(keys))
    }

    /// Publishes the outcome and says when to fetch again.
    fn finish(&mut self, fetched: Result<Option<KeySet>, String>) -> Duration {
        let mut wait = self.interval;
        let mut demand = self.shared.demand.lock();
        demand.under_way = false;
        self.publish.send_modify(|loaded| {
            loaded.fetches += 1;
            loaded.failure = None;
            match fetched {
                Ok(None) => {}
                Ok(Some(keys)) => {
                    tracing::info!(keys = keys.len(), "key set loaded");
                    loaded.keys = Some(Arc::new(keys));
                }
                Err(error) => {
                    tracing::warn!(%error, has_keys = loaded.keys.is_some(), "key set not refreshed");
                    wait = wait.min(if loaded.keys.is_some() { RETRY_LOADED } else { RETRY_EMPTY });
                    loaded.failure = Some(error);
                }
            }
        });
        wait
    }
}
