//! What the end-to-end tests, the load generator and the benchmarks share.
//!
//! Nothing here links the data plane: the servers are seen as binaries, over their sockets and in `/proc`.

pub mod bench;
pub mod load;
