//! Users of the managed Redis and what each may do, with hashed passwords.
//!
//! Three users, and a `default` that nobody can be: `operator` (looks after the cluster, no access to keys), `dataplane` (keys, nothing
//! of administration), `replication` (streams the data, nothing else). The password of `replication` is derived for
//! each shard, so that a replica that finds a server of another shard at its primary's old address copies nothing
//! from it.

use std::collections::BTreeMap;
use std::fmt;

use ring::digest::{SHA256, digest};

/// What the data planes need; the README names it for Redis that others run.
const DATA_PLANE: &str = "~sluice:* resetchannels &sluice:* -@all +@read +@write +@pubsub +@scripting +@connection \
     +@transaction +time +info +wait +config|get +cluster|nodes";
/// What `observe` and `execute` send, the client library's greeting, probes and the stop script.
const OPERATOR: &str = "resetkeys resetchannels -@all +@connection +info +role +dbsize +cluster \
     +acl|getuser +acl|setuser +config|get";
/// Nobody logs in as it: it is off and has no password. Its rights are those with which servers load their append-only
/// file, in which a script's writes are a transaction; of one that may not do all it contains, nothing is loaded, and the
/// server starts all the same, without acknowledged data (redis/redis#14541, valkey-io/valkey#3983).
const DEFAULT: &str = "off resetpass ~* &* +@all";
const REPLICATION: &str = "resetkeys resetchannels -@all +ping +psync +replconf";

/// As generated for one gateway.
#[derive(Clone)]
pub struct Passwords {
    pub operator: String,
    pub data_plane: String,
    pub replication: String,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords(..)")
    }
}

/// The files of one shard's Secret by name: `users.acl`, `users-sealed.acl` (the same with `replication` off),
/// `replication.conf` and `operator-password`.
#[must_use]
pub fn secret_files(passwords: &Passwords, shard: u32) -> BTreeMap<&'static str, String> {
    let replication = hex_sha256(&format!("{}/shard/{shard}", passwords.replication));
    let acl = |switch: &str| {
        let user = |name: &str, switch: &str, password: &str, rules: &str| {
            format!("user {name} {switch} #{} {rules}\n", hex_sha256(password))
        };
        [
            format!("user default {DEFAULT}\n"),
            user("operator", "on", &passwords.operator, OPERATOR),
            user("dataplane", "on", &passwords.data_plane, DATA_PLANE),
            user("replication", switch, &replication, REPLICATION),
        ]
        .concat()
    };
    BTreeMap::from([
        ("users.acl", acl("on")),
        ("users-sealed.acl", acl("off")),
        (
            "replication.conf",
            format!("masteruser replication\nmasterauth {replication}\n"),
        ),
        ("operator-password", format!("{}\n", passwords.operator)),
    ])
}

fn hex_sha256(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
