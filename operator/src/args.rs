//! The command line: what differs per operator. The only place that reads the environment: each option has a variable
//! `SLUICE_<OPTION>`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{Parser, Subcommand, ValueEnum};
use http::Uri;
use tracing_subscriber::EnvFilter;

use crate::fleet::identity;

/// Probes and scrapers come from outside of the pod.
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8081);
/// Of the Service as well.
pub const FLEET_PORT: u16 = 8443;
const FLEET_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), FLEET_PORT);
const MONITOR_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8082);
const DATA_PLANE_IMAGE: &str = concat!("sluice:", env!("CARGO_PKG_VERSION"));

const REDIS_IMAGE: &str = "valkey/valkey:8.1-alpine";

/// Makes Kubernetes look like what Gateways say
#[derive(Debug, Clone, Parser)]
#[command(name = "sluice-operator", version, about)]
pub struct Args {
    /// Unset: runs the operator
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Namespaces to watch, separated by commas [default: all]
    #[arg(
        long,
        value_name = "NAMESPACES",
        env = "SLUICE_WATCH_NAMESPACES",
        value_delimiter = ','
    )]
    pub watch_namespaces: Vec<String>,

    /// Image of data planes whose Gateway names none
    #[arg(long, value_name = "IMAGE", env = "SLUICE_DATA_PLANE_IMAGE", default_value = DATA_PLANE_IMAGE)]
    pub data_plane_image: String,

    /// Image of a managed Redis whose Gateway names none
    #[arg(long, value_name = "IMAGE", env = "SLUICE_REDIS_IMAGE", default_value = REDIS_IMAGE)]
    pub redis_image: String,

    /// Namespace of this operator, where its Lease is
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "SLUICE_NAMESPACE",
        default_value = "default"
    )]
    pub namespace: String,

    /// Lease by which one of several operators writes
    #[arg(
        long,
        value_name = "NAME",
        env = "SLUICE_LEASE",
        default_value = "sluice-operator"
    )]
    pub lease: String,

    /// Name of this process among operators [default: one made up]
    #[arg(long, value_name = "NAME", env = "SLUICE_IDENTITY")]
    pub identity: Option<String>,

    /// Whether there are other operators; without election there must be none
    #[arg(long, value_enum, env = "SLUICE_ELECTION", default_value_t = Election::Enabled)]
    pub election: Election,

    /// Health, readiness and metrics
    #[arg(long, value_name = "ADDR:PORT", env = "SLUICE_ADMIN", default_value_t = ADMIN_DEFAULT)]
    pub admin: SocketAddr,

    /// Where data planes report and are told what to do, over TLS; its Service has the name of the lease and `-manager`
    #[arg(long, value_name = "ADDR:PORT", env = "SLUICE_FLEET", default_value_t = FLEET_DEFAULT)]
    pub fleet: SocketAddr,

    /// The monitor, for people of the cluster who show a token: page and JSON API, over HTTP
    #[arg(long, value_name = "ADDR:PORT", env = "SLUICE_MONITOR", default_value_t = MONITOR_DEFAULT)]
    pub monitor: SocketAddr,

    /// Address by which other operators reach this one, to ask it about the monitor when it leads [default: none]
    #[arg(long, value_name = "ADDR", env = "SLUICE_ADDRESS")]
    pub address: Option<IpAddr>,

    #[arg(long, value_enum, env = "SLUICE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// A level (error, warn, info, debug, trace) or a list such as info,sluice_operator::world=debug
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG_LEVEL", default_value = "info", value_parser = parse_filter)]
    pub log_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Whether an installation works: fails with what does not
    Test {
        /// Where an operator says that it is ready, such as http://sluice:8081/readyz
        #[arg(value_name = "URL")]
        operator: Uri,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Election {
    Enabled,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl Args {
    /// Where data planes find the manager.
    pub fn manager(&self) -> String {
        let host = identity::host(&self.namespace, &self.lease);
        format!("https://{host}:{FLEET_PORT}")
    }

    /// Where other operators ask this one; empty: nowhere.
    pub fn asked_at(&self) -> String {
        let address = self
            .address
            .map(|ip| SocketAddr::new(ip, self.fleet.port()));
        address.map_or_else(String::new, |address| address.to_string())
    }

    /// Never the same twice: a process that was killed and its successor must not be taken for one.
    pub fn identity(&self) -> String {
        let name = self.identity.as_deref().unwrap_or("sluice-operator");
        format!("{name}_{:08x}", fastrand::u32(..))
    }
}

fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|failure| failure.to_string())
}
