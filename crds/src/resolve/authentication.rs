//! Who may connect: tokens, their keys, anonymous clients.

use http::Uri;

use crate::config::{self, JwksSource};
use crate::gateway::{Anonymous, Authentication, Jwks, Jwt, KeySource, SecretKey};
use crate::objects::Holder;

use super::{Context, duration, keys, references};

pub(super) fn resolve(spec: &Authentication, context: &mut Context<'_>) -> config::Authentication {
    let anonymous = spec.anonymous == Anonymous::Allowed;
    if spec.jwt.is_none() && !anonymous {
        let what = "nobody could connect: there is no jwt and anonymous clients are refused";
        context.problem(
            "spec.relay.authentication",
            what,
            "write jwt with a key, or anonymous: Allowed",
        );
    }
    config::Authentication {
        jwt: spec.jwt.as_ref().map(|jwt| tokens(jwt, context)),
        anonymous,
        expiry_grace: duration::parse_or_zero(&spec.expiry_grace),
    }
}

fn tokens(spec: &Jwt, context: &mut Context<'_>) -> config::Jwt {
    let path = "spec.relay.authentication.jwt";
    if spec.hmac.is_empty() && spec.public_keys.is_empty() && spec.jwks.is_none() {
        context.problem(
            path,
            "no token could be verified: there is no key",
            "write hmac, publicKeys or jwks",
        );
    }
    let mut hmac_secrets = Vec::new();
    for (index, hmac) in spec.hmac.iter().enumerate() {
        let path = format!("{path}.hmac[{index}].secretRef");
        hmac_secrets.extend(references::text(&hmac.secret_ref, &path, context));
    }
    let mut public_keys = Vec::new();
    for (index, source) in spec.public_keys.iter().enumerate() {
        let path = format!("{path}.publicKeys[{index}]");
        let KeySource {
            secret_ref,
            config_map_ref,
        } = source;
        if let Some((field, holder, key)) =
            one_ref(secret_ref, config_map_ref, false, &path, context)
        {
            let path = format!("{path}.{field}");
            if let Some(pem) = references::follow(holder, key, &path, context) {
                public_keys.extend(keys::public_keys(&pem, &format!("{path}.key"), context));
            }
        }
    }
    config::Jwt {
        hmac_secrets,
        public_keys,
        jwks: spec
            .jwks
            .as_ref()
            .and_then(|jwks| key_set(jwks, &format!("{path}.jwks"), context)),
        audience: spec.audience.clone(),
        issuer: spec.issuer.clone(),
        account_claim: spec.account_claim.clone(),
    }
}

fn key_set(spec: &Jwks, path: &str, context: &mut Context<'_>) -> Option<config::Jwks> {
    let refresh = duration::parse_or_zero(&spec.refresh_interval);
    let Jwks {
        url,
        secret_ref,
        config_map_ref,
        ..
    } = spec;
    if let (Some(url), None, None) = (url, secret_ref, config_map_ref) {
        if let Err(what) = check_url(url) {
            let instead = "write an http:// or https:// address, or file:///path";
            context.problem(format!("{path}.url"), what, instead);
            return None;
        }
        return Some(config::Jwks {
            source: JwksSource::Url(url.clone()),
            refresh,
        });
    }
    let (field, holder, key) = one_ref(secret_ref, config_map_ref, url.is_some(), path, context)?;
    let path = format!("{path}.{field}");
    let document = references::follow(holder, key, &path, context)?;
    keys::check_key_set(&document, &format!("{path}.key"), context)?;
    Some(config::Jwks {
        source: JwksSource::Document(document),
        refresh,
    })
}

/// The one reference that is set, as (field, kind, reference).
pub(super) fn one_ref<'a>(
    secret: &'a Option<SecretKey>,
    config_map: &'a Option<SecretKey>,
    url: bool,
    path: &str,
    context: &mut Context<'_>,
) -> Option<(&'static str, Holder, &'a SecretKey)> {
    match (secret, config_map) {
        (Some(key), None) if !url => Some(("secretRef", Holder::Secret, key)),
        (None, Some(key)) if !url => Some(("configMapRef", Holder::ConfigMap, key)),
        (None, None) => {
            context.problem(
                path,
                "names no source",
                "write secretRef or configMapRef with name and key",
            );
            None
        }
        _ => {
            context.problem(path, "names more than one source", "keep one of them");
            None
        }
    }
}

/// The problem never quotes the address: it may hold a password.
fn check_url(url: &str) -> Result<(), &'static str> {
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("the address holds white space");
    }
    if let Some(path) = url.strip_prefix("file://") {
        return if path.len() > 1 && path.starts_with('/') {
            Ok(())
        } else {
            Err("the path is not absolute")
        };
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return Err("not an address");
    };
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return Err("the scheme is unknown"),
        None => return Err("the address has no scheme"),
    }
    match uri.host() {
        Some(host) if !host.is_empty() => Ok(()),
        _ => Err("the address has no host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_key_sets() {
        for good in [
            "http://keys/jwks",
            "https://a.example:8443/k?x=y",
            "file:///etc/keys.json",
            "http://[::1]:80/",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "keys",
            "/keys",
            "ftp://a/b",
            "http://",
            "http:///x",
            "file://keys",
            "file:///",
            "http://a b",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
