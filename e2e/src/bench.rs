//! The relay benchmark: starts each server present, lets the load generator at it, and compares what a CPU second of
//! the server is worth.
//!
//! Figures of a shared machine change from minute to minute. So every case runs against all servers and the kernel's
//! limit (`bench/floor.c`) one after the other, and the ratios of that round are what counts. Servers run one at a
//! time, each case gets a fresh one, and all of them listen on 127.0.0.1 only.
//!
//! `crash`, `shared-idle` and `published` are about several data planes of Sluice on one Redis Cluster.

pub mod connections;
pub mod crash;
pub mod fanout;
pub mod fleet;
pub mod floor;
pub mod overload;
pub mod process;
pub mod redis;
pub mod run;
pub mod server;
pub mod table;
pub mod workers;
