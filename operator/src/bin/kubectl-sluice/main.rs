//! `kubectl sluice`: what the manager sees and wants, and what a person may ask of it. kubectl finds it by its name on the PATH.
//!
//! Everything goes through the API server with the rights of whoever asks: the plan is read through the operator's pods, orders
//! are annotations, and `requests` is the data plane's own command in one of its pods.

#![allow(clippy::print_stdout)]

mod act;
mod args;
mod plan;
mod read;
mod requests;
mod show;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use kube::config::KubeConfigOptions;
use kube::{Client, Config};

use self::args::{Args, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<ExitCode> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_kubeconfig(&options).await;
    let config = config.context("no way to a Kubernetes")?;
    let namespace = args.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("client")?;
    match &args.command {
        Command::Top { gateway: None } => {
            let fleets = read::fleets(&client).await?;
            print!("{}", show::fleets(&fleets));
        }
        Command::Top {
            gateway: Some(name),
        } => {
            let fleet = read::fleet(&client, &namespace, name).await?;
            print!("{}", show::pods(&fleet));
        }
        Command::Plan { gateway } => {
            let fleet = read::fleet(&client, &namespace, gateway).await?;
            print!("{}", show::plan(&fleet));
        }
        Command::Drain { pod, undo, no_wait } => {
            act::drain(&client, &namespace, pod, *undo, !no_wait).await?;
        }
        Command::Rebalance { gateway, stop } => {
            act::rebalance(&client, &namespace, gateway, *stop).await?;
        }
        Command::Requests { gateway, arguments } => {
            return requests::run(&client, &args, &namespace, gateway, arguments).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}
