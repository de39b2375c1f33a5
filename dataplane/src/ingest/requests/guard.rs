//! Keeps pages in an operator's browser away from requests and what can be done with them.
//!
//! The admin port has no login: whoever reaches it may use it. A browser reaches it too, on behalf of any page it
//! shows. Such a page cannot set the content type of JSON without being asked for permission, which is never given; and
//! a page whose name was pointed here afterwards still sends that name as the host.

use std::net::IpAddr;

use http::header::{CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use http::{Method, StatusCode, request};

use super::Refusal;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Endings of names that only a cluster or a machine gives: nobody on the internet can own one.
const LOCAL_ENDINGS: [&str; 4] = [".localhost", ".svc", ".cluster.local", ".internal"];

pub(super) fn check(head: &request::Parts) -> Result<(), Refusal> {
    let refuse = |problem: &str| Err(Refusal(StatusCode::FORBIDDEN, problem.to_owned()));
    let text = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(host) = text(&HOST) else {
        return refuse("a request needs a host");
    };
    if !is_local(host) {
        return refuse("the host must be an address, localhost or a name of the cluster");
    }
    let is_same_site = text(&FETCH_SITE).is_none_or(|site| matches!(site, "same-origin" | "none"));
    let is_same_origin = head.headers.get(ORIGIN).is_none_or(|origin| {
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, origin)| origin == host)
    });
    if !is_same_site || !is_same_origin {
        return refuse("requests of pages from elsewhere are not answered");
    }
    if head.method == Method::POST {
        let kind = text(&CONTENT_TYPE).and_then(|kind| kind.split(';').next());
        if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            let problem = "a POST needs the content type application/json".to_owned();
            return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
        }
    }
    Ok(())
}

fn is_local(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "0"),
    };
    if port.parse::<u16>().is_err() {
        return false;
    }
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    bare.parse::<IpAddr>().is_ok()
        // A name without dots is of this machine or this cluster.
        || (!name.is_empty() && !name.contains('.'))
        || LOCAL_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn hosts() {
        for host in [
            "127.0.0.1:8081",
            "127.0.0.1",
            "[::1]:8081",
            "[::1]",
            "localhost:8081",
            "LOCALHOST",
            "pod-0:1",
            "sluice.prod.svc:8081",
            "sluice.prod.svc.cluster.local",
            "a.localhost",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8081",
            "",
            ":1",
            "localhost.evil.example",
            "a:b",
            "svc.evil",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
