//! What a Countly request says that routing and validation need: parameters of the query and of the body, merged. Pure.
//!
//! A parameter of the body wins over one of the query; of several with one name the last counts. Only names that someone
//! asks for are decoded. For a form in parts the text fields stay at hand: the checksum is made of them.

use std::borrow::Cow;
use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::parameters;
use super::multipart::{self, Field};

/// Parameters with a meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Name {
    AppKey,
    DeviceId,
    OldDeviceId,
    Checksum,
    Checksum256,
    AppId,
    UserId,
    SafeApiResponse,
    ApiKey,
    AuthToken,
    Callback,
    Requests,
}

const NAMES: usize = Name::Requests as usize + 1;

impl Name {
    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"app_key" => Self::AppKey,
            b"device_id" => Self::DeviceId,
            b"old_device_id" => Self::OldDeviceId,
            b"checksum" => Self::Checksum,
            b"checksum256" => Self::Checksum256,
            b"app_id" => Self::AppId,
            b"user_id" => Self::UserId,
            b"safe_api_response" => Self::SafeApiResponse,
            b"api_key" => Self::ApiKey,
            b"auth_token" => Self::AuthToken,
            b"callback" => Self::Callback,
            b"requests" => Self::Requests,
            _ => return None,
        })
    }
}

/// A body that says of itself what it is, and is not that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

#[derive(Default)]
pub struct Form<'a> {
    values: [Option<Cow<'a, [u8]>>; NAMES],
    /// One per parameter that the user requires, in their order.
    present: Vec<bool>,
    /// Of a body in parts.
    fields: Option<Vec<Field<'a>>>,
}

impl<'a> Form<'a> {
    /// `required`: parameters whose presence will be asked for. The body counts for POST only, as it does upstream.
    pub fn read(
        method: &Method,
        query: &'a [u8],
        headers: &HeaderMap,
        body: &'a [u8],
        required: &[&str],
    ) -> Result<Self, Malformed> {
        let mut form = Self {
            present: vec![false; required.len()],
            ..Self::default()
        };
        form.read_pairs(query, required);
        if *method == Method::POST && !body.is_empty() {
            form.read_body(headers, body, required)?;
        }
        Ok(form)
    }

    fn read_body(
        &mut self,
        headers: &HeaderMap,
        body: &'a [u8],
        required: &[&str],
    ) -> Result<(), Malformed> {
        let content_type = headers
            .get(CONTENT_TYPE)
            .map_or(Ok(""), |value| value.to_str().map_err(|_| Malformed))?;
        if let Some(boundary) = multipart::boundary(content_type) {
            let fields = boundary
                .and_then(|boundary| multipart::fields(body, boundary))
                .map_err(|_| Malformed)?;
            for Field { name, value } in &fields {
                self.set(name, required, || Cow::Borrowed(value));
            }
            self.fields = Some(fields);
            return Ok(());
        }
        match content_type.split(';').next().unwrap_or("").trim() {
            kind if kind.eq_ignore_ascii_case("application/json") => self.read_json(body, required),
            // Beacons and old clients do not say what they send.
            kind if kind.is_empty()
                || kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
                || kind.eq_ignore_ascii_case("text/plain") =>
            {
                self.read_pairs(body, required);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read_pairs(&mut self, text: &'a [u8], required: &[&str]) {
        for (name, value) in parameters::pairs(text) {
            self.set(&parameters::decode(name), required, || {
                parameters::decode(value)
            });
        }
    }

    fn read_json(&mut self, body: &'a [u8], required: &[&str]) -> Result<(), Malformed> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = json.deserialize_map(Object {
            form: self,
            required,
        });
        read.and_then(|()| json.end()).map_err(|_| Malformed)
    }

    fn set(&mut self, name: &[u8], required: &[&str], value: impl FnOnce() -> Cow<'a, [u8]>) {
        let is_required = required.iter().position(|asked| asked.as_bytes() == name);
        let known = Name::of(name);
        if known.is_none() && is_required.is_none() {
            return;
        }
        let value = value();
        if let Some(index) = is_required {
            self.present[index] = !value.is_empty();
        }
        if let Some(name) = known {
            self.values[name as usize] = Some(value);
        }
    }

    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.values[name as usize].as_deref()
    }

    /// There and not empty.
    pub fn non_empty(&self, name: Name) -> Option<&[u8]> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Which of the required parameters are there.
    pub fn present(&self) -> &[bool] {
        &self.present
    }

    /// What the checksum of a body is made of.
    pub fn signed_body<'b>(&self, body: &'b [u8]) -> Cow<'b, [u8]> {
        let Some(fields) = &self.fields else {
            // Upstream reads the body as text before it hashes it.
            return match String::from_utf8_lossy(body) {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
        };
        let mut text = Vec::with_capacity(body.len());
        for Field { name, value } in fields {
            if !text.is_empty() {
                text.push(b'&');
            }
            text.extend_from_slice(name);
            text.push(b'=');
            text.extend_from_slice(value);
        }
        Cow::Owned(text)
    }
}

/// A JSON value as a parameter: text of a string, nothing for what counts as nothing, else its JSON.
pub fn json_parameter<'a>(value: &'a RawValue) -> Cow<'a, [u8]> {
    let json = value.get();
    match json {
        "null" | "false" | "0" => Cow::Borrowed(b""),
        _ if json.starts_with('"') => match serde_json::from_str::<Text<'a>>(json) {
            Ok(Text(Cow::Borrowed(text))) => Cow::Borrowed(text.as_bytes()),
            Ok(Text(Cow::Owned(text))) => Cow::Owned(text.into_bytes()),
            Err(_) => Cow::Borrowed(b""),
        },
        _ => Cow::Borrowed(json.as_bytes()),
    }
}

/// Borrowed when nothing is escaped.
#[derive(serde::Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

struct Object<'f, 'a> {
    form: &'f mut Form<'a>,
    required: &'f [&'f str],
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { form, required } = self;
        while let Some(Text(name)) = map.next_key()? {
            let wanted =
                Name::of(name.as_bytes()).is_some() || required.iter().any(|asked| *asked == name);
            if wanted {
                let value: &'de RawValue = map.next_value()?;
                form.set(name.as_bytes(), required, || json_parameter(value));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}
