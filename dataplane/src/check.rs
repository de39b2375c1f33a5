//! `sluice check`: says what is wrong with manifests, without serving anything.
//!
//! Problems go to the given output, one per line, for people and for scripts in a pipeline.

use std::io::{self, Write};

use sluice_crds::config::GatewayConfig;

use crate::args::CheckArgs;
use crate::config::{Manifests, Source};

/// Returns whether the manifests are good.
pub fn check(args: CheckArgs, output: &mut impl Write) -> io::Result<bool> {
    let CheckArgs {
        manifests,
        secrets_dir,
    } = args;
    let loaded = Manifests {
        paths: manifests,
        secrets_dir,
    }
    .load();
    report(&loaded, output)?;
    Ok(loaded.is_ok())
}

fn report(loaded: &Result<GatewayConfig, Vec<String>>, output: &mut impl Write) -> io::Result<()> {
    match loaded {
        Ok(config) => writeln!(output, "ok: {}", summary(config))?,
        Err(problems) => {
            for problem in problems {
                // One line each, whatever a parser put into its message.
                writeln!(
                    output,
                    "{}",
                    problem
                        .split('\n')
                        .map(str::trim)
                        .collect::<Vec<_>>()
                        .join(" ")
                )?;
            }
        }
    }
    output.flush()
}

/// For `gateway game, 2 listeners (web: HTTP 8000, secure: HTTPS 8443)`.
fn summary(config: &GatewayConfig) -> String {
    let listeners: Vec<String> = config
        .listeners
        .iter()
        .map(|listener| {
            let protocol = if listener.tls.is_some() {
                "HTTPS"
            } else {
                "HTTP"
            };
            format!("{}: {protocol} {}", listener.name, listener.port)
        })
        .collect();
    let noun = if listeners.len() == 1 {
        "listener"
    } else {
        "listeners"
    };
    format!(
        "gateway {}, {} {noun} ({})",
        config.name,
        listeners.len(),
        listeners.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::sample;

    fn printed(loaded: &Result<GatewayConfig, Vec<String>>) -> String {
        let mut output = Vec::new();
        report(loaded, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn good_manifests_are_summed_up() {
        assert_eq!(
            printed(&Ok(sample())),
            "ok: gateway game, 1 listener (web: HTTP 8000)\n"
        );
    }

    #[test]
    fn every_problem_is_one_line() {
        let problems = vec!["a.yaml: bad\n  at line 3".to_owned(), "b: worse".to_owned()];
        assert_eq!(printed(&Err(problems)), "a.yaml: bad at line 3\nb: worse\n");
    }
}
