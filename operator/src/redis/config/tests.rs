//! Golden files, and what must not be in them. That servers and shells take them, tests with real servers show.

use std::process::Command;

use super::*;

fn settings() -> Settings {
    Settings {
        shape: Shape::Cluster {
            shards: 3,
            replicas: 1,
        },
        is_persistent: true,
        memory_limit_bytes: Some(1 << 30),
        is_tls: true,
        needs_replica_to_write: true,
        port: PORT,
        host_suffix: ".gw-redis.shop.svc".to_owned(),
        paths: Paths::default(),
    }
}

fn passwords() -> Passwords {
    Passwords {
        operator: "clear-operator".to_owned(),
        data_plane: "clear-dataplane".to_owned(),
        replication: "clear-replication".to_owned(),
    }
}

#[test]
fn a_persistent_cluster_with_tls() {
    assert_eq!(redis_conf(&settings()), include_str!("golden/cluster.conf"));
}

#[test]
fn a_single_server_in_memory() {
    let settings = Settings {
        shape: Shape::Standalone,
        is_persistent: false,
        memory_limit_bytes: None,
        is_tls: false,
        ..settings()
    };
    assert_eq!(redis_conf(&settings), include_str!("golden/memory.conf"));
}

#[test]
fn users_have_hashed_passwords_and_a_replication_password_for_each_shard() {
    let files = secret_files(&passwords(), 0);
    assert_eq!(files["users.acl"], include_str!("golden/users.acl"));
    assert!(!files["users.acl"].contains("clear-"));
    let sealed = files["users.acl"].replace("user replication on", "user replication off");
    assert_eq!(files["users-sealed.acl"], sealed);
    let other = secret_files(&passwords(), 1);
    assert_ne!(files["users.acl"], other["users.acl"]);
    assert_ne!(files["replication.conf"], other["replication.conf"]);
    assert!(!format!("{:?}", passwords()).contains("clear"));
}

#[test]
fn scripts_say_what_differs_in_their_first_lines() {
    let files = files(&settings());
    assert_eq!(files.len(), 6);
    let entry = &files["entry.sh"];
    assert!(
        entry.starts_with(include_str!("golden/entry.head")),
        "{entry}"
    );
    let quoted = Settings {
        host_suffix: "it's".to_owned(),
        ..settings()
    };
    assert!(super::files(&quoted)["entry.sh"].contains(r"host_suffix='it'\''s'"));
}

#[test]
fn scripts_are_plain_shell() {
    for (name, text) in files(&settings()) {
        if name.ends_with(".sh") {
            let checked = Command::new("sh")
                .args(["-n", "-c", &text])
                .output()
                .unwrap();
            assert!(checked.status.success(), "{name}: {checked:?}");
        }
    }
}
