//! Workers: take Gateways from the queue, several at a time, and reconcile them while this operator leads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::error;

use crate::gateway::Reconciler;
use crate::limits::{CONCURRENT_PASSES, GATHERING};
use crate::metrics::Metrics;
use crate::queue::{Outcome, Queue};
use crate::shelf::Key;
use crate::world::Change;

/// The queue and who waits for it.
#[derive(Default)]
pub struct Work {
    queue: Mutex<Queue<Key>>,
    added: Notify,
}

impl Work {
    /// Asks for a look at a Gateway, soon.
    pub fn add(&self, key: Key) {
        self.lock().add(key, Instant::now() + GATHERING);
        self.added.notify_one();
    }

    /// Asks for looks at the Gateways that a change concerns.
    pub fn changed(&self, reconciler: &Reconciler, change: Change) {
        match change {
            Change::Gateway(key) => self.add(key),
            Change::Reference(reference) => {
                for key in reconciler.referring(&reference) {
                    self.add(key);
                }
            }
            Change::Namespace(name) => {
                let applications = reconciler.world.applications.of_namespace(&name);
                for key in applications.iter().filter_map(|one| one.gateway()) {
                    self.add(key);
                }
            }
        }
    }

    /// Asks for looks at all Gateways, and at those that Applications name.
    pub fn all(&self, reconciler: &Reconciler) {
        for (key, _) in reconciler.world.gateways.all() {
            self.add(key);
        }
        for (_, application) in reconciler.world.applications.all() {
            if let Some(key) = application.gateway() {
                self.add(key);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue<Key>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next key that is due.
    async fn take(&self) -> Key {
        loop {
            let (taken, next) = {
                let mut queue = self.lock();
                (queue.take(Instant::now()), queue.next_at())
            };
            if let Some(key) = taken {
                return key;
            }
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.added.notified() => {}
                () = due => {}
            }
        }
    }
}

/// Works until `stop` becomes true, and returns when nothing is under way any more.
pub async fn run(
    work: Arc<Work>,
    reconciler: Arc<Reconciler>,
    mut leading: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
    metrics: Metrics,
) {
    let mut passes: JoinSet<()> = JoinSet::new();
    let mut led = false;
    loop {
        let leads = *leading.borrow_and_update();
        metrics.leading(leads);
        // Of those that do not lead nobody waits for anything.
        let waiting = work.lock().overdue(Instant::now());
        metrics.waiting(if leads { waiting } else { 0 });
        if leads && !led {
            // Another operator may have left anything half done.
            reconciler.minder.forget_all();
            work.all(&reconciler);
        }
        if leads != led {
            reconciler.externals.forget_all();
        }
        led = leads;
        let may_begin = leads && passes.len() < CONCURRENT_PASSES;
        tokio::select! {
            stopped = stop.wait_for(|stop| *stop) => {
                drop(stopped);
                break;
            }
            changed = leading.changed() => if changed.is_err() { break },
            Some(ended) = passes.join_next() => {
                if let Err(failure) = ended {
                    error!(%failure, "a pass panicked");
                }
            }
            key = work.take(), if may_begin => {
                passes.spawn(pass(key, Arc::clone(&work), Arc::clone(&reconciler), metrics.clone()));
            }
        }
    }
    while passes.join_next().await.is_some() {}
}

async fn pass(key: Key, work: Arc<Work>, reconciler: Arc<Reconciler>, metrics: Metrics) {
    /// Gives the key back even when the pass panics.
    struct Taken<'a> {
        key: Option<Key>,
        work: &'a Work,
        outcome: Outcome,
    }
    impl Drop for Taken<'_> {
        fn drop(&mut self) {
            if let Some(key) = self.key.take() {
                self.work.lock().done(key, self.outcome, Instant::now());
                self.work.added.notify_one();
            }
        }
    }
    let begun = Instant::now();
    let mut taken = Taken {
        key: Some(key.clone()),
        work: &work,
        outcome: Outcome::Failed,
    };
    taken.outcome = reconciler.reconcile(&key).await;
    metrics.passed(taken.outcome, begun.elapsed());
}
