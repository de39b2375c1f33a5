//! The command line: what differs per process. Everything else is in the manifests or the configuration file.
//!
//! The only place that reads the environment: each option of `standalone` and `run` has a variable `SLUICE_<OPTION>`. Values are
//! parsed and bounded here, so that other code gets no bad ones; files are not opened here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::limits::{MEMORY_LIMIT_BYTES_MIN, WORKERS_MAX};
use crate::telemetry;

pub use requests::{
    ActArgs, FilterArgs, ListArgs, Output, RequestsArgs, RequestsCommand, ServerArgs, ShowArgs,
    StateArg,
};

pub use manager::ManagerArgs;

mod manager;
mod requests;

/// Port 8081 on loopback: the admin port shows the configuration and sets the log level, so opening it is a choice.
pub const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

pub const LOG_LEVEL_DEFAULT: &str = "info";

/// The front door for fleets of clients
#[derive(Debug, Clone, Parser)]
#[command(name = "sluice", version, about, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve the gateway of the manifests in one process
    Standalone(StandaloneArgs),
    /// Serve the gateway of a configuration file, as a pod does
    Run(RunArgs),
    /// Print every problem of the manifests; exit with 1 when there is one
    Check(CheckArgs),
    /// Show what a running gateway takes in, delivers and serves, and why it waits
    Top(TopArgs),
    /// Find, show, repeat and drop requests of a running gateway
    Requests(RequestsArgs),
}

#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct TopArgs {
    /// The gateway's admin port
    #[arg(long, value_name = "ADDR:PORT", env = "SLUICE_ADMIN", default_value_t = ADMIN_DEFAULT, value_parser = parse_socket)]
    pub admin: SocketAddr,

    /// Seconds between two looks, over which rates are counted
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub interval: u64,

    /// Show it once and end
    #[arg(long)]
    pub once: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct StandaloneArgs {
    /// YAML files, or directories of them
    #[arg(value_name = "MANIFEST", required = true)]
    pub manifests: Vec<PathBuf>,

    /// Secrets as mounted files: DIR/<secret>/<key>
    #[arg(long, value_name = "DIR", env = "SLUICE_SECRETS_DIR")]
    pub secrets_dir: Option<PathBuf>,

    /// Show the monitor, at the admin port, to those who know what is in FILE; without it only on loopback
    #[arg(long, value_name = "FILE", env = "SLUICE_MONITOR_PASSWORD_FILE")]
    pub monitor_password_file: Option<PathBuf>,

    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct RunArgs {
    /// A resolved configuration, as `sluice check MANIFEST --write DIR` writes it
    #[arg(long, value_name = "FILE", env = "SLUICE_CONFIG")]
    pub config: PathBuf,

    /// The secrets of the configuration, one file each [default: `secrets` beside FILE]
    #[arg(long, value_name = "DIR", env = "SLUICE_SECRETS_DIR")]
    pub secrets_dir: Option<PathBuf>,

    #[command(flatten)]
    pub manager: ManagerArgs,

    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What every process that serves is told.
#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct ServeArgs {
    /// Where queued requests are stored; made when absent, must be writable
    #[arg(long, value_name = "DIR", env = "SLUICE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address the gateway's listeners bind to [default: [::], or 0.0.0.0 on a host without IPv6]
    #[arg(long, value_name = "ADDR", env = "SLUICE_BIND", value_parser = parse_ip)]
    pub bind: Option<IpAddr>,

    /// Health, readiness, metrics and log level
    #[arg(long, value_name = "ADDR:PORT", env = "SLUICE_ADMIN", default_value_t = ADMIN_DEFAULT, value_parser = parse_socket)]
    pub admin: SocketAddr,

    /// Threads that serve clients [default: cores this process may use]
    #[arg(long, value_name = "N", env = "SLUICE_WORKERS", value_parser = parse_workers)]
    pub workers: Option<NonZeroUsize>,

    /// Memory to stay under, as bytes or with a unit (2GiB) [default: the container's limit, else all memory]
    #[arg(long = "memory-limit", value_name = "BYTES", env = "SLUICE_MEMORY_LIMIT", value_parser = parse_memory)]
    pub memory_limit_bytes: Option<u64>,

    #[arg(long, value_enum, env = "SLUICE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// A level (error, warn, info, debug, trace) or a list such as info,sluice_dataplane::relay=debug
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG_LEVEL", default_value = LOG_LEVEL_DEFAULT, value_parser = parse_filter)]
    pub log_level: String,
}

impl StandaloneArgs {
    /// The defaults, as if only manifests had been given.
    pub fn new(manifests: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            manifests: manifests.into_iter().collect(),
            secrets_dir: None,
            monitor_password_file: None,
            serve: ServeArgs::default(),
        }
    }
}

impl Default for ServeArgs {
    fn default() -> Self {
        Self {
            data_dir: None,
            bind: None,
            admin: ADMIN_DEFAULT,
            workers: None,
            memory_limit_bytes: None,
            log_format: LogFormat::Text,
            log_level: LOG_LEVEL_DEFAULT.to_owned(),
        }
    }
}

impl ServeArgs {
    /// Addresses to try in order: the next one only when the host does not know the address family.
    pub fn bind_candidates(&self) -> Vec<IpAddr> {
        match self.bind {
            Some(address) => vec![address],
            None => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct CheckArgs {
    /// YAML files, or directories of them
    #[arg(value_name = "MANIFEST", required = true)]
    pub manifests: Vec<PathBuf>,

    /// Secrets as mounted files: DIR/<secret>/<key>
    #[arg(long, value_name = "DIR", env = "SLUICE_SECRETS_DIR")]
    pub secrets_dir: Option<PathBuf>,

    /// Write what a pod gets into DIR, for `sluice run`: config.json and secrets/, for the owner's eyes only
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Accepts `[::]` like `::`, because that is how addresses look where ports follow.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .map_err(|_| "expected an IP address without a port, such as 0.0.0.0 or [::]".to_owned())
}

fn parse_socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:8081 or [::]:8081".to_owned()
    })
}

fn parse_workers(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .ok()
        .filter(|workers: &NonZeroUsize| workers.get() <= WORKERS_MAX)
        .ok_or_else(|| format!("expected a number from 1 to {WORKERS_MAX}"))
}

fn parse_filter(text: &str) -> Result<String, String> {
    telemetry::parse_filter(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Units as people and Kubernetes write them; the ones without `i` are decimal, as there.
const MEMORY_UNITS: [(&str, u64); 18] = [
    ("", 1),
    ("B", 1),
    ("k", 1000),
    ("K", 1000),
    ("kB", 1000),
    ("KB", 1000),
    ("Ki", 1 << 10),
    ("KiB", 1 << 10),
    ("M", 1_000_000),
    ("MB", 1_000_000),
    ("Mi", 1 << 20),
    ("MiB", 1 << 20),
    ("G", 1_000_000_000),
    ("GB", 1_000_000_000),
    ("Gi", 1 << 30),
    ("GiB", 1 << 30),
    ("Ti", 1 << 40),
    ("TiB", 1 << 40),
];

fn parse_memory(text: &str) -> Result<u64, String> {
    let expected = || {
        "expected bytes as a whole number, alone or with a unit: 2147483648, 2GiB, 512Mi".to_owned()
    };
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let number: u64 = digits.parse().map_err(|_| expected())?;
    let (_, factor) = MEMORY_UNITS
        .iter()
        .find(|(name, _)| *name == unit.trim_start())
        .ok_or_else(expected)?;
    let bytes = number
        .checked_mul(*factor)
        .ok_or_else(|| "more than any machine has".to_owned())?;
    if bytes < MEMORY_LIMIT_BYTES_MIN {
        return Err(format!(
            "below the minimum of {}MiB",
            MEMORY_LIMIT_BYTES_MIN >> 20
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
