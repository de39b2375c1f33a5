//! The pods' scripts: fixed texts below lines that say what differs from gateway to gateway.
//!
//! They need a shell and the server's own programs, of Redis or of Valkey, nothing else. Nothing secret is on a
//! command line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{NODE_TIMEOUT_MS, Settings};
use crate::redis::topology::Shape;

/// Suspicion, agreement, election and the first words of the new primary.
const ELECTION_S: u32 = 3 * NODE_TIMEOUT_MS / 1000;

const CLI: &str = include_str!("../scripts/cli.sh");
const SCRIPTS: [(&str, &str); 5] = [
    ("entry.sh", include_str!("../scripts/entry.sh")),
    ("startup.sh", include_str!("../scripts/alive.sh")),
    ("liveness.sh", include_str!("../scripts/alive.sh")),
    ("readiness.sh", include_str!("../scripts/readiness.sh")),
    ("pre-stop.sh", include_str!("../scripts/pre-stop.sh")),
];

pub(super) fn all(settings: &Settings) -> BTreeMap<&'static str, String> {
    let head = head(settings);
    let whole = |text| format!("#!/bin/sh\n{head}\n{CLI}{text}");
    let scripts = SCRIPTS.iter().map(|(name, text)| (*name, whole(text)));
    scripts.collect()
}

fn head(settings: &Settings) -> String {
    let flag = |is: bool| if is { "1" } else { "" };
    let paths = &settings.paths;
    let values = [
        ("config_dir", paths.config.as_str()),
        ("secret_dir", &paths.secret),
        ("tls_dir", &paths.tls),
        ("data_dir", &paths.data),
        ("host_suffix", &settings.host_suffix),
        (
            "cluster",
            flag(matches!(settings.shape, Shape::Cluster { .. })),
        ),
        ("persistent", flag(settings.is_persistent)),
        ("tls", flag(settings.is_tls)),
    ];
    let mut head = format!("port={}\nelection_s={ELECTION_S}\n", settings.port);
    for (name, value) in values {
        // Writing to a string does not fail.
        let _ = writeln!(head, "{name}='{}'", value.replace('\'', r"'\''"));
    }
    head
}
