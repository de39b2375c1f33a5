//! The relay: long-lived client connections of accounts, their channels and messages.

pub mod channel;
pub mod filter;
pub mod fossil;
pub mod protocol;
