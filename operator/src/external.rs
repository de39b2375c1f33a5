//! Looks at the Redis that others run, for as long as a Gateway uses it and this operator leads.
//!
//! Owns the last answer of each. A task per Redis, beside the passes over Gateways, which hear of it only when the answer
//! changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_crds::config::Redis;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::managed::Wake;
use crate::redis::probe;
use crate::shelf::Key;

/// The pods tell sooner than anybody reads a status.
const INTERVAL: Duration = Duration::from_secs(60);
/// Whoever repairs it waits for the answer.
const INTERVAL_FAILED: Duration = Duration::from_secs(5);
/// Probes at a time: many Gateways may begin at once.
pub const PROBES_MAX: usize = 8;

/// What it is, or what is wrong with it.
pub type Told = Result<String, String>;

pub struct Externals {
    watched: Mutex<HashMap<Key, Watched>>,
    permits: Arc<Semaphore>,
    wake: Wake,
}

struct Watched {
    redis: Arc<Redis>,
    told: Arc<Mutex<Option<Told>>>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Externals {
    /// With so many probes at a time.
    pub fn new(wake: Wake, probes: usize) -> Self {
        Self {
            watched: Mutex::default(),
            permits: Arc::new(Semaphore::new(probes)),
            wake,
        }
    }

    /// Begins to look at it, unless this very one is looked at.
    pub fn look(&self, key: &Key, redis: &Arc<Redis>) {
        let mut watched = lock(&self.watched);
        if watched.get(key).is_some_and(|known| known.redis == *redis) {
            return;
        }
        let told = Arc::default();
        let task = tokio::spawn(watch(
            Arc::clone(redis),
            Arc::clone(&told),
            Arc::clone(&self.permits),
            Arc::clone(&self.wake),
            key.clone(),
        ));
        let new = Watched {
            redis: Arc::clone(redis),
            told,
            task: task.abort_handle(),
        };
        watched.insert(key.clone(), new);
    }

    pub fn forget(&self, key: &Key) {
        lock(&self.watched).remove(key);
    }

    pub fn forget_all(&self) {
        lock(&self.watched).clear();
    }

    /// `None`: it has not answered yet, nor failed to.
    pub fn told(&self, key: &Key) -> Option<Told> {
        let watched = lock(&self.watched);
        watched.get(key).and_then(|known| lock(&known.told).clone())
    }
}

async fn watch(
    redis: Arc<Redis>,
    told: Arc<Mutex<Option<Told>>>,
    permits: Arc<Semaphore>,
    wake: Wake,
    key: Key,
) {
    loop {
        let answer = {
            let _permit = permits.acquire().await;
            probe(&redis).await
        };
        let pause = if answer.is_ok() {
            INTERVAL
        } else {
            INTERVAL_FAILED
        };
        let former = lock(&told).replace(answer.clone());
        if former.as_ref() != Some(&answer) {
            wake(key.clone());
        }
        sleep(pause).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
