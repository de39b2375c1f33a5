//! Contracts between processes: the client protocol of the relay, as generated from `client.proto`, and what data planes and
//! their manager tell each other (`fleet.proto`), generated and as plain types.
//!
//! `bytes` fields are [`bytes::Bytes`], so decoding a message from `Bytes` shares its payloads with the frame.

pub mod fleet;

/// Messages between clients and the relay.
pub mod client {
    #![allow(unreachable_pub, clippy::all, clippy::pedantic)]
    include!(concat!(
        env!("OUT_DIR"),
        "/centrifugal.centrifuge.protocol.rs"
    ));
}

/// Messages between data planes and the manager, and the gRPC service of both sides.
pub mod fleet_wire {
    #![allow(unreachable_pub, clippy::all, clippy::pedantic)]
    include!(concat!(env!("OUT_DIR"), "/sluice.fleet.v1.rs"));
}
