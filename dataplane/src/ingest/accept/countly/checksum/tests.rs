//! Vectors computed with sha1sum and sha256sum.

use super::*;

const NONE: Claimed<'static> = Claimed {
    checksum: None,
    checksum256: None,
};
const TEXT: &str = "app_key=abc&device_id=d1&timestamp=1700000000";
const SHA1: &str = "bc964297c1358d7a124dd705b927218d4829e5e3";
const SHA2: &str = "287cdf383aa8f7d5792db69b4cda0f366b08c06aba8c1c7a962e701e801f6385";

fn sha1(value: &str) -> Claimed<'_> {
    Claimed {
        checksum: Some(value.as_bytes()),
        ..NONE
    }
}

fn sha2(value: &str) -> Claimed<'_> {
    Claimed {
        checksum256: Some(value.as_bytes()),
        ..NONE
    }
}

fn check_text(claimed: Claimed<'_>, text: &str) -> Result<(), Mismatch> {
    check(claimed, b"pepper", &[text.as_bytes()])
}

#[test]
fn both_hashes_in_either_case() {
    for value in [SHA1.to_owned(), SHA1.to_uppercase()] {
        let text = format!("{TEXT}&checksum={value}");
        assert_eq!(check_text(sha1(&value), &text), Ok(()));
    }
    for value in [SHA2.to_owned(), SHA2.to_uppercase()] {
        let text = format!("{TEXT}&checksum256={value}");
        assert_eq!(check_text(sha2(&value), &text), Ok(()));
    }
}

#[test]
fn the_parameter_may_stand_anywhere_and_only_the_first_is_cut() {
    let first = format!("checksum={SHA1}{TEXT}");
    assert_eq!(check_text(sha1(SHA1), &first), Ok(()));
    let (head, tail) = TEXT.split_at(11);
    let middle = format!("{head}&checksum={SHA1}{tail}");
    assert_eq!(check_text(sha1(SHA1), &middle), Ok(()));
    // First the one with an ampersand, then one without.
    let twice = format!("checksum={SHA1}{TEXT}&checksum={SHA1}");
    assert_eq!(check_text(sha1(SHA1), &twice), Ok(()));
    let thrice = format!("{twice}&checksum={SHA1}");
    assert_eq!(check_text(sha1(SHA1), &thrice), Err(Mismatch::Wrong));
}

#[test]
fn sha1_is_asked_first() {
    let both = Claimed {
        checksum: Some(b"00"),
        checksum256: Some(SHA2.as_bytes()),
    };
    let text = format!("{TEXT}&checksum256={SHA2}");
    assert_eq!(check_text(both, &text), Err(Mismatch::Wrong));
}

#[test]
fn any_candidate_will_do() {
    let body = "hello";
    let value = "a29861f63ec25c26160d06c9caa33d8fbce61323";
    let candidates: [&[u8]; 2] = [b"checksum=other", body.as_bytes()];
    assert_eq!(check(sha1(value), b"pepper", &candidates), Ok(()));
    assert_eq!(
        check(sha1(value), b"pepper", &candidates[..1]),
        Err(Mismatch::Wrong)
    );
}

#[test]
fn text_beyond_ascii() {
    let value = "46a01f8ebf7d98f1c44a74b9f08d4d4565d060fb7cf2b7bbc00310a13dbe9db0";
    let text = format!("a=ü&n=x y&checksum256={value}");
    assert_eq!(check(sha2(value), b"salt", &[text.as_bytes()]), Ok(()));
}

#[test]
fn what_does_not_fit() {
    assert_eq!(check_text(NONE, TEXT), Err(Mismatch::Absent));
    let signed = format!("{TEXT}&checksum={SHA1}");
    for value in ["", "xyz", &SHA1[1..], SHA2, &"0".repeat(40)] {
        assert_eq!(
            check_text(sha1(value), &signed),
            Err(Mismatch::Wrong),
            "{value}"
        );
    }
    let altered = signed.replace("d1", "d2");
    assert_eq!(check_text(sha1(SHA1), &altered), Err(Mismatch::Wrong));
    assert_eq!(
        check(sha1(SHA1), b"salt", &[signed.as_bytes()]),
        Err(Mismatch::Wrong)
    );
}
