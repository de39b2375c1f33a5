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
/// No answer of any server for so long means that there is none: by then all have been asked.
pub const TOPOLOGY_SILENCE: Duration = Duration::from_secs(2);
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
/// Channels named in one `SSUBSCRIBE`: it holds the server for well below a millisecond.
pub const SUBSCRIBE_BATCH: usize = 512;
/// Channels whose subscription one connection has asked for and not got yet. More wait; the answers to these fit into the
/// smallest output buffer that servers allow a subscriber.
pub const SUBSCRIBE_WINDOW: usize = 8_192;
/// A subscription that is not confirmed by then is asked for again.
pub const SUBSCRIBE_REPEAT: Duration = Duration::from_millis(250);
/// How long a subscription stays after its last user left: clients that come back find it.
pub const UNSUBSCRIBE_DELAY: Duration = Duration::from_secs(1);
/// How often a subscription connection is asked whether it lives, and how long it may be silent.
pub const PING_INTERVAL: Duration = Duration::from_millis(500);
pub const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// How long a primary may take for a message before another server of its shard gets it.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a server that did not take a message is passed over: longer than a failover takes to begin.
pub const MESSAGE_DETOUR: Duration = Duration::from_secs(3);
/// Bytes of the messages that are on their way to a server: as many as calls may have.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes of publications that wait for their turn, over all partitions; as much again is refused.
pub const PUBLISH_WAITING_BYTES: usize = 32 << 20;
/// How long a batch's answers are kept for the case that it comes again: many times [`CALL_DEADLINE`].
pub const BATCH_MEMORY: Duration = Duration::from_secs(60);
/// Of a channel's last publications, how many are known by their id, to tell a second copy from another history.
pub const RECENT_IDS: usize = 32;
/// Publishers of a channel whose last message without position is known. A fleet has fewer processes that publish to one
/// channel within the moment between a message's two copies.
pub const PUBLISHERS_KNOWN: usize = 64;
/// Messages of a channel, and their bytes, that wait while it is healed. Few, as many channels may be healed at once; what
/// is more costs another read of the stream.
pub const HELD_MESSAGES: usize = 64;
pub const HELD_BYTES: usize = 32 << 10;
/// Publications read at once while a channel is healed.
pub const HEAL_PAGE: usize = 128;
/// Channels of one partition that are healed at the same time: a shard that does not answer holds up its own only.
pub const HEALS: usize = 4;
/// Channels of one partition whose last published position is remembered, to notice a stream that fell back.
pub const POSITIONS_KNOWN: usize = 1_024;
/// Pauses between tries to heal while Redis does not answer: doubled from the first to the last.
pub const HEAL_PAUSE_MIN: Duration = Duration::from_millis(50);
pub const HEAL_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Streams whose top is asked for in one call.
pub const TOPS_BATCH: usize = 256;
/// How soon a connection that is not read because too much waits is looked at again: workers get through much of what waits
/// in this time.
pub const GATE_PAUSE: Duration = Duration::from_millis(2);
/// How long a write waits for a replica, on a connection of its own. Well below [`COMMAND_TIMEOUT`], which would cut that
/// connection.
pub const REPLICATION_WAIT_MS: u64 = 500;
