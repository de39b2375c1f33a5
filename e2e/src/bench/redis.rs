//! What Redis servers have done, as they count it themselves (INFO), and Redis for a benchmark to use.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::ValueEnum;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::redis::{Options, RedisCluster, RedisServer};

/// Which servers a benchmark puts its gateways on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One server.
    Single,
    /// Three primaries, each with a replica.
    Cluster,
}

/// Servers that run.
pub enum Servers {
    One(RedisServer),
    Many(RedisCluster),
}

impl Servers {
    pub async fn start(mode: Mode) -> Result<Self> {
        Ok(match mode {
            Mode::Single => Self::One(RedisServer::start(Options::default()).await?),
            Mode::Cluster => Self::Many(RedisCluster::start(3, 1, Options::default()).await?),
        })
    }

    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Many(cluster) => cluster.url(),
        }
    }

    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Many(cluster) => cluster.nodes(),
        }
    }
}

/// Counters of all nodes together, replicas too.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Usage {
    /// Commands that arrived, those of a replication stream too, without the ones that ask for these counters.
    pub commands: u64,
    pub cpu_seconds: f64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Of the data set and all connections, at the moment.
    pub used_kb: u64,
    /// Calls by command, within scripts too.
    pub calls: BTreeMap<String, u64>,
}

/// Commands of `RedisServer::call` itself.
const OWN: [&str; 3] = ["auth", "info", "hello"];

/// Asks all nodes.
pub async fn usage(nodes: &[RedisServer]) -> Result<Usage> {
    let texts = try_join_all(nodes.iter().map(|node| node.call(&["INFO", "all"]))).await?;
    let mut sum = Usage::default();
    for text in texts {
        sum.add(&text.to_string());
    }
    Ok(sum)
}

impl Usage {
    fn add(&mut self, info: &str) {
        for line in info.lines() {
            let Some((name, value)) = line.trim_end().split_once(':') else {
                continue;
            };
            let count = || value.parse::<u64>().unwrap_or(0);
            match name {
                "total_commands_processed" => self.commands += count(),
                "total_net_input_bytes" => self.bytes_in += count(),
                "total_net_output_bytes" => self.bytes_out += count(),
                "used_memory" => self.used_kb += count() / 1024,
                "used_cpu_user" | "used_cpu_sys" => {
                    self.cpu_seconds += value.parse::<f64>().unwrap_or(0.0);
                }
                _ => self.add_calls(name, value),
            }
        }
    }

    /// `cmdstat_publish:calls=21,usec=...`
    fn add_calls(&mut self, name: &str, value: &str) {
        let calls = value
            .strip_prefix("calls=")
            .and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
        let (Some(command), Some(calls)) = (name.strip_prefix("cmdstat_"), calls) else {
            return;
        };
        if OWN.contains(&command) {
            self.commands = self.commands.saturating_sub(calls);
        } else {
            *self.calls.entry(command.to_owned()).or_default() += calls;
        }
    }

    /// What came since `before`; `used_kb` as it is now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let calls = self.calls.iter().filter_map(|(command, calls)| {
            let more = calls - before.calls.get(command).unwrap_or(&0);
            (more > 0).then(|| (command.clone(), more))
        });
        Self {
            commands: self.commands - before.commands,
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            bytes_in: self.bytes_in - before.bytes_in,
            bytes_out: self.bytes_out - before.bytes_out,
            used_kb: self.used_kb,
            calls: calls.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn counters_of_nodes_add_up_without_the_question_itself() {
        let info = "# CPU\r\nused_cpu_sys:0.5\r\nused_cpu_user:1.0\r\ntotal_commands_processed:100\r\n\
                    total_net_input_bytes:7\r\nused_memory:4096\r\n\
                    cmdstat_info:calls=2,usec=1\r\ncmdstat_evalsha:calls=30,usec=1\r\n";
        let mut usage = Usage::default();
        usage.add(info);
        let before = usage.clone();
        usage.add(info);
        assert_eq!((usage.commands, usage.used_kb), (196, 8));
        let since = usage.since(&before);
        assert_eq!(
            (since.commands, since.calls["evalsha"], since.bytes_in),
            (98, 30, 7)
        );
    }
}
