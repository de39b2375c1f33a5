//! The command line.

use clap::{Parser, Subcommand};

/// What Sluice's manager sees and wants, and what it may be asked for
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "kubectl-sluice", bin_name = "kubectl sluice", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Namespace of the Gateway [default: that of the context]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Load of all gateways, or of each pod of one
    Top {
        #[arg(value_name = "GATEWAY")]
        gateway: Option<String>,
    },
    /// What the manager wants of each pod, and why
    Plan {
        #[arg(value_name = "GATEWAY")]
        gateway: String,
    },
    /// Empty a pod: new clients go elsewhere, and those it has are asked to, one after another
    Drain {
        #[arg(value_name = "POD")]
        pod: String,
        /// Let it take new clients again
        #[arg(long)]
        undo: bool,
        /// Do not wait until it is empty
        #[arg(long)]
        no_wait: bool,
    },
    /// Move clients once, from pods that have more than their share to others, and wait until that is done
    Rebalance {
        #[arg(value_name = "GATEWAY")]
        gateway: String,
        /// End one that is under way
        #[arg(long)]
        stop: bool,
    },
    /// `sluice requests` in one of the gateway's pods: list, show, replay, discard
    Requests {
        #[arg(value_name = "GATEWAY")]
        gateway: String,
        /// As `sluice requests` takes them, such as `list --state parked`
        #[arg(
            value_name = "ARGUMENT",
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        arguments: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Args {
        Args::try_parse_from([&["kubectl-sluice"], words].concat()).unwrap()
    }

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn words_for_the_data_plane_pass_through() {
        let args = parsed(&["requests", "demo", "list", "--state", "parked"]);
        let Command::Requests { gateway, arguments } = args.command else {
            panic!("{args:?}");
        };
        assert_eq!(gateway, "demo");
        assert_eq!(arguments, ["list", "--state", "parked"]);
    }

    #[test]
    fn the_namespace_may_stand_behind() {
        let args = parsed(&["top", "demo", "-n", "shop"]);
        assert_eq!(args.namespace.as_deref(), Some("shop"));
    }
}
