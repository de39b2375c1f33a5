//! Sends what waits to the upstreams, fairly and at the rate they can take.

pub mod hold;

mod fair;
mod gcra;
mod lane;
mod scheduler;
