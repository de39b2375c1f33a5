//! Ingest: bursts of HTTP requests are validated, queued and answered at once, and delivered calmly.
//!
//! A request's way: the listener's worker hands it to `accept`, which reads what routing needs and appends an `entry`
//! to the store's `Queue`; the answer goes out when the queue holds it. One thread, `deliver`, claims entries lane by
//! lane, asks `limiter` and caps whether one may go now, sends it to an upstream, and `verdict` decides what becomes of
//! it. Accept and deliver meet only in the queue, and for calls that need the upstream's own answer, in `proxy`.

pub mod accept;
pub mod deliver;
pub mod entry;
pub mod limiter;
pub mod metrics;
pub mod proxy;
pub mod requests;
pub mod upstream;
pub mod verdict;
