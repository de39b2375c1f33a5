use super::Address;
use super::address::AddressError;

#[test]
fn addresses() {
    let address = Address::parse("http://example.org:8080/base/").unwrap();
    assert_eq!(address.host(), "example.org:8080");
    assert_eq!(address.prefix(), "/base");
    assert!(!address.encrypted());
    let address = Address::parse("https://[2001:db8::1]:443").unwrap();
    assert_eq!(address.host(), "[2001:db8::1]");
    assert_eq!(address.prefix(), "");
    assert!(address.encrypted());
}

#[test]
fn what_is_no_address_is_refused() {
    assert_eq!(
        Address::parse("http://u:p@h"),
        Err(AddressError::Credentials)
    );
    assert_eq!(Address::parse("ftp://h"), Err(AddressError::Incomplete));
    assert_eq!(Address::parse("/path"), Err(AddressError::Incomplete));
    assert_eq!(Address::parse("http://h/?a"), Err(AddressError::Query));
    assert_eq!(Address::parse("http://a b"), Err(AddressError::NotAUrl));
}
