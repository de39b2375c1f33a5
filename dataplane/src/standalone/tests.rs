use http::Request;

use super::*;

fn head(authorization: Option<&str>) -> request::Parts {
    let mut request = Request::get("/api/v1");
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn a_password_is_told_in_two_ways() {
    // The password; a header; whether it says it.
    let cases = [
        (Some("Bearer secret"), true),
        (Some("bearer secret"), true),
        (Some("Bearer secre"), false),
        (Some("Bearer "), false),
        // u:secret, u:secret:more, :secret, no colon.
        (Some("Basic dTpzZWNyZXQ="), true),
        (Some("Basic dTpzZWNyZXQ6bW9yZQ=="), false),
        (Some("Basic OnNlY3JldA=="), true),
        (Some("Basic c2VjcmV0"), false),
        (Some("Basic !"), false),
        (Some("secret"), false),
        (Some("Digest secret"), false),
        (None, false),
    ];
    for (header, expected) in cases {
        assert_eq!(knows(&head(header), "secret"), expected, "{header:?}");
    }
}

#[test]
fn without_a_password_loopback_alone_is_open() {
    let access = |address: &str, password: Option<&str>| {
        Access::new(address.parse().unwrap(), password.map(str::to_owned))
    };
    assert!(matches!(access("127.0.0.1:1", None), Access::Loopback));
    assert!(matches!(access("[::1]:1", None), Access::Loopback));
    assert!(matches!(access("0.0.0.0:1", None), Access::Closed));
    assert!(matches!(access("10.0.0.1:1", None), Access::Closed));
    assert!(matches!(
        access("127.0.0.1:1", Some("p")),
        Access::Password(_)
    ));
}
