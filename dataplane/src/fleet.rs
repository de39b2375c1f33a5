//! One of a fleet: tells the manager how this data plane is, and does what it says.
//!
//! `stream` keeps the connection, `report` collects and `reporter` puts together, `orders` decides what is in force (pure), `gate` and `shares`, and the
//! relay's `leave`, are how it takes effect: new clients, rates, clients that are here. Nothing waits for the manager: what it
//! said ends by itself where it has to, and without one everything is served on.

use std::sync::Arc;
use std::time::Instant;

use sluice_crds::config::GatewayConfig;
use sluice_proto::fleet::Version;
use tokio::sync::watch;

use self::shares::{Boot, Rates};
use crate::ingest::deliver::FleetLink;
use crate::relay::leave;

pub use self::gate::{Fence, Gate};
pub use self::report::IngestSide;
pub use self::reporter::{Reporter, Sides, Told};
pub use self::stream::{Member, Parts};

mod connect;
mod gate;
mod limits;
mod metrics;
mod orders;
mod past;
mod report;
mod reporter;
pub mod shares;
mod stream;

/// What is in force, on its way to those who keep to it.
pub struct Links {
    pub gate: Arc<Gate>,
    pub rates: watch::Sender<Arc<Rates>>,
    pub applied: watch::Sender<Version>,
    /// Delivery has ended, and what it sent is paid for by then.
    pub ended: watch::Sender<Option<Instant>>,
    pub leave: watch::Sender<leave::Wanted>,
}

impl Links {
    /// As it is before a manager was heard, or without one.
    pub fn new(has_manager: bool, config: &GatewayConfig) -> Self {
        let boot = has_manager.then(|| Boot {
            since: Instant::now(),
            data_planes_max: config.data_planes_max,
        });
        let rates = Rates {
            boot,
            ..Rates::default()
        };
        Self {
            gate: Arc::default(),
            rates: watch::Sender::new(Arc::new(rates)),
            applied: watch::Sender::default(),
            ended: watch::Sender::default(),
            leave: watch::Sender::default(),
        }
    }

    /// The side of delivery.
    pub fn delivery(&self) -> FleetLink {
        FleetLink {
            rates: self.rates.subscribe(),
            applied: self.applied.clone(),
            ended: self.ended.clone(),
        }
    }
}
