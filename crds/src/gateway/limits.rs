//! What clients may use, and how their connections are watched.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DURATION;

/// What one client, one account and one data plane may use.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.queueBytesPerClient >= self.messageBytes",
    "message": "queueBytesPerClient must hold at least one message of messageBytes"
}]))]
pub struct Limits {
    /// Largest message from a client, in bytes: a number from 1024 to 16777216, default 65536.
    #[serde(default = "message_bytes")]
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub message_bytes: i32,
    /// Bytes waiting to be sent to one client before it is closed as slow, not less than messageBytes; a client that takes bytes all the while may have four times as much for a second. A number from 1024 to 1073741824, default 1048576.
    #[serde(default = "queue_bytes_per_client")]
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub queue_bytes_per_client: i32,
    /// Channels one client may be subscribed to: a number from 1 to 100000, default 128.
    #[serde(default = "channels_per_client")]
    #[schemars(range(min = 1, max = 100_000))]
    pub channels_per_client: i32,
    /// Longest channel name, in bytes: a number from 1 to 1024, default 255.
    #[serde(default = "channel_name_bytes")]
    #[schemars(range(min = 1, max = 1024))]
    pub channel_name_bytes: i32,
    /// Connections per data plane: a number from 1 to 10000000, unset: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections: Option<i32>,
    /// Connections of one account: a number from 1 to 10000000, unset: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections_per_account: Option<i32>,
    /// New connections per second and data plane: a number from 1 to 1000000, unset: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_second: Option<i32>,
    /// Publish, send and rpc commands of one client per second; above it they get an error: a number from 1 to 1000000, unset: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub messages_per_second_per_client: Option<i32>,
    /// All commands of one client per second; above it the client is closed: a number from 1 to 1000000, unset: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub commands_per_second_per_client: Option<i32>,
    /// Publish, send and rpc commands per second of all clients of one account; above it they get an error: a number from 1 to 1000000, unset: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub messages_per_second_per_account: Option<i32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: message_bytes(),
            queue_bytes_per_client: queue_bytes_per_client(),
            channels_per_client: channels_per_client(),
            channel_name_bytes: channel_name_bytes(),
            connections: None,
            connections_per_account: None,
            connections_per_second: None,
            messages_per_second_per_client: None,
            commands_per_second_per_client: None,
            messages_per_second_per_account: None,
        }
    }
}

/// Pings from server to client.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.timeout) < duration(self.interval)",
    "message": "timeout must be shorter than interval"
}]))]
pub struct Heartbeat {
    /// Time between pings: a duration from 1s to 10m, default 25s.
    #[serde(default = "interval")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('10m')",
        "message": "must be from 1s to 10m"
    }]))]
    pub interval: String,
    /// How long a client may owe a pong before it is closed: a duration from 100ms to 5m, default 8s, shorter than interval.
    #[serde(default = "timeout")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('100ms') && duration(self) <= duration('5m')",
        "message": "must be from 100ms to 5m"
    }]))]
    pub timeout: String,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            interval: interval(),
            timeout: timeout(),
        }
    }
}

fn message_bytes() -> i32 {
    65_536
}

fn queue_bytes_per_client() -> i32 {
    1_048_576
}

fn channels_per_client() -> i32 {
    128
}

fn channel_name_bytes() -> i32 {
    255
}

fn interval() -> String {
    "25s".to_owned()
}

fn timeout() -> String {
    "8s".to_owned()
}
