//! Checksums of requests, as a server with a salt checks them.

use ring::digest;

use super::parameters::Parameters;

/// Why a request is not taken; the text is the server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("Request does not match checksum")]
    Wrong,
    #[error("Request does not have checksum")]
    Missing,
}

/// Checks a request with this raw query and body against the salt of its application.
pub fn check(
    salt: &str,
    query: &str,
    body: Option<&[u8]>,
    parameters: &Parameters,
) -> Result<(), Mismatch> {
    let (name, value, algorithm) = match (parameters.get("checksum"), parameters.get("checksum256"))
    {
        (Some(value), _) => ("checksum", value, &digest::SHA1_FOR_LEGACY_USE_ONLY),
        (None, Some(value)) => ("checksum256", value, &digest::SHA256),
        (None, None) => return Err(Mismatch::Missing),
    };
    let of_body = body.map(|body| match &parameters.multipart_text {
        Some(text) => text.clone(),
        None => String::from_utf8_lossy(body).into_owned(),
    });
    let matches = [Some(query.to_owned()), of_body]
        .into_iter()
        .flatten()
        .any(|text| {
            let bare = text.replacen(&format!("&{name}={value}"), "", 1).replacen(
                &format!("{name}={value}"),
                "",
                1,
            );
            hex(digest::digest(algorithm, format!("{bare}{salt}").as_bytes()).as_ref())
                .eq_ignore_ascii_case(value)
        });
    if matches {
        Ok(())
    } else {
        Err(Mismatch::Wrong)
    }
}

/// The checksum a client appends to this text as `checksum256`.
#[must_use]
pub fn sha256(text: &str, salt: &str) -> String {
    hex(digest::digest(&digest::SHA256, format!("{text}{salt}").as_bytes()).as_ref())
}

/// The checksum a client appends to this text as `checksum`.
#[must_use]
pub fn sha1(text: &str, salt: &str) -> String {
    let digest = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{text}{salt}").as_bytes(),
    );
    hex(digest.as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn verdict(query: &str, body: Option<&str>) -> Result<(), Mismatch> {
        let bytes = body.map(str::as_bytes);
        let parameters = Parameters::of(query, FORM, bytes.unwrap_or_default()).unwrap();
        check("pepper", query, bytes, &parameters)
    }

    #[test]
    fn both_kinds_hold_in_query_and_body() {
        let text = "app_key=a&device_id=d%201";
        let by_256 = format!("{text}&checksum256={}", sha256(text, "pepper"));
        let by_1 = format!("{text}&checksum={}", sha1(text, "pepper").to_uppercase());
        assert_eq!(verdict(&by_256, None), Ok(()));
        assert_eq!(verdict(&by_1, None), Ok(()));
        assert_eq!(verdict("", Some(&by_256)), Ok(()));
        assert_eq!(verdict("", Some(&by_1)), Ok(()));
        assert_eq!(
            verdict(&by_256.replace("d%201", "d%202"), None),
            Err(Mismatch::Wrong)
        );
        assert_eq!(verdict(text, None), Err(Mismatch::Missing));
    }
}
