//! A Countly-shaped upstream that is also the oracle of the ingest tests: it knows what it should have got.
//!
//! `sluice-upstream` is a process of its own. It answers as a Countly server does (checksums, the duplicate filter
//! against a user's last request, sessions, merges of devices), keeps a record of every request, and checks their order
//! by the parameter `seq`, which counts up per device. Its capacity and its failures are set on the command line and
//! changed by `POST /_control` while it runs. It never forgets a record before `POST /_reset`: runs are short.

pub mod analysis;
pub mod capacity;
pub mod checksum;
pub mod control;
pub mod handle;
pub mod incoming;
pub mod oracle;
pub mod parameters;
pub mod print;
pub mod record;
pub mod server;
pub mod settings;
pub mod state;
pub mod steps;
