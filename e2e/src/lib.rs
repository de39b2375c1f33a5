//! What the end-to-end tests, the load generator and the benchmarks share: servers as binaries, clients of every kind.
//!
//! Nothing here links the data plane, and only `manager` the manager: servers are seen over their sockets, their logs and in `/proc`.

pub mod api;
pub mod bench;
pub mod bench_ingest;
pub mod bench_manager;
pub mod chart;
pub mod client;
pub mod cluster;
pub mod deployed;
pub mod fleet;
pub mod go_tool;
pub mod http;
pub mod http_load;
pub mod httpbin;
pub mod ingest;
pub mod load;
pub mod manager;
pub mod manifest;
pub mod metrics_table;
pub mod openapi;
pub mod operator;
pub mod page;
pub mod ports;
pub mod prepare;
pub mod readme;
pub mod redis;
pub mod sdk;
pub mod sluice;
pub mod tap;
pub mod timing;
pub mod tls;
pub mod token;
pub mod upstream;
