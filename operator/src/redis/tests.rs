//! The planner against a model of a cluster with faults, and all of it against real servers.

mod decisions;
mod model;
mod model_faults;
mod real;
mod servers;
