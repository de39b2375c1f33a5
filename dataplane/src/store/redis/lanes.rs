//! Work of a partition in order: one batch is on its way at a time, and what comes meanwhile goes together in the next.
//!
//! Retries thus never change the order in which a partition's work is done, and the busier the partition, the fewer calls
//! a piece of work costs. Work is refused, not kept, when too much waits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Carries out one batch of a partition; tells the outcome to whoever gave the jobs. Must end in bounded time.
type CarryOut<J> =
    Box<dyn Fn(u16, Vec<J>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How much goes together, and how much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub batch_jobs: usize,
    /// One job goes whatever its size.
    pub batch_bytes: usize,
    /// Over all partitions, jobs on their way included.
    pub waiting_bytes: usize,
}

/// Too much waits already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

pub struct Lanes<J>(Arc<Inner<J>>);

struct Inner<J> {
    lanes: Vec<Mutex<Lane<J>>>,
    limits: Limits,
    waiting_bytes: AtomicUsize,
    runtime: Handle,
    carry_out: CarryOut<J>,
}

struct Lane<J> {
    waiting: VecDeque<(J, usize)>,
    /// A task takes from `waiting` until it is empty.
    is_running: bool,
}

impl<J: Send + 'static> Lanes<J> {
    pub fn new(partitions: u16, limits: Limits, runtime: Handle, carry_out: CarryOut<J>) -> Self {
        let lane = || {
            Mutex::new(Lane {
                waiting: VecDeque::new(),
                is_running: false,
            })
        };
        Self(Arc::new(Inner {
            lanes: (0..partitions).map(|_| lane()).collect(),
            limits,
            waiting_bytes: AtomicUsize::new(0),
            runtime,
            carry_out,
        }))
    }

    /// Puts the job behind the others of its partition.
    pub fn submit(&self, partition: u16, job: J, bytes: usize) -> Result<(), Full> {
        let inner = &self.0;
        let before = inner.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        // A job larger than all room gets through alone.
        if before > 0 && before.saturating_add(bytes) > inner.limits.waiting_bytes {
            inner.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Full);
        }
        let starts = {
            let mut lane = inner.lanes[usize::from(partition)].lock();
            lane.waiting.push_back((job, bytes));
            !std::mem::replace(&mut lane.is_running, true)
        };
        if starts {
            inner.runtime.spawn(Arc::clone(inner).run(partition));
        }
        Ok(())
    }
}

impl<J: Send + 'static> Inner<J> {
    async fn run(self: Arc<Self>, partition: u16) {
        while let Some((jobs, bytes)) = self.next(partition) {
            (self.carry_out)(partition, jobs).await;
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// `None`: nothing waits, and the next job starts a task.
    fn next(&self, partition: u16) -> Option<(Vec<J>, usize)> {
        let mut lane = self.lanes[usize::from(partition)].lock();
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while let Some((_, next_bytes)) = lane.waiting.front() {
            let full = jobs.len() >= self.limits.batch_jobs
                || bytes + next_bytes > self.limits.batch_bytes;
            if full && !jobs.is_empty() {
                break;
            }
            let (job, job_bytes) = lane.waiting.pop_front()?;
            jobs.push(job);
            bytes += job_bytes;
        }
        if jobs.is_empty() {
            lane.is_running = false;
            lane.waiting.shrink_to(self.limits.batch_jobs);
            return None;
        }
        Some((jobs, bytes))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const LIMITS: Limits = Limits {
        batch_jobs: 3,
        batch_bytes: 100,
        waiting_bytes: 200,
    };

    type Shown = mpsc::UnboundedReceiver<(Vec<u32>, oneshot::Sender<()>)>;

    /// Shows each batch, and waits for leave to finish it.
    fn watched() -> (Lanes<u32>, Shown) {
        let (show, shown) = mpsc::unbounded_channel();
        let carry_out: CarryOut<u32> = Box::new(move |_, jobs| {
            let (done, finished) = oneshot::channel();
            show.send((jobs, done)).unwrap();
            Box::pin(async move { finished.await.unwrap() })
        });
        (Lanes::new(2, LIMITS, Handle::current(), carry_out), shown)
    }

    #[tokio::test]
    async fn what_comes_meanwhile_goes_together_and_in_order() {
        let (lanes, mut shown) = watched();
        for job in 1..=5 {
            lanes.submit(0, job, 1).unwrap();
        }
        lanes.submit(1, 9, 1).unwrap();
        let mut batches = Vec::new();
        for _ in 0..3 {
            let (jobs, done) = shown.recv().await.unwrap();
            batches.push(jobs);
            done.send(()).unwrap();
        }
        batches.retain(|batch| *batch != [9]);
        let jobs: Vec<u32> = batches.concat();
        assert_eq!(jobs, [1, 2, 3, 4, 5]);
        assert!(batches.iter().all(|batch| batch.len() <= 3), "{batches:?}");
    }

    #[tokio::test]
    async fn bytes_are_bounded_but_one_job_always_gets_through() {
        let (lanes, mut shown) = watched();
        lanes.submit(0, 1, 1_000).unwrap();
        assert_eq!(lanes.submit(1, 2, 1), Err(Full));
        let (jobs, done) = shown.recv().await.unwrap();
        assert_eq!(jobs, [1]);
        done.send(()).unwrap();
        while lanes.submit(1, 2, 1).is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(shown.recv().await.unwrap().0, [2]);
    }

    #[tokio::test]
    async fn a_batch_ends_at_its_bytes() {
        let (lanes, mut shown) = watched();
        lanes.submit(0, 1, 1).unwrap();
        let (_, first_done) = shown.recv().await.unwrap();
        lanes.submit(0, 2, 60).unwrap();
        lanes.submit(0, 3, 60).unwrap();
        first_done.send(()).unwrap();
        let (jobs, _done) = shown.recv().await.unwrap();
        assert_eq!(jobs, [2]);
    }
}
