//! Options of `sluice requests`.

use std::net::SocketAddr;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::{ADMIN_DEFAULT, parse_socket};
use crate::clock::unix_ms;
use crate::ingest::requests::time::parse_ms;
use crate::store::queue::EntryId;

#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct RequestsArgs {
    #[command(subcommand)]
    pub command: RequestsCommand,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum RequestsCommand {
    /// List requests, oldest first
    List(ListArgs),
    /// Show one request with its headers and body
    Show(ShowArgs),
    /// Deliver requests once more, after all that is fresh
    Replay(ActArgs),
    /// Settle waiting or parked requests without delivering them
    Discard(ActArgs),
}

/// Where the gateway is, and how to say what it says.
#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct ServerArgs {
    /// The gateway's admin port
    #[arg(long, value_name = "ADDR:PORT", env = "SLUICE_ADMIN", default_value_t = ADMIN_DEFAULT, value_parser = parse_socket)]
    pub admin: SocketAddr,

    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct FilterArgs {
    /// Name of the application; "(unknown)" for unknown keys
    #[arg(long, value_name = "NAME")]
    pub application: Option<String>,

    /// Ordering key, such as a device id
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,

    /// Accepted at or after: 2026-01-31T12:00:00Z, unix seconds, or 15m for fifteen minutes ago
    #[arg(long = "from", value_name = "TIME", value_parser = parse_time)]
    pub from_ms: Option<u64>,

    /// Accepted before
    #[arg(long = "until", value_name = "TIME", value_parser = parse_time)]
    pub until_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    Waiting,
    Delivered,
    Parked,
    Discarded,
    Replayed,
}

impl StateArg {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Parked => "parked",
            Self::Discarded => "discarded",
            Self::Replayed => "replayed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct ListArgs {
    #[command(flatten)]
    pub filter: FilterArgs,

    #[arg(long, value_enum)]
    pub state: Option<StateArg>,

    /// Show so many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,

    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct ShowArgs {
    #[arg(value_name = "ID", value_parser = parse_id)]
    pub id: EntryId,

    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct ActArgs {
    /// Requests by id; without any, all that match --state and the filters
    #[arg(value_name = "ID", value_parser = parse_id, conflicts_with_all = ["state", "application", "key", "from_ms", "until_ms"])]
    pub ids: Vec<EntryId>,

    #[command(flatten)]
    pub filter: FilterArgs,

    #[arg(long, value_enum, required_unless_present = "ids")]
    pub state: Option<StateArg>,

    #[command(flatten)]
    pub server: ServerArgs,
}

fn parse_time(text: &str) -> Result<u64, String> {
    let expected = "expected a time such as 2026-01-31T12:00:00Z, unix seconds, or 15m";
    parse_ms(text, unix_ms()).ok_or_else(|| expected.to_owned())
}

fn parse_id(text: &str) -> Result<EntryId, String> {
    text.parse()
        .map_err(|_| "expected an id of 26 characters".to_owned())
}
