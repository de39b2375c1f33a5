//! `sluice check`: says what is wrong with manifests, without serving anything; writes them as a configuration file.
//!
//! Problems go to the given output, one per line, for people and for scripts in a pipeline.

use std::io::{self, Write};

use sluice_crds::config::GatewayConfig;
use sluice_crds::config_file;

use crate::args::CheckArgs;
use crate::auth::Authenticator;
use crate::config::{Manifests, Source};
use crate::store::redis::settings::Settings;
use crate::tls::Certificates;

/// Returns whether the manifests are good.
pub fn check(args: CheckArgs, output: &mut impl Write) -> io::Result<bool> {
    let CheckArgs {
        manifests,
        secrets_dir,
        write,
    } = args;
    let loaded = Manifests {
        paths: manifests,
        secrets_dir,
    }
    .load()
    .and_then(try_out);
    report(&loaded, output)?;
    let (Ok(config), Some(dir)) = (&loaded, write) else {
        return Ok(loaded.is_ok());
    };
    if let Err(error) = config_file::write(config, &dir) {
        writeln!(output, "cannot write to {}: {error}", dir.display())?;
        return Ok(false);
    }
    let file = dir.join(config_file::CONFIG_FILE);
    writeln!(output, "written: sluice run --config {}", file.display())?;
    Ok(true)
}

/// Makes what only the data plane can judge: keys of the sizes it verifies with, certificates that fit their keys.
fn try_out(config: GatewayConfig) -> Result<GatewayConfig, Vec<String>> {
    let gateway = format!("Gateway {}/{}", config.namespace, config.name);
    let mut problems = Vec::new();
    // Nothing runs on it: key sets are not fetched before the first token.
    match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => {
            let authentication = &config.relay.authentication;
            if let Err(error) = Authenticator::new(authentication, runtime.handle()) {
                problems.push(format!("{gateway}: spec.relay.authentication: {error}"));
            }
        }
        Err(error) => problems.push(format!("authentication not checked: {error}")),
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        if let Some(Err(error)) = listener.tls.as_ref().map(Certificates::new) {
            problems.push(format!(
                "{gateway}: spec.listeners[{index}].tls: {error}; put a certificate and its key into the Secret"
            ));
        }
    }
    if let Some(redis) = &config.redis
        && let Err(error) = Settings::new(redis, String::new())
    {
        problems.push(format!(
            "{gateway}: spec.redis.external.tls: {error:#}; put PEM certificates, and the key of the client's, where it refers to"
        ));
    }
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
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
    use std::sync::Arc;

    use sluice_crds::config::{Jwt, Redis, RedisTls, Secret, TlsMaterial};

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
    fn what_start_would_refuse_is_refused() {
        let mut config = sample();
        assert_eq!(try_out(config.clone()), Ok(config.clone()));
        let junk = Secret::new(&b"no certificate"[..]);
        config.listeners[0].tls = Some(TlsMaterial {
            certificate: junk.clone(),
            private_key: junk.clone(),
        });
        config.relay.authentication.jwt = Some(Jwt {
            hmac_secrets: Vec::new(),
            public_keys: vec![junk],
            jwks: None,
            audience: None,
            issuer: None,
            account_claim: None,
        });
        config.redis = Some(Arc::new(Redis {
            seeds: Vec::new(),
            tls: Some(RedisTls {
                ca: Some(Secret::new(&b"no certificate"[..])),
                client: None,
                server_name: None,
            }),
            username: None,
            password: None,
        }));
        let problems = try_out(config).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[2].contains("spec.redis.external.tls"));
        assert!(problems[0].contains("spec.relay.authentication"));
        assert!(problems[1].contains("spec.listeners[0].tls"));
    }

    #[test]
    fn every_problem_is_one_line() {
        let problems = vec!["a.yaml: bad\n  at line 3".to_owned(), "b: worse".to_owned()];
        assert_eq!(printed(&Err(problems)), "a.yaml: bad at line 3\nb: worse\n");
    }
}
