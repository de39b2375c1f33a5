//! `sluice-e2e cluster ...`: a real Kubernetes on this machine; `sluice_e2e::cluster` says how. `sluice-e2e manager ...`: a manager
//! without one.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use sluice_e2e::cluster::{Cluster, DEFAULT_NAME, End, Tool, parse_node};
use sluice_e2e::manager::{self, ManagerArgs};

#[derive(Parser)]
#[command(name = "sluice-e2e")]
enum Program {
    /// A Kubernetes of several nodes on this machine.
    Cluster(ClusterArgs),
    /// The manager of one gateway, without Kubernetes.
    Manager(ManagerArgs),
}

#[derive(Args)]
struct ClusterArgs {
    /// Clusters of different names can be up side by side.
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Builds its programs, which needs no root; `up` does it otherwise.
    Build {
        /// Another tool for it, instead: prints where it is.
        #[arg(value_parser = parse_tool)]
        tool: Option<Tool>,
    },
    /// Starts it, or what of it does not run; builds its programs first if need be. Returns when all nodes are ready.
    Up {
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// One or two; without this, one, or as many as there are.
        #[arg(long)]
        api_servers: Option<u8>,
    },
    /// Removes it with all that it stored.
    Down,
    /// What of it runs.
    Status,
    /// Prints shell exports: KUBECONFIG, and a PATH with its kubectl.
    Env,
    /// Puts the images of an archive into every node.
    LoadImage { archive: PathBuf },
    /// Kills a node with everything on it, as a power failure does.
    KillNode {
        #[arg(value_parser = parse_node)]
        node: u8,
    },
    /// Starts a node again, with what it stored.
    RestartNode {
        #[arg(value_parser = parse_node)]
        node: u8,
    },
    /// Kills an API server, 1 or 2, until it is restarted or `up` is run.
    KillApiServer { server: u8 },
    /// Starts an API server again.
    RestartApiServer { server: u8 },
    /// Lets nothing through between two of `control`, `node1`, `node2`, ...
    CutLink { a: End, b: End },
    /// Makes all links whole again.
    Heal,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ClusterArgs { name, command } = match Program::parse() {
        Program::Cluster(args) => args,
        Program::Manager(args) => return runtime.block_on(manager::serve(args)),
    };
    let started = Instant::now();
    match command {
        ClusterCommand::Build { tool: None } => Cluster::build(),
        ClusterCommand::Build { tool: Some(tool) } => say(&tool.build()?.display().to_string()),
        ClusterCommand::Up { nodes, api_servers } => {
            let cluster = Cluster::start_now(&name, nodes, api_servers)?;
            say(&format!(
                "{}\nready in {:.1?}",
                cluster.status()?,
                started.elapsed()
            ))
        }
        ClusterCommand::Down => {
            Cluster::down(&name)?;
            say(&format!(
                "cluster {name} is gone, in {:.1?}",
                started.elapsed()
            ))
        }
        ClusterCommand::Status => say(&Cluster::attach(&name)?.status()?.to_string()),
        ClusterCommand::Env => {
            let cluster = Cluster::attach(&name)?;
            let quoted = |path: &std::path::Path| {
                format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
            };
            say(&format!(
                "export KUBECONFIG={}\nexport PATH={}:\"$PATH\"",
                quoted(&cluster.kubeconfig()),
                quoted(&cluster.programs())
            ))
        }
        ClusterCommand::LoadImage { archive } => {
            runtime.block_on(Cluster::attach(&name)?.load_image(&archive))
        }
        ClusterCommand::KillNode { node } => {
            runtime.block_on(Cluster::attach(&name)?.kill_node(node))
        }
        ClusterCommand::RestartNode { node } => {
            runtime.block_on(Cluster::attach(&name)?.restart_node(node))
        }
        ClusterCommand::KillApiServer { server } => {
            runtime.block_on(Cluster::attach(&name)?.kill_api_server(server))
        }
        ClusterCommand::RestartApiServer { server } => {
            runtime.block_on(Cluster::attach(&name)?.restart_api_server(server))
        }
        ClusterCommand::CutLink { a, b } => {
            runtime.block_on(Cluster::attach(&name)?.cut_link(a, b))
        }
        ClusterCommand::Heal => runtime.block_on(Cluster::attach(&name)?.heal()),
    }
}

fn parse_tool(text: &str) -> Result<Tool, String> {
    match text {
        "helm" => Ok(Tool::Helm),
        "kubeconform" => Ok(Tool::Kubeconform),
        "kubectl-validate" => Ok(Tool::KubectlValidate),
        "kube-score" => Ok(Tool::KubeScore),
        "kwok" => Ok(Tool::Kwok),
        "promtool" => Ok(Tool::Promtool),
        other => Err(format!(
            "{other:?} is none of `helm`, `kubeconform`, `kubectl-validate`, `kube-score`, `kwok` and `promtool`"
        )),
    }
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
