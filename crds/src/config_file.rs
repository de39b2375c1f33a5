//! The resolved configuration as a file: what `sluice run` reads, and what an operator hands to a pod.
//!
//! A document in JSON without any secret, and the secrets apart, each under the name by which the document refers to it.
//! `encode` makes both (for a ConfigMap and a Secret), `decode` reads both; `write` and `read` do so with files. Names
//! are made of what the secret is for and of the names of listeners and applications, never of positions among those:
//! while a pod has a new document and old secrets, or the other way round, none stands in for another's.
//!
//! Writer and reader may be of different versions: unknown fields are ignored, and fields that came later have
//! defaults. Times are written as in manifests. What could make the process fail is refused whoever wrote it.

mod check;
mod files;
mod names;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{GatewayConfig, Ingest, Secret, secret};
use crate::problem::Problem;

pub use files::{CONFIG_FILE, SECRETS_DIR, fingerprint, read, write};

/// Counts changes that readers of older versions must not take for what they know.
const FORMAT: u32 = 1;

/// A configuration in two parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    pub document: String,
    /// By the name that stands in the document.
    pub secrets: BTreeMap<String, Secret>,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    gateway: &'a GatewayConfig,
}

#[derive(Deserialize)]
struct Read {
    gateway: GatewayConfig,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

pub fn encode(config: &GatewayConfig) -> Encoded {
    let written = Written {
        format: FORMAT,
        gateway: config,
    };
    let (value, found) = secret::writing(|| serde_json::to_value(written));
    // Maps have string keys, times are texts, numbers are whole, and the scope takes the secrets.
    let mut value = value.expect("a configuration can always be written as JSON");
    let mut secrets = BTreeMap::new();
    if let Some(gateway) = value.get_mut("gateway") {
        names::give(gateway, &found, &mut secrets);
    }
    Encoded {
        document: format!("{value:#}\n"),
        secrets,
    }
}

/// Reads a document of a name that problems are to show.
pub fn decode(
    name: &str,
    document: &str,
    secrets: &BTreeMap<String, Secret>,
) -> Result<GatewayConfig, Vec<Problem>> {
    let value = parse(name, document)?;
    let read = secret::reading(secrets.clone(), || serde_json::from_value::<Read>(value));
    let mut config = read
        .map_err(|error| vec![unreadable(name, &error)])?
        .gateway;
    let problems = check::check(name, &config);
    if !problems.is_empty() {
        return Err(problems);
    }
    if let Some(ingest) = config.ingest.take() {
        config.ingest = Some(share_upstreams(&ingest).into());
    }
    Ok(config)
}

/// The names of the secrets that a document refers to, each once.
pub fn secret_names(name: &str, document: &str) -> Result<Vec<String>, Vec<Problem>> {
    let value = parse(name, document)?;
    let (read, mut names) = secret::naming(|| serde_json::from_value::<Read>(value));
    read.map_err(|error| vec![unreadable(name, &error)])?;
    names.sort();
    names.dedup();
    Ok(names)
}

fn parse(name: &str, document: &str) -> Result<Value, Vec<Problem>> {
    let value = serde_json::from_str::<Value>(document);
    let value = value.map_err(|error| vec![unreadable(name, &error)])?;
    let object = format!("file {name}");
    match Format::deserialize(&value) {
        Ok(Format { format: FORMAT }) => Ok(value),
        Ok(Format { format }) => {
            let what = format!("its format is {format}, and this sluice reads {FORMAT}");
            let instead = "write it with the same version of sluice that reads it";
            Err(vec![Problem::new(object, "format", what, instead)])
        }
        Err(_) => {
            let what = "is no configuration file";
            let instead = "write one with sluice check MANIFEST --write DIR, or serve the manifest with sluice standalone";
            Err(vec![Problem::new(object, "", what, instead)])
        }
    }
}

fn unreadable(name: &str, error: &serde_json::Error) -> Problem {
    let instead = "write it with sluice check MANIFEST --write DIR";
    let what = format!("cannot be read: {error}");
    Problem::new(format!("file {name}"), "", what, instead)
}

/// An application's upstream that is the gateway's is that very one, as `resolve` makes it.
fn share_upstreams(ingest: &Ingest) -> Ingest {
    let mut shared = ingest.clone();
    for application in &mut shared.applications {
        let mut own = (**application).clone();
        for upstream in &mut own.upstreams {
            if let Some(same) = ingest.upstreams.iter().find(|one| *one == upstream) {
                *upstream = same.clone();
            }
        }
        *application = own.into();
    }
    shared
}
