//! The command line of a worker.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::dialect::Dialect;

/// What a worker's clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Stay connected and receive: idle clients, subscribers of a fan-out, clients of a drain.
    Hold,
    /// Publish, with a window of messages in flight or at a fixed rate.
    Publish,
    /// Two by two, each answers the other's message.
    Pairs,
    /// Connect, close, connect again.
    Reconnect,
    /// Subscribe, and publish as fast as the socket takes it.
    Storm,
    /// Receive numbered messages and check them; come back, with recovery, whenever the connection ends.
    Follow,
    /// Ask for the server list and open connections, a few times a second.
    Probe,
}

/// One worker process of the load generator.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-load")]
pub struct Args {
    /// What the clients do.
    #[arg(value_enum)]
    pub mode: Mode,
    /// Address of the server.
    #[arg(long)]
    pub server: SocketAddr,
    /// Further servers of the same gateway: `follow` spreads its clients over all of them and comes back to any.
    #[arg(long, value_delimiter = ',')]
    pub others: Vec<SocketAddr>,
    /// The protocol it speaks.
    #[arg(long, value_enum, default_value = "centrifugo")]
    pub dialect: Dialect,
    /// How many connections this worker has.
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Channels, named PREFIX0, PREFIX1 and so on; client i belongs to channel i modulo this. 0: no channel at all.
    #[arg(long, default_value_t = 1)]
    pub channels: usize,
    /// How channel names begin.
    #[arg(long, default_value = "f")]
    pub prefix: String,
    /// Bytes of a message.
    #[arg(long, default_value_t = 128)]
    pub size: usize,
    /// Messages in flight per publisher.
    #[arg(long, default_value_t = 1)]
    pub window: usize,
    /// Messages per second of all publishers of this worker together; then `window` does not count.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds from `go` to the report; without it until `stop`.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Connects under way at a time.
    #[arg(long, default_value_t = 128)]
    pub concurrency: usize,
    /// Local address to connect from: one address has some 28,000 ports towards one server.
    #[arg(long)]
    pub source: Option<IpAddr>,
    /// Number of the first client: keeps names apart between workers.
    #[arg(long, default_value_t = 0)]
    pub first: usize,
    /// Signs a token for each client (HS256); without it clients connect anonymously.
    #[arg(long, env = "SLUICE_LOAD_HMAC_SECRET", hide_env_values = true)]
    pub hmac_secret: Option<String>,
    /// The account claim's name and value to put into the tokens, as NAME=VALUE.
    #[arg(long)]
    pub account: Option<String>,
    /// Do not wait for `go` on standard input.
    #[arg(long)]
    pub at_once: bool,
}

impl Args {
    /// The channel of client `index`, if there are channels.
    #[must_use]
    pub fn channel(&self, index: usize) -> Option<String> {
        (self.channels > 0).then(|| format!("{}{}", self.prefix, index % self.channels))
    }

    /// One of the servers, by any number.
    #[must_use]
    pub fn server_of(&self, number: usize) -> SocketAddr {
        match number % (self.others.len() + 1) {
            0 => self.server,
            other => self.others[other - 1],
        }
    }

    /// How long the work lasts; without a limit a day, which is to say until `stop`.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(86_400.0))
    }
}
