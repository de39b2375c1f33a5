//! Many devices that send requests over keep-alive connections at set rates, from one thread of this process.
//!
//! Open loop: when each request is due is known before the first one goes out, and its time counts from then, whatever
//! held it up. A device has one request under way at a time and numbers its requests from 1, as the oracle of
//! `upstream` wants it. Requests are prepared once and patched; answers are recognised, not parsed.

pub mod connection;
pub mod outcome;
pub mod schedule;
pub mod shape;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

use self::connection::Connection;
use self::outcome::Outcome;
use self::schedule::{Phase, Schedule};
use self::shape::Shape;
use crate::load::clock::now_ns;

/// What a device does when it is refused or gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Sends the same again after this time, until it is taken.
    Retry(Duration),
    /// Leaves it and goes on with its next.
    GoOn,
}

/// What is sent, where and when.
#[derive(Clone, Debug)]
pub struct Plan {
    pub server: SocketAddr,
    pub shape: Shape,
    pub phases: Vec<Phase>,
    pub connections: usize,
    /// Rounded up to a multiple of the connections.
    pub devices: usize,
    /// Number of the first device: keeps devices of several loads apart.
    pub first_device: usize,
    pub on_failure: OnFailure,
    /// A retry that has not succeeded so long after the last phase is given up.
    pub grace: Duration,
}

impl Plan {
    /// Small requests of an application, 64 connections, ten devices on each.
    #[must_use]
    pub fn new(server: SocketAddr, app: &str, phases: Vec<Phase>) -> Self {
        Self {
            server,
            shape: Shape::get(app),
            phases,
            connections: 64,
            devices: 640,
            first_device: 0,
            on_failure: OnFailure::Retry(Duration::from_millis(200)),
            grace: Duration::from_secs(30),
        }
    }
}

/// A load under way.
pub struct Load {
    thread: Option<JoinHandle<Result<Outcome>>>,
    acked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Begins at once.
    pub fn start(plan: Plan) -> Result<Self> {
        ensure!(plan.connections > 0, "a load needs connections");
        let acked = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (counter, flag) = (Arc::clone(&acked), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || run(plan, counter, flag))?;
        Ok(Self {
            thread: Some(thread),
            acked,
            stop,
        })
    }

    /// Requests answered with success so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Ends it early: nothing new is sent, what is under way is waited for.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until all was sent and answered.
    pub async fn outcome(mut self) -> Result<Outcome> {
        let thread = self.thread.take().ok_or_else(|| anyhow!("asked twice"))?;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.map_err(|_| anyhow!("the load's thread panicked"))?
    }

    /// The same without a runtime.
    pub fn join(mut self) -> Result<Outcome> {
        let thread = self.thread.take().ok_or_else(|| anyhow!("asked twice"))?;
        thread
            .join()
            .map_err(|_| anyhow!("the load's thread panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(plan: Plan, acked: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Result<Outcome> {
    let per_connection = plan.devices.div_ceil(plan.connections).max(1);
    let devices = per_connection * plan.connections;
    let outcome = Rc::new(RefCell::new(Outcome::new(plan.first_device, devices)));
    let schedule = Rc::new(Schedule::new(&plan.phases));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let began = Instant::now();
        outcome.borrow_mut().began_ns = now_ns();
        let tasks: Vec<_> = (0..plan.connections)
            .map(|index| {
                let connection = Connection::new(&plan, index, devices, began);
                let (schedule, outcome) = (Rc::clone(&schedule), Rc::clone(&outcome));
                let (acked, stop) = (Arc::clone(&acked), Arc::clone(&stop));
                spawn_local(connection.run(schedule, outcome, acked, stop))
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        outcome.borrow_mut().ended_ns = now_ns();
        anyhow::Ok(())
    })?;
    drop(local);
    Ok(outcome.take())
}
