//! The parameters of a request: of its query and of its body, which wins.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a body could not be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("multipart body without its boundary")]
    Multipart,
    #[error("body is not JSON")]
    Json,
}

/// Parameters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    values: BTreeMap<String, String>,
    /// Text fields of a multipart body as `k=v&k=v`, as they came; what its checksum is made of.
    pub multipart_text: Option<String>,
    /// Names of the files of a multipart body.
    pub files: Vec<String>,
}

impl Parameters {
    /// Of a request with this query (without `?`), content type and body.
    pub fn of(query: &str, content_type: &str, body: &[u8]) -> Result<Self, Malformed> {
        let mut all = Self::default();
        all.add_form(query.as_bytes());
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("multipart/form-data") {
            all.add_multipart(content_type, body)?;
        } else if kind.eq_ignore_ascii_case("application/json") && !body.is_empty() {
            let value = serde_json::from_slice(body).map_err(|_| Malformed::Json)?;
            all.add_json(&value);
        } else if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            all.add_form(body);
        }
        Ok(all)
    }

    /// Of an item of a bulk request.
    #[must_use]
    pub fn of_item(item: &Value) -> Self {
        let mut all = Self::default();
        all.add_json(item);
        all
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    fn add_form(&mut self, text: &[u8]) {
        for (name, value) in form_urlencoded::parse(text) {
            self.values.insert(name.into_owned(), value.into_owned());
        }
    }

    fn add_json(&mut self, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            self.values.insert(name.clone(), text);
        }
    }

    fn add_multipart(&mut self, content_type: &str, body: &[u8]) -> Result<(), Malformed> {
        let boundary = content_type
            .split(';')
            .filter_map(|part| part.trim().strip_prefix("boundary="))
            .map(|value| value.trim_matches('"'))
            .next()
            .ok_or(Malformed::Multipart)?;
        let mut text = Vec::new();
        for part in parts(body, boundary).ok_or(Malformed::Multipart)? {
            let (head, content) = split_at(part, b"\r\n\r\n").ok_or(Malformed::Multipart)?;
            let head = String::from_utf8_lossy(head);
            let name = quoted(&head, "name=\"").ok_or(Malformed::Multipart)?;
            if quoted(&head, "filename=\"").is_some() {
                self.files.push(name.to_owned());
                continue;
            }
            let content = String::from_utf8_lossy(content).into_owned();
            text.push(format!("{name}={content}"));
            self.values.insert(name.to_owned(), content);
        }
        self.multipart_text = Some(text.join("&"));
        Ok(())
    }
}

/// What lies between the boundaries; `None` when the last one is missing.
fn parts<'a>(body: &'a [u8], boundary: &str) -> Option<Vec<&'a [u8]>> {
    let delimiter = format!("--{boundary}");
    let between = format!("\r\n{delimiter}");
    let mut rest = split_at(body, delimiter.as_bytes())?.1;
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Some(parts);
        }
        let (part, after) = split_at(rest.strip_prefix(b"\r\n")?, between.as_bytes())?;
        parts.push(part);
        rest = after;
    }
}

fn split_at<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memchr::memmem::find(text, separator)?;
    Some((&text[..at], &text[at + separator.len()..]))
}

fn quoted<'a>(head: &'a str, before: &str) -> Option<&'a str> {
    // `filename="` ends in `name="` too.
    let at = head
        .match_indices(before)
        .map(|(at, _)| at)
        .find(|at| *at == 0 || !head.as_bytes()[at - 1].is_ascii_alphabetic())?;
    head[at + before.len()..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_wins_over_the_query() {
        let form = "application/x-www-form-urlencoded";
        let all = Parameters::of("a=1&b=2%203", form, b"a=9").unwrap();
        assert_eq!((all.get("a"), all.get("b")), (Some("9"), Some("2 3")));
        let json = Parameters::of("a=1", "application/json", br#"{"a":5,"e":[1]}"#).unwrap();
        assert_eq!((json.number("a"), json.get("e")), (Some(5), Some("[1]")));
        assert_eq!(
            Parameters::of("", "application/json", b"{"),
            Err(Malformed::Json)
        );
    }

    #[test]
    fn multipart_fields_and_files_are_told_apart() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"device_id\"\r\n\r\nd 1\r\n\
            --x\r\nContent-Disposition: form-data; name=\"picture\"; filename=\"p.png\"\r\n\
            Content-Type: image/png\r\n\r\n\x89PNG\r\n--x\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n\
            7\r\n--x--\r\n";
        let all = Parameters::of("", "multipart/form-data; boundary=x", body).unwrap();
        assert_eq!(all.multipart_text.as_deref(), Some("device_id=d 1&n=7"));
        assert_eq!(
            (all.number("n"), all.files),
            (Some(7), vec!["picture".to_owned()])
        );
        let cut = &body[..body.len() - 8];
        assert_eq!(
            Parameters::of("", "multipart/form-data; boundary=x", cut),
            Err(Malformed::Multipart)
        );
    }
}
