//! Options of `run` about the manager, which says what the fleet of data planes is to do.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use http::Uri;

/// More cores than any machine has: a typo, not a wish.
const CORES_MAX: f64 = 4096.0;

#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
pub struct ManagerArgs {
    /// Where the manager listens, as in https://manager.sluice:9444; without one the process decides for itself
    #[arg(long = "manager", value_name = "URL", env = "SLUICE_MANAGER", value_parser = parse_url)]
    pub url: Option<Uri>,

    /// Certificates that the manager's is signed by (PEM); read anew for each connection
    #[arg(long = "manager-ca", value_name = "FILE", env = "SLUICE_MANAGER_CA")]
    pub ca: Option<PathBuf>,

    /// The token that says which pod this is; read anew for each connection
    #[arg(
        long = "manager-token",
        value_name = "FILE",
        env = "SLUICE_MANAGER_TOKEN"
    )]
    pub token: Option<PathBuf>,

    /// Name of the pod [default: the host's name]
    #[arg(long, value_name = "NAME", env = "SLUICE_POD")]
    pub pod: Option<String>,

    /// CPU that is kept free for the pod, as in 0.5 or 500m: its weight among the others
    #[arg(long = "cpu-request", value_name = "CORES", env = "SLUICE_CPU_REQUEST", value_parser = parse_millicores)]
    pub cpu_request_millicores: Option<u32>,
}

fn parse_url(text: &str) -> Result<Uri, String> {
    let expected =
        || "expected http:// or https:// with a host and a port, and nothing more".to_owned();
    let uri: Uri = text.parse().map_err(|_| expected())?;
    let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_place = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some();
    let has_user = uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    let is_bare = uri.path() == "/" && uri.query().is_none() && !has_user;
    (has_scheme && has_place && is_bare)
        .then_some(uri)
        .ok_or_else(expected)
}

fn parse_millicores(text: &str) -> Result<u32, String> {
    let cores = match text.strip_suffix('m') {
        Some(millicores) => millicores.parse::<u32>().ok().map(|m| f64::from(m) / 1e3),
        None => text.parse::<f64>().ok(),
    };
    cores
        .filter(|cores| cores.is_finite() && *cores > 0.0 && *cores <= CORES_MAX)
        // Bounded just above.
        .map(|cores| (cores * 1e3).ceil() as u32)
        .ok_or_else(|| "expected cores, as in 2, 0.5 or 500m".to_owned())
}
