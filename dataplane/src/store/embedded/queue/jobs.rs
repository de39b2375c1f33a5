//! Threads that do for callers what may block, one thing after another.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::block::Unpacker;
use super::front::shutting_down;
use super::shared::Shared;
use crate::store::queue::QueueError;

type Job = Box<dyn FnOnce(&Shared, &mut Unpacker) + Send>;

/// The callers' end of a thread.
pub(super) struct Jobs(Mutex<Option<SyncSender<Job>>>);

pub(super) struct JobsReceiver(Receiver<Job>);

impl Jobs {
    /// At most so many wait.
    pub(super) fn new(waiting_max: usize) -> (Self, JobsReceiver) {
        let (sender, receiver) = sync_channel(waiting_max);
        (Self(Mutex::new(Some(sender))), JobsReceiver(receiver))
    }

    fn push(&self, job: Job) -> Result<(), QueueError> {
        let jobs = self.0.lock();
        let sender = jobs.as_ref().ok_or_else(shutting_down)?;
        let busy = || QueueError::Unavailable("too many requests to the queue at once".into());
        sender.try_send(job).map_err(|_| busy())
    }

    /// Has it done without waiting; not at all when too much is to be done.
    pub(super) fn hint(&self, job: impl FnOnce(&Shared, &mut Unpacker) + Send + 'static) {
        if self.push(Box::new(job)).is_err() {
            tracing::debug!("a look ahead into the queue was left out");
        }
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Shared, &mut Unpacker) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (sender, receiver) = oneshot::channel();
        self.push(Box::new(move |shared, unpacker| {
            // Whoever does not wait any more does not hear it.
            drop(sender.send(job(shared, unpacker)));
        }))?;
        receiver.await.map_err(|_| shutting_down())?
    }

    pub(super) fn close(&self) {
        self.0.lock().take();
    }
}

impl JobsReceiver {
    /// Until closed and all is done.
    pub(super) fn serve(self, shared: &Arc<Shared>, mut unpacker: Unpacker) {
        while let Ok(job) = self.0.recv() {
            job(shared, &mut unpacker);
        }
    }
}
