use http::Uri;
use proptest::prelude::*;
use regex::Regex;

use super::address;
use crate::gateway::UPSTREAM_URL_RULE;

/// What the API server accepts, but for the bounds of the port.
fn rule() -> Regex {
    let rule = UPSTREAM_URL_RULE
        .strip_prefix("self.url.matches(r\"")
        .unwrap();
    Regex::new(rule.strip_suffix("\")").unwrap()).unwrap()
}

#[test]
fn addresses_lose_the_slash_at_their_end() {
    for (written, meant) in [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("https://count.example", "https://count.example"),
        (
            "https://a-b_c.svc.cluster.local./in//",
            "https://a-b_c.svc.cluster.local./in",
        ),
        ("http://[::1]:80/a/b%20c@d", "http://[::1]:80/a/b%20c@d"),
        ("http://h:65535/", "http://h:65535"),
    ] {
        assert_eq!(address(written), Ok(meant), "{written}");
        meant.parse::<Uri>().unwrap();
    }
}

#[test]
fn what_is_no_address_is_told_apart() {
    for (written, wrong) in [
        ("", "begin"),
        ("count.example", "begin"),
        ("//count.example", "begin"),
        ("ftp://count.example", "begin"),
        ("HTTP://count.example", "begin"),
        ("http://", "no host"),
        ("http:///in", "no host"),
        ("http://:80", "no host"),
        ("http://h?x=y", "query"),
        ("http://h/in?", "query"),
        ("http://h/in#x", "fragment"),
        ("http://user:pw@h/in", "user or password"),
        ("http://a b/in", "is no host"),
        ("http://-a/in", "is no host"),
        ("http://ü.example", "is no host"),
        ("http://[::1/in", "is no host"),
        ("http://[::g]/in", "is no host"),
        ("http://[::1]80", "is no host"),
        ("http://h:", "port"),
        ("http://h:0", "port"),
        ("http://h:65536", "port"),
        ("http://h:+80", "port"),
        ("http://h:000080", "port"),
        ("http://h:80:80", "port"),
        ("http://h/a b", "path"),
        ("http://h/a%2", "path"),
        ("http://h/a\n", "path"),
    ] {
        let found = address(written).unwrap_err();
        assert!(found.contains(wrong), "{written:?}: {found}");
    }
}

proptest! {
    #[test]
    fn what_is_an_address_can_be_sent_to(
        url in "https?://([a-z0-9.:@-]{0,12}|\\[[0-9a-f:]{0,8}\\])(:[0-9]{0,6})?(/[a-zA-Z0-9%/._~-]{0,6}){0,3}[ ?#]?"
    ) {
        match address(&url) {
            Ok(_) => prop_assert!(rule().is_match(&url)),
            // Stricter than the rule in these two.
            Err("the port is not a number from 1 to 65535") => {}
            Err(_) if url.contains('[') => {}
            Err(_) => prop_assert!(!rule().is_match(&url)),
        }
        if let Ok(address) = address(&url) {
            let uri: Uri = address.parse().unwrap();
            prop_assert!(!uri.host().unwrap().is_empty());
            prop_assert!(!address.ends_with('/'));
            let request = format!("{address}/i?x=y");
            prop_assert!(request.parse::<Uri>().is_ok());
        }
    }
}
