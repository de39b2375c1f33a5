//! Finds, shows, replays and discards requests, for the admin port and `sluice requests`.
