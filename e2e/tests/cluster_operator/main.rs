//! The operator beside a real Kubernetes: each test has a namespace of its own, and operators that see no other.
//!
//! They wait more than they work, so they are one program whose tests run side by side.

mod applications;
mod deletion;
mod last_good;
mod leader;
mod lifecycle;
mod specs;
mod wrong;
