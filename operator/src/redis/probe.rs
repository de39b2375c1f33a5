//! What a Redis that somebody else runs says when it is asked: whether it is there, lets us in, and is one that can be used.
//!
//! Asks only, with the rights that a data plane has. The operator may be let in where pods are not, and the other way
//! round: what the answer means is for the status to say.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sluice_crds::config::{Redis, RedisAddress, RedisTls};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::info::Info;
use super::link::{Connector, LinkError};

/// Seeds that are tried: who names more has named enough of them.
const SEEDS_TRIED: usize = 6;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
const VERSION_MIN: u32 = 7;

/// What it is, in a few words; or what is wrong with it, and what to do.
pub async fn probe(redis: &Redis) -> Result<String, String> {
    let tls = redis.tls.as_ref().map(client_config).transpose()?;
    let mut why = "spec.redis.external names no server".to_owned();
    for seed in redis.seeds.iter().take(SEEDS_TRIED) {
        match ask(redis, seed, tls.as_ref()).await {
            Ok(info) => return judge(&Info::parse(&info)),
            Err(failure) => why = format!("{}:{}: {failure}", seed.host, seed.port),
        }
    }
    Err(why)
}

async fn ask(
    redis: &Redis,
    seed: &RedisAddress,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<String, String> {
    let looked_up = timeout(LOOKUP_TIMEOUT, lookup_host((&*seed.host, seed.port))).await;
    let mut addresses = looked_up
        .map_err(|_| "its name was not resolved in time".to_owned())?
        .map_err(|failure| format!("its name is not resolved: {failure}"))?;
    let address = addresses.next().ok_or("its name has no address")?;
    let password = redis.password.as_ref().map(|password| password.expose());
    let server_name = redis.tls.as_ref().map(|tls| &tls.server_name);
    let connector = Connector {
        port: seed.port,
        username: redis.username.clone(),
        password: password.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        tls: tls.cloned(),
        server_name: server_name.map(|name| name.clone().unwrap_or_else(|| seed.host.clone())),
    };
    let asked = async {
        let link = connector.connect(address.ip()).await?;
        link.text(&["INFO"]).await
    };
    asked
        .await
        .map_err(|failure: LinkError| failure.to_string())
}

/// Pure.
fn judge(info: &Info<'_>) -> Result<String, String> {
    let version = info.text("redis_version");
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    if major.is_none_or(|major: u32| major < VERSION_MIN) {
        return Err(format!(
            "it is version {version:?}; Sluice needs Redis {VERSION_MIN}.0 or later, or Valkey"
        ));
    }
    let (name, version) = match info.text("valkey_version") {
        "" => ("Redis", version),
        version => ("Valkey", version),
    };
    let kind = if info.is("redis_mode", "cluster") || info.is("server_mode", "cluster") {
        " in cluster mode"
    } else {
        ""
    };
    let policy = info.text("maxmemory_policy");
    let may_forget = info.number("maxmemory").is_some_and(|bytes| bytes > 0)
        && !matches!(policy, "" | "noeviction");
    let warning = if may_forget {
        format!(
            "; it forgets requests and history when it is full: set its maxmemory-policy, now {policy}, to noeviction"
        )
    } else {
        String::new()
    };
    Ok(format!("{name} {version}{kind} answers{warning}"))
}

/// Of whoever speaks with its servers.
pub fn client_config(tls: &RedisTls) -> Result<Arc<ClientConfig>, String> {
    let bad = |part: &str, failure: &dyn std::fmt::Display| format!("tls.{part}: {failure}");
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(ca) => {
            for certificate in CertificateDer::pem_slice_iter(ca.expose()) {
                let certificate = certificate.map_err(|failure| bad("ca", &failure))?;
                roots
                    .add(certificate)
                    .map_err(|failure| bad("ca", &failure))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|failure| bad("versions", &failure))?
        .with_root_certificates(roots);
    let Some(client) = &tls.client else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let part = "clientCertificateRef";
    let chain = CertificateDer::pem_slice_iter(client.certificate.expose())
        .collect::<Result<_, _>>()
        .map_err(|failure| bad(part, &failure))?;
    let key = PrivateKeyDer::from_pem_slice(client.private_key.expose())
        .map_err(|failure| bad(part, &failure))?;
    let config = builder
        .with_client_auth_cert(chain, key)
        .map_err(|failure| bad(part, &failure))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_used_is_told_from_what_cannot() {
        let cases = [
            ("redis_version:6.2.7\r\nredis_mode:standalone", Err("6.2.7")),
            ("", Err("needs Redis 7.0")),
            (
                "redis_version:7.4.1\r\nredis_mode:cluster\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru",
                Ok("Redis 7.4.1 in cluster mode answers"),
            ),
            (
                "redis_version:7.2.4\r\nvalkey_version:8.1.0\r\nserver_mode:standalone",
                Ok("Valkey 8.1.0 answers"),
            ),
            (
                "redis_version:7.2.4\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru",
                Ok("now allkeys-lru, to noeviction"),
            ),
        ];
        for (info, wanted) in cases {
            match (judge(&Info::parse(info)), wanted) {
                (Ok(told), Ok(wanted)) => assert!(told.ends_with(wanted), "{told}"),
                (Err(told), Err(wanted)) => assert!(told.contains(wanted), "{told}"),
                (told, wanted) => panic!("{told:?} instead of {wanted:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let redis = Redis {
            seeds: vec![RedisAddress {
                host: "127.0.0.1".to_owned(),
                port: 1,
            }],
            tls: None,
            username: None,
            password: None,
        };
        let told = probe(&redis).await.unwrap_err();
        assert!(told.starts_with("127.0.0.1:1: not reached"), "{told}");
    }
}
