//! Bodies of type `multipart/form-data` (RFC 7578): their text fields, in order. Pure; nothing is copied.
//!
//! A body that does not end with its closing delimiter, or has a part without a name, is broken: it was cut or garbled
//! on the way, and the upstream would read something else into it than we do.

use memchr::memmem;
use thiserror::Error;

/// RFC 2046 section 5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;
/// Headers of one part: a name and a type.
const PART_HEAD_BYTES_MAX: usize = 4 * 1024;
/// A form with more parts is no client's.
const PARTS_MAX: usize = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("broken multipart body")]
pub struct Broken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
}

/// The boundary that the content type names; `None`: not a form of this kind at all.
pub fn boundary(content_type: &str) -> Option<Result<&str, Broken>> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim().trim_matches('"'))
    });
    Some(
        boundary
            .filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()))
            .ok_or(Broken),
    )
}

/// Text fields in the order of their arrival; files are left out.
pub fn fields<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Field<'a>>, Broken> {
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(&delimiter);
    let mut fields = Vec::new();
    // The first delimiter may stand at the very beginning, without a line before it.
    let mut rest = match body.strip_prefix(&delimiter.as_bytes()[2..]) {
        Some(rest) => rest,
        None => {
            let at = finder.find(body).ok_or(Broken)?;
            &body[at + delimiter.len()..]
        }
    };
    for _ in 0..=PARTS_MAX {
        if rest.starts_with(b"--") {
            return Ok(fields);
        }
        rest = after_line(rest).ok_or(Broken)?;
        let end = finder.find(rest).ok_or(Broken)?;
        fields.extend(part(&rest[..end])?);
        rest = &rest[end + delimiter.len()..];
    }
    Err(Broken)
}

/// What follows the blanks and the line end.
fn after_line(rest: &[u8]) -> Option<&[u8]> {
    let blanks = rest
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    rest[blanks..].strip_prefix(b"\r\n")
}

/// `None`: a file.
fn part(part: &[u8]) -> Result<Option<Field<'_>>, Broken> {
    let head = &part[..part.len().min(PART_HEAD_BYTES_MAX)];
    let end = memmem::find(head, b"\r\n\r\n").ok_or(Broken)?;
    let value = &part[end + 4..];
    let disposition = head[..end]
        .split(|byte| *byte == b'\n')
        .find_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            line[..colon]
                .eq_ignore_ascii_case(b"content-disposition")
                .then(|| &line[colon + 1..])
        })
        .ok_or(Broken)?;
    let is_file = parameter(disposition, b"filename").is_some()
        || parameter(disposition, b"filename*").is_some();
    let name = parameter(disposition, b"name").ok_or(Broken)?;
    Ok((!is_file).then_some(Field { name, value }))
}

/// A parameter of a header value: `; name="value"` or `; name=value`.
fn parameter<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = header;
    loop {
        let at = memchr::memchr(b';', rest)?;
        rest = rest[at + 1..].trim_ascii_start();
        let equals = memchr::memchr2(b'=', b';', rest)?;
        if rest[equals] == b';' {
            continue;
        }
        let found = rest[..equals].trim_ascii();
        rest = &rest[equals + 1..];
        // A quoted value may hold a semicolon.
        let value = match rest.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = memchr::memchr(b'"', quoted)?;
                rest = &quoted[end + 1..];
                &quoted[..end]
            }
            None => {
                let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
                let value = rest[..end].trim_ascii();
                rest = &rest[end..];
                value
            }
        };
        if found.eq_ignore_ascii_case(name) {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn text(body: &str, boundary: &str) -> Result<Vec<(String, String)>, Broken> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(fields(body.as_bytes(), boundary)?
            .iter()
            .map(|field| (text(field.name), text(field.value)))
            .collect())
    }

    #[test]
    fn boundaries() {
        assert_eq!(boundary("multipart/form-data; boundary=x"), Some(Ok("x")));
        assert_eq!(
            boundary("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\""),
            Some(Ok("a b"))
        );
        assert_eq!(boundary("application/json"), None);
        for broken in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            &format!("multipart/form-data; boundary={}", "x".repeat(71)),
        ] {
            assert_eq!(boundary(broken), Some(Err(Broken)), "{broken}");
        }
    }

    #[test]
    fn text_fields_in_order_and_no_files() {
        let body = "preamble\r\n--x\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n1\r\n2\r\n\
            --x  \r\ncontent-type: image/png\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a;b.png\"\r\n\r\n\0\r\n\
            --x\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--x--\r\nepilogue";
        assert_eq!(
            text(body, "x"),
            Ok(vec![
                ("b".to_owned(), "1\r\n2".to_owned()),
                ("a".to_owned(), String::new())
            ])
        );
        assert_eq!(text("--x--", "x"), Ok(vec![]));
        assert_eq!(text("--x--\r\n", "x"), Ok(vec![]));
    }

    #[test]
    fn what_is_cut_or_garbled_is_broken() {
        for body in [
            "",
            "--",
            "--x",
            "--x\r\n",
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nvalue",
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nvalue\r\n--x",
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nvalue\r\n--x-",
            "--x\r\nContent-Disposition: form-data; name=\"a\r\n\r\nvalue\r\n--x--",
            "--x\r\nContent-Disposition: form-data\r\n\r\nvalue\r\n--x--",
            "--x\r\nX: form-data; name=\"a\"\r\n\r\nvalue\r\n--x--",
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\nvalue\r\n--x--",
            "--xy\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nvalue\r\n--x--",
        ] {
            assert_eq!(text(body, "x"), Err(Broken), "{body:?}");
        }
        let many =
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n".repeat(PARTS_MAX + 1);
        assert_eq!(text(&format!("{many}--x--"), "x"), Err(Broken));
    }

    proptest! {
        #[test]
        fn fields_come_back(values in vec(("[a-z]{1,8}", "[ -~]{0,30}"), 0..8)) {
            let mut body = String::new();
            for (name, value) in &values {
                body += &format!("--bound\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            }
            body += "--bound--\r\n";
            prop_assert_eq!(text(&body, "bound"), Ok(values));
        }

        #[test]
        fn no_bytes_panic(body in vec(prop_oneof![Just(b'-'), Just(b'\r'), Just(b'\n'), Just(b'x'), any::<u8>()], 0..200)) {
            let _ = fields(&body, "x");
        }
    }
}
