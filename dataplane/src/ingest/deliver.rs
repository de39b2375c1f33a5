//! Sends what waits to the upstreams, fairly and at the rate they can take.
//!
//! One thread does it all, and nothing of it is shared: `scheduler` decides what is sent next (pure, with `lane`,
//! `fair` and `gcra`), `engine` carries it out. Entries come from the queue by need; an entry leaves its lane when its
//! verdict is recorded, so that whatever dies, nothing accepted is lost and order per key stays. Calls that need the
//! upstream's own answer go the same way, before what waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sluice_crds::config::GatewayConfig;
use sluice_proto::fleet::Version;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::engine::Engine;
pub use self::hold::{Held, Hold};
pub use self::scheduler::{CapReport, CapState, Figures, LaneReport, UpstreamReport, Waiting};
use super::metrics::Metrics;
use super::proxy::Call;
use crate::fleet::shares::Rates;
use crate::store::queue::Queue;

mod engine;
mod fair;
pub mod gcra;
pub mod hold;
mod lane;
mod minute;
mod outgoing;
mod scheduler;

/// Questions and orders to the thread that wait: more than this many askers is no use of an admin port.
const COMMANDS_MAX: usize = 64;
/// A thread that does not answer in this time is in trouble, and the asker has waited long enough.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// The manager is told every second, and rather of what was than late.
const FIGURES_TIMEOUT: Duration = Duration::from_millis(200);

pub struct DeliverParts {
    pub config: watch::Receiver<Arc<GatewayConfig>>,
    pub queue: Arc<dyn Queue>,
    pub calls: mpsc::Receiver<Call>,
    pub metrics: Arc<Metrics>,
    pub fleet: FleetLink,
}

/// What is shared with other data planes, as the manager says.
pub struct FleetLink {
    pub rates: watch::Receiver<Arc<Rates>>,
    /// The directive whose rates are in use.
    pub applied: watch::Sender<Version>,
    /// Nothing is sent any more, and what was sent is paid for by then.
    pub ended: watch::Sender<Option<std::time::Instant>>,
}

impl FleetLink {
    /// Nothing is shared.
    pub fn alone() -> Self {
        Self {
            rates: watch::channel(Arc::default()).1,
            applied: watch::Sender::default(),
            ended: watch::Sender::default(),
        }
    }
}

/// What waits, why it is not being sent, and how the upstreams are.
#[derive(Debug, Clone)]
pub struct Report {
    pub lanes: Vec<LaneReport>,
    pub upstreams: Vec<UpstreamReport>,
    pub caps: Vec<CapReport>,
    /// The instants in it are relative to this one.
    pub at: std::time::Instant,
}

enum Command {
    Report(oneshot::Sender<Report>),
    Figures(oneshot::Sender<Figures>),
    Stop {
        deadline: Instant,
        done: oneshot::Sender<usize>,
    },
}

pub struct Deliver;

/// Speaks to the delivery thread. When the last one is gone, the thread ends without waiting for answers.
#[derive(Clone)]
pub struct DeliverHandle(mpsc::Sender<Command>);

impl Deliver {
    /// Starts the thread.
    pub fn start(parts: DeliverParts) -> io::Result<DeliverHandle> {
        let (commands, orders) = mpsc::channel(COMMANDS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("deliver-blocking")
            .build()?;
        std::thread::Builder::new()
            .name("deliver".to_owned())
            .spawn(move || {
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, Engine::new(parts, orders).run());
                drop(local);
                // A name that is being looked up may take its time.
                runtime.shutdown_background();
            })?;
        Ok(DeliverHandle(commands))
    }
}

impl DeliverHandle {
    /// `None`: the thread does not answer.
    pub async fn report(&self) -> Option<Report> {
        let asked = async {
            let (reply, answer) = oneshot::channel();
            self.0.send(Command::Report(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(REPORT_TIMEOUT, asked).await.ok()?
    }

    /// For the manager. `None`: the thread does not answer, or has no time.
    pub async fn figures(&self) -> Option<Figures> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Command::Figures(reply)).ok()?;
        tokio::time::timeout(FIGURES_TIMEOUT, answer)
            .await
            .ok()?
            .ok()
    }

    /// Sends nothing new, waits for answers until the deadline, records what came, and ends the thread. Returns how
    /// many answers were not waited for: their entries are delivered again by the next process.
    pub async fn stop(&self, deadline: Instant) -> usize {
        let (done, answer) = oneshot::channel();
        if self.0.send(Command::Stop { deadline, done }).await.is_err() {
            return 0;
        }
        answer.await.unwrap_or(0)
    }

    /// Nothing is sent any more.
    pub fn has_ended(&self) -> bool {
        self.0.is_closed()
    }

    /// Returns when the thread has ended, for whatever reason.
    pub async fn ended(&self) {
        self.0.closed().await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
