//! The load generator: many WebSocket clients in one cheap process.
//!
//! `sluice-load` is one worker process. It connects its clients, prints `{"ready":...}`, waits for `go` on
//! standard input, does what its mode says until its time is over (or `stop` comes), and prints one `Report` as JSON.
//! Reports of several workers add up, so an orchestrator (`bench`) gets past the descriptor limit of one process.
//!
//! The clients share the machine with the server they measure. So a worker is single-threaded, all its connections
//! share one read buffer, frames are prepared once and masked with a zero key, and replies are recognised, not parsed.

pub mod args;
pub mod client;
pub mod clock;
pub mod control;
pub mod dialect;
pub mod follow;
pub mod frame;
pub mod histogram;
pub mod hold;
pub mod pairs;
pub mod probe;
pub mod publish;
pub mod reconnect;
pub mod report;
pub mod storm;
pub mod worker;
