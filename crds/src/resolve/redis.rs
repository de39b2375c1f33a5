//! The Redis of a gateway: its addresses, TLS and credentials.
//!
//! An address may come from a Secret and may hold a password; no problem quotes one.

use std::borrow::Cow;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::{self, RedisAddress, Secret};
use crate::gateway::{ExternalRedis, Redis, RedisCredentials, RedisTls};
use crate::objects::Holder;

use super::{Context, authentication, keys, references, upstream};

const PATH: &str = "spec.redis.external";
const MANAGED: &str = "spec.redis.managed";
const PORT_DEFAULT: u16 = 6379;
/// Any of them leads to all others; more of them in an address is a mistake.
const SEEDS_MAX: usize = 64;

const ADDRESS: &str =
    "write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas";
const NO_SECRET: &str = "use urlSecretRef or credentials for it";

pub(super) fn resolve(
    gateway: &str,
    spec: &Redis,
    context: &mut Context<'_>,
) -> Option<config::Redis> {
    let path = "spec.redis";
    match (&spec.managed, &spec.external) {
        (None, Some(external)) => resolve_external(external, context),
        (Some(managed), None) => {
            let key = (context.namespace.to_owned(), gateway.to_owned());
            let running = context.objects.managed_redis.get(&key);
            if running.is_none() {
                let what = "there is no operator here that would run a Redis";
                let instead = "write external: {url: ...}, or apply the Gateway to a Kubernetes";
                context.problem(format!("{path}.managed"), what, instead);
            }
            let tls = managed.tls.as_ref();
            let tls = tls.map(|tls| authorities_of_managed(&tls.certificate_ref.name, context));
            let mut running = running.cloned()?;
            if let (Some(ca), Some(tls)) = (tls, &mut running.tls) {
                tls.ca = Some(ca?);
            }
            Some(running)
        }
        (Some(_), Some(external)) => {
            let what = "there are both managed and external";
            context.problem(path, what, "keep one of them");
            resolve_external(external, context)
        }
        (None, None) => {
            if !context.is_any_concerned(path, &["managed", "external"]) {
                let instead = "write managed: {}, or external: {url: redis://<host>}";
                context.problem(path, "there is neither managed nor external", instead);
            }
            None
        }
    }
}

fn resolve_external(spec: &ExternalRedis, context: &mut Context<'_>) -> Option<config::Redis> {
    let credentials = spec
        .credentials
        .as_ref()
        .map(|spec| credentials(spec, context));
    let url = url(spec, context);
    let tls = match (&spec.tls, &url) {
        (Some(_), Some(url)) if !url.tls => {
            let instead = "write rediss:// in the address, or remove tls";
            context.problem(
                format!("{PATH}.tls"),
                "the address begins with redis://, which is without TLS",
                instead,
            );
            None
        }
        (Some(tls), _) => Some(resolve_tls(tls, context)),
        (None, Some(url)) if url.tls => Some(config::RedisTls {
            ca: None,
            client: None,
            server_name: None,
        }),
        (None, _) => None,
    };
    let url = url?;
    let (username, password) = match (credentials, url.username, url.password) {
        (Some(_), user, password) if user.is_some() || password.is_some() => {
            let what = "the address holds a user or password, and there are credentials besides";
            context.problem(format!("{PATH}.credentials"), what, "keep one of them");
            (None, None)
        }
        (Some(given), _, _) => given,
        (None, user, password) => (user, password),
    };
    Some(config::Redis {
        seeds: url.seeds,
        tls,
        username,
        password,
    })
}

/// What an address says.
#[derive(Debug, PartialEq)]
struct Url {
    tls: bool,
    username: Option<String>,
    password: Option<Secret>,
    seeds: Vec<RedisAddress>,
}

fn url(spec: &ExternalRedis, context: &mut Context<'_>) -> Option<Url> {
    match (&spec.url, &spec.url_secret_ref) {
        (Some(url), None) => {
            let field = format!("{PATH}.url");
            match parse(url) {
                Ok(url) if url.username.is_some() || url.password.is_some() => {
                    let what = "the address holds a user or password, and everybody who may see the Gateway may see it";
                    context.problem(field, what, NO_SECRET);
                    None
                }
                Ok(url) => Some(url),
                Err(what) => {
                    context.problem(field, what, ADDRESS);
                    None
                }
            }
        }
        (None, Some(key)) => {
            let path = format!("{PATH}.urlSecretRef");
            let secret = references::text(key, &path, context)?;
            let text = std::str::from_utf8(secret.expose()).map_err(|_| "the value is no text");
            match text.and_then(parse) {
                Ok(url) => Some(url),
                Err(what) => {
                    context.problem(format!("{path}.key"), what, ADDRESS);
                    None
                }
            }
        }
        (None, None) => {
            if !context.is_any_concerned(PATH, &["url", "urlSecretRef"]) {
                let instead = "write url: redis://<host>, or urlSecretRef";
                context.problem(PATH, "there is no address", instead);
            }
            None
        }
        (Some(_), Some(_)) => {
            let what = "there are both url and urlSecretRef";
            context.problem(PATH, what, "keep one of them");
            None
        }
    }
}

/// `redis[s]://[[user][:password]@]host[:port][,host[:port]...][/]`
fn parse(url: &str) -> Result<Url, &'static str> {
    let (tls, rest) = match (url.strip_prefix("redis://"), url.strip_prefix("rediss://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        (None, None) => return Err("the address does not begin with redis:// or rediss://"),
    };
    // A password may hold what the rest may not, but hosts hold no @.
    let (user_info, hosts) = match rest.rfind('@') {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    };
    if hosts.contains('?') {
        return Err("the address holds a query");
    }
    if hosts.contains('#') {
        return Err("the address holds a fragment");
    }
    let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
    if hosts.contains('/') {
        return Err("the address names a database, and only the first one is used");
    }
    let (username, password) = match user_info {
        Some(info) => user_and_password(info)?,
        None => (None, None),
    };
    let seeds: Vec<RedisAddress> = hosts.split(',').map(seed).collect::<Result<_, _>>()?;
    if seeds.len() > SEEDS_MAX {
        return Err("the address names more than 64 servers");
    }
    Ok(Url {
        tls,
        username,
        password,
        seeds,
    })
}

fn seed(text: &str) -> Result<RedisAddress, &'static str> {
    upstream::host_and_port(text)?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((rest, "")),
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| "the port is not a number")?,
        None => PORT_DEFAULT,
    };
    Ok(RedisAddress {
        host: host.to_owned(),
        port,
    })
}

fn user_and_password(info: &str) -> Result<(Option<String>, Option<Secret>), &'static str> {
    let (user, password) = match info.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (info, None),
    };
    let user = String::from_utf8(decoded(user)?.into_owned());
    let user = user.map_err(|_| "the user is no text")?;
    let password = match password {
        Some("") => return Err("the password is empty"),
        Some(password) => Some(Secret::new(decoded(password)?.into_owned())),
        None => None,
    };
    if password.is_none() {
        return Err("the address holds a user without a password");
    }
    Ok(((!user.is_empty()).then_some(user), password))
}

/// Without percent-encoding.
fn decoded(text: &str) -> Result<Cow<'_, [u8]>, &'static str> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit(), digit());
        let value = high.zip(low).map(|(high, low)| high * 16 + low);
        let byte = value.and_then(|value| u8::try_from(value).ok());
        bytes.push(byte.ok_or("a % in the user or password is not followed by two hex digits")?);
    }
    Ok(Cow::Owned(bytes))
}

fn credentials(
    spec: &RedisCredentials,
    context: &mut Context<'_>,
) -> (Option<String>, Option<Secret>) {
    let path = format!("{PATH}.credentials");
    let username = match (&spec.username, &spec.username_secret_ref) {
        (Some(_), Some(_)) => {
            let what = "there are both username and usernameSecretRef";
            context.problem(&path, what, "keep one of them");
            None
        }
        (Some(name), None) => Some(name.clone()),
        (None, Some(key)) => {
            let path = format!("{path}.usernameSecretRef");
            references::text(key, &path, context).and_then(|secret| {
                let name = String::from_utf8(secret.expose().to_vec()).ok();
                if name.is_none() {
                    context.problem(
                        format!("{path}.key"),
                        "the value is no text",
                        "put the name of the user there",
                    );
                }
                name
            })
        }
        (None, None) => None,
    };
    let path = format!("{path}.passwordSecretRef");
    let password = references::text(&spec.password_secret_ref, &path, context);
    (username, password)
}

fn resolve_tls(spec: &RedisTls, context: &mut Context<'_>) -> config::RedisTls {
    let path = format!("{PATH}.tls");
    let ca = spec
        .ca
        .as_ref()
        .and_then(|source| authorities(source, context));
    let client = spec.client_certificate_ref.as_ref().and_then(|reference| {
        let field = format!("{path}.clientCertificateRef.name");
        keys::certificate(&reference.name, &field, context)
    });
    config::RedisTls {
        ca,
        client,
        server_name: spec.server_name.clone(),
    }
}

fn authorities(source: &crate::gateway::KeySource, context: &mut Context<'_>) -> Option<Secret> {
    let path = format!("{PATH}.tls.ca");
    let (field, holder, key) = authentication::one_ref(
        &source.secret_ref,
        &source.config_map_ref,
        false,
        &path,
        context,
    )?;
    let path = format!("{path}.{field}");
    let pem = references::follow(holder, key, &path, context)?;
    checked(pem, &format!("{path}.key"), context)
}

/// Of the Secret whose certificate the servers show, which is looked at as well.
fn authorities_of_managed(secret: &str, context: &mut Context<'_>) -> Option<Secret> {
    let field = format!("{MANAGED}.tls.certificateRef.name");
    let certificate = keys::certificate(secret, &field, context);
    let data = references::object(Holder::Secret, secret, &field, context)?;
    let pem = references::value(data, "Secret", secret, "ca.crt", &field, context)?;
    let pem = checked(pem, &field, context)?;
    certificate.map(|_| pem)
}

/// Certificates of authorities, if they are some.
fn checked(pem: Secret, field: &str, context: &mut Context<'_>) -> Option<Secret> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose()).collect();
    let mut roots = RootCertStore::empty();
    let good = certificates
        .is_ok_and(|all| !all.is_empty() && all.into_iter().all(|one| roots.add(one).is_ok()));
    if !good {
        let instead = "put the PEM certificates of the authorities there";
        context.problem(field, "the value is not a PEM certificate", instead);
        return None;
    }
    Some(pem)
}

#[cfg(test)]
mod tests;
