//! Keeps pages in an operator's browser away from what the admin port shows, and from what can be done there.
//!
//! Without a password whoever reaches the admin port may use it. A browser reaches it too, on behalf of any page it
//! shows. Such a page cannot set the content type of JSON without being asked for permission, which is never given; and
//! a page whose name was pointed here afterwards still sends that name as the host.

use std::net::IpAddr;

use http::header::{CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use http::{Method, StatusCode, request};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Endings of names that only a cluster or a machine gives: nobody on the internet can own one.
const LOCAL_ENDINGS: [&str; 4] = [".localhost", ".svc", ".cluster.local", ".internal"];

/// Which names of the host are good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Those that nobody on the internet can point here.
    Local,
    /// All: browsers send what they log in with to the name that it was given for, and to no other.
    Any,
}

/// What is wrong with a request, as a status and in words.
pub fn check(head: &request::Parts, hosts: Hosts) -> Result<(), (StatusCode, String)> {
    let refuse = |problem: &str| Err((StatusCode::FORBIDDEN, problem.to_owned()));
    let text = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(host) = text(&HOST) else {
        return refuse("a request needs a host");
    };
    if hosts == Hosts::Local && !is_local(host) {
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
    if !matches!(head.method, Method::GET | Method::HEAD) {
        let kind = text(&CONTENT_TYPE).and_then(|kind| kind.split(';').next());
        if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            let problem = format!("a {} needs the content type application/json", head.method);
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
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
