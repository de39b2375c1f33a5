//! The relay benchmark: starts each server present, lets the load generator at it, and compares what a CPU second of
//! the server is worth.
//!
//! Figures of a shared machine change from minute to minute. So every case runs against all servers and the kernel's
//! limit (`bench/floor.c`) one after the other, and the ratios of that round are what counts. Servers run one at a
//! time, each case gets a fresh one, and all of them listen on 127.0.0.1 only.

pub mod connections;
pub mod fanout;
pub mod floor;
pub mod overload;
pub mod process;
pub mod run;
pub mod server;
pub mod table;
pub mod workers;
