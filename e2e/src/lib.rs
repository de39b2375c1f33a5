//! What the end-to-end tests, the load generator and the benchmarks share.
//!
//! Nothing here links the data plane: the servers are seen as binaries, over their sockets and in `/proc`.

pub mod bench;
pub mod load;
//! Helpers of the end-to-end tests: they see the built binaries, the protocol and the SDKs, never the crates inside.

pub mod api;
pub mod client;
pub mod http;
pub mod manifest;
pub mod sdk;
pub mod sluice;
pub mod token;
