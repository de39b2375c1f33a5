//! The relay: long-lived client connections of accounts, their channels and messages.

pub mod channel;
pub mod history;
pub mod protocol;
