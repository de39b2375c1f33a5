//! Why something that waits is not being sent: one word for metrics, the admin port and people.

use std::time::Instant;

/// The first thing that stands in the way. Later checks were not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hold {
    /// The application's requests per minute.
    Cap,
    /// The gateway's requests per minute.
    GlobalCap,
    /// The rate that the upstream was found to take.
    Rate,
    /// As many requests are in flight as may be.
    InFlight,
    /// The upstream failed and is given a rest.
    Breaker,
    /// The upstream asked for a pause.
    RetryAfter,
    /// The user paused the application.
    Paused,
    /// The upstream says that it does not take the application's requests.
    UpstreamPaused,
    /// Each entry that is known waits for an earlier one with its key.
    OrderBlocked,
    /// What could be sent has failed and waits to be tried again.
    Backoff,
    /// No upstream passes its health checks.
    UnhealthyUpstream,
    /// What was delivered cannot be recorded, so that more would be sent twice after a crash.
    Store,
    /// The process is about to end.
    Draining,
}

impl Hold {
    pub const ALL: [Self; 13] = [
        Self::Cap,
        Self::GlobalCap,
        Self::Rate,
        Self::InFlight,
        Self::Breaker,
        Self::RetryAfter,
        Self::Paused,
        Self::UpstreamPaused,
        Self::OrderBlocked,
        Self::Backoff,
        Self::UnhealthyUpstream,
        Self::Store,
        Self::Draining,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cap => "Cap",
            Self::GlobalCap => "GlobalCap",
            Self::Rate => "Rate",
            Self::InFlight => "InFlight",
            Self::Breaker => "Breaker",
            Self::RetryAfter => "RetryAfter",
            Self::Paused => "Paused",
            Self::UpstreamPaused => "UpstreamPaused",
            Self::OrderBlocked => "OrderBlocked",
            Self::Backoff => "Backoff",
            Self::UnhealthyUpstream => "UnhealthyUpstream",
            Self::Store => "Store",
            Self::Draining => "Draining",
        }
    }
}

/// A hold, and when to look again; `None`: when something that is under way ends, or the configuration changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub why: Hold,
    pub until: Option<Instant>,
}
