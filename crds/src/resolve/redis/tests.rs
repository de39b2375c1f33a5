use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::gateway::REDIS_URL_RULE;

fn rule() -> Regex {
    let rule = REDIS_URL_RULE
        .strip_prefix("!has(self.url) || self.url.matches(r\"")
        .unwrap();
    Regex::new(rule.strip_suffix("\")").unwrap()).unwrap()
}

fn seeds(url: &str) -> Vec<(String, u16)> {
    let url = parse(url).unwrap_or_else(|what| panic!("{url}: {what}"));
    url.seeds.into_iter().map(|s| (s.host, s.port)).collect()
}

#[test]
fn addresses_of_servers() {
    assert_eq!(seeds("redis://a"), [("a".to_owned(), 6379)]);
    assert_eq!(seeds("redis://a.example:1/"), [("a.example".to_owned(), 1)]);
    assert_eq!(
        seeds("rediss://a:7000,10.0.0.1,[::1]:7002"),
        [
            ("a".to_owned(), 7000),
            ("10.0.0.1".to_owned(), 6379),
            ("::1".to_owned(), 7002)
        ]
    );
    for bad in [
        "",
        "a:6379",
        "http://a",
        "redis://",
        "redis://a,",
        "redis://,a",
        "redis://a:0",
        "redis://a:65536",
        "redis://a:b",
        "redis://a/1",
        "redis://a?x",
        "redis://a#x",
        "redis://a b",
        "redis://[::1",
        "redis://:@a",
        "redis://user@a",
        "redis://user:@a",
        "redis://u:%zz@a",
        "redis://u:%4@a",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    let many = vec!["a"; SEEDS_MAX + 1].join(",");
    assert!(parse(&format!("redis://{many}")).is_err());
}

#[test]
fn users_and_passwords_in_addresses() {
    let of = |url: &str| {
        let url = parse(url).unwrap();
        let password = url.password.map(|p| p.expose().to_vec());
        (url.username, password.unwrap_or_default())
    };
    assert_eq!(of("redis://:pw@a"), (None, b"pw".to_vec()));
    assert_eq!(
        of("redis://app:p%40%3a/@a,b"),
        (Some("app".to_owned()), b"p@:/".to_vec())
    );
    assert_eq!(
        of("redis://app:p@ss:w?rd@a"),
        (Some("app".to_owned()), b"p@ss:w?rd".to_vec())
    );
}

proptest! {
    /// What the API server refuses in `url` is refused here too, and the other way round, but for what no regular
    /// expression says well: ports above 65535 and numbers in brackets.
    #[test]
    fn the_rule_says_what_the_code_says(
        url in "(rediss?://|http://)?([a-z0-9.@:/,-]{0,12}|(u:p@)?[a-z]{1,4}(:[0-9]{1,5})?(,[a-z]{1,3}){0,2}/?)"
    ) {
        let here = parse(&url);
        let here = here.is_ok_and(|url| url.username.is_none() && url.password.is_none());
        let there = rule().is_match(&url);
        prop_assert!(there || !here, "{url}");
        let big = url.split([':', ',', '/']).any(|part| {
            part.parse::<u32>().is_ok_and(|port| port > 65535 || port == 0)
        });
        prop_assert!(here || !there || big, "{url}");
    }
}
