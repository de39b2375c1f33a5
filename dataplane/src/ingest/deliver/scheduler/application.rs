//! A tenant as the scheduler knows it: its cap, its weight, its lanes.

use std::sync::Arc;
use std::time::Instant;

use sluice_crds::config::Delivery;

use super::cap::Cap;
use super::{GroupId, LaneId};

pub(super) struct Application {
    /// Empty: requests of unknown keys.
    pub(super) name: Arc<str>,
    pub(super) weight: u32,
    pub(super) paused: bool,
    pub(super) cap: Option<Cap>,
    pub(super) delivery: Arc<Delivery>,
    pub(super) group: GroupId,
    pub(super) lanes: Vec<LaneId>,
    /// When an upstream last took a request for good.
    pub(super) succeeded_at: Option<Instant>,
    /// In the configuration. What an application left behind when it was removed is delivered by the gateway's rules.
    pub(super) configured: bool,
}
