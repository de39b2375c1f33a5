//! Limits of the Redis store that users do not set, each with its reason.

use std::time::Duration;

/// A server that has not taken a connection and said hello by then is not used. Within one data center this takes
/// milliseconds; while it is waited for, its shard has no answer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
/// A command that got no answer by then ends its connection: the server is gone, stopped, or far too slow.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a command is tried again while no server can carry it out. A failover takes the cluster's node timeout and
/// about two seconds more; clients' SDKs give a command 5 s.
pub const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// Pause between two tries of a command.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Pauses between two tries to connect to one server: doubled from the first to the last.
pub const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often the cluster is asked for its shape.
pub const TOPOLOGY_INTERVAL: Duration = Duration::from_secs(1);
/// How soon it may be asked again when something did not answer.
pub const TOPOLOGY_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Servers asked at a time for the cluster's shape: one of them may be behind, another dead.
pub const TOPOLOGY_ASKED: usize = 3;
/// How long one of them may take.
pub const TOPOLOGY_TIMEOUT: Duration = Duration::from_millis(350);
/// Bytes of all commands that wait for their turn or for an answer, over all partitions: some seconds of traffic.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Partitions of channels: their streams, subscriptions and presence. Divides well among shards; few enough that a busy
/// partition's publications leave together.
pub const CHANNEL_PARTITIONS: u16 = 24;
/// Publications of one partition that go to the server together. Bounds how long one script holds the server: well below a
/// millisecond.
pub const PUBLISH_BATCH_JOBS: usize = 64;
/// And their bytes.
pub const PUBLISH_BATCH_BYTES: usize = 256 << 10;
/// How long a write waits for a replica, on a connection of its own. Well below [`COMMAND_TIMEOUT`], which would cut that
/// connection.
pub const REPLICATION_WAIT_MS: u64 = 500;
