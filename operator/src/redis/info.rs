//! What a server says of itself: the sections of `INFO` and of `CLUSTER INFO`.
//!
//! Pure. What is missing or cannot be read is as if the server had nothing to say on it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::observe::{Attached, Follow, Role};

/// `name:value` lines.
#[derive(Debug, Default)]
pub(super) struct Info<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            lines
                .filter_map(|line| line.trim_end().split_once(':'))
                .collect(),
        )
    }

    pub(super) fn text(&self, name: &str) -> &'a str {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == value
    }

    /// In all databases: a cluster has only the first.
    pub(super) fn keys(&self) -> u64 {
        let databases = self.0.iter().filter(|(name, _)| is_numbered(name, "db"));
        databases
            .filter_map(|(_, value)| field(value, "keys")?.parse::<u64>().ok())
            .fold(0, u64::saturating_add)
    }

    pub(super) fn role(&self) -> Role {
        if self.is("role", "slave") {
            return Role::Replica(Follow {
                host: self.text("master_host").parse().ok(),
                is_link_up: self.is("master_link_status", "up"),
                is_syncing: self.is("master_sync_in_progress", "1"),
                link_down_s: self.number("master_link_down_since_seconds"),
            });
        }
        let replicas = self.0.iter().filter(|(name, _)| is_numbered(name, "slave"));
        Role::Primary(
            replicas
                .filter_map(|(_, value)| parse_attached(value))
                .collect(),
        )
    }

    /// How much of the stream of writes this server has: a replica what it took in, a primary what it made.
    pub(super) fn offset(&self) -> u64 {
        let name = if self.is("role", "slave") {
            "slave_repl_offset"
        } else {
            "master_repl_offset"
        };
        self.number(name).unwrap_or_default()
    }
}

/// `ip=10.0.0.4,port=6379,state=online,offset=14,lag=0`
fn parse_attached(value: &str) -> Option<Attached> {
    Some(Attached {
        ip: field(value, "ip")?.parse::<IpAddr>().ok()?,
        is_online: field(value, "state") == Some("online"),
    })
}

fn field<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let fields = value.split(',').filter_map(|field| field.split_once('='));
    fields
        .into_iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn is_numbered(name: &str, word: &str) -> bool {
    let number = name.strip_prefix(word);
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_primary_names_its_replicas_and_its_keys() {
        let info = Info::parse(
            "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
             slave0:ip=10.0.0.4,port=6379,state=online,offset=14,lag=0\r\n\
             slave1:ip=fd00::4,port=6379,state=wait_bgsave,offset=0,lag=0\r\nslave_repl_offset:9\r\n\
             master_repl_offset:77\r\n# Keyspace\r\ndb0:keys=5,expires=0,avg_ttl=0\r\ndb3:keys=2,expires=0\r\n",
        );
        let Role::Primary(attached) = info.role() else {
            panic!("a primary")
        };
        assert_eq!(attached.len(), 2);
        assert!(attached[0].is_online && !attached[1].is_online);
        assert_eq!((info.offset(), info.keys()), (77, 7));
    }

    #[test]
    fn a_replica_says_how_its_link_is() {
        let info = Info::parse(
            "role:slave\r\nmaster_host:10.0.0.3\r\nmaster_link_status:down\r\nmaster_sync_in_progress:1\r\nslave_repl_offset:9\r\n\
             master_link_down_since_seconds:-1\r\nmaster_repl_offset:77\r\n",
        );
        let follow = Follow {
            host: Some(IpAddr::from([10, 0, 0, 3])),
            is_link_up: false,
            is_syncing: true,
            link_down_s: None,
        };
        assert_eq!(info.role(), Role::Replica(follow));
        assert_eq!((info.offset(), info.keys()), (9, 0));
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "(role:|slave|db|[0-9]{1,25}|:|=|,|keys=|ip=|\\PC|\n){0,60}") {
            let info = Info::parse(&text);
            info.role();
            info.keys();
            info.offset();
        }
    }
}
