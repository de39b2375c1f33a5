//! Contracts between processes: the client protocol of the relay, as generated from `client.proto`.
//!
//! `bytes` fields are [`bytes::Bytes`], so decoding a message from `Bytes` shares its payloads with the frame.
//! Nothing here has behaviour; the relay turns these messages into its own types.

/// Messages between clients and the relay.
pub mod client {
    #![allow(unreachable_pub, clippy::all, clippy::pedantic)]
    include!(concat!(
        env!("OUT_DIR"),
        "/centrifugal.centrifuge.protocol.rs"
    ));
}
