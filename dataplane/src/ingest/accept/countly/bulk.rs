//! Requests in bulk: an array of requests in the parameter `requests`. Pure.
//!
//! It is delivered as it came, in one piece. Its application is the first that is known: of the request itself, else of
//! its items. It is ordered with the devices of its items: one is its key, a second its barrier; with more of them it
//! is ordered with everything of its application ([`EVERY_KEY`]), as an entry cannot name them all.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::form::{Text, json_parameter};

/// Different devices that are told apart; beyond it only their being many matters.
const DEVICES_MAX: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Absent, empty or null.
    Missing,
    /// Not an array, or not JSON.
    NotAnArray,
}

/// What routing needs of all items together.
#[derive(Debug, Default, PartialEq)]
pub struct Bulk {
    /// Items, those included that the upstream will skip.
    pub items: u32,
    /// Different keys of items that have a device, in order, while they are few.
    pub app_keys: Vec<Vec<u8>>,
    /// Different devices, at most [`DEVICES_MAX`].
    pub devices: Vec<Vec<u8>>,
    /// The first required parameter that an item lacks.
    pub lacks: Option<usize>,
}

/// Keys that are remembered: a request for more applications than that goes by the first of them.
const APP_KEYS_MAX: usize = 16;

/// `requests`: the parameter's text. `has_app_key`: items without a key of their own have that of the request.
/// `required`: parameters that items need, but for those marked as present already.
pub fn read(
    requests: &[u8],
    has_app_key: bool,
    required: &[&str],
    present: &[bool],
) -> Result<Bulk, Invalid> {
    let text = requests.trim_ascii();
    if matches!(text, b"" | b"null" | b"false" | b"0" | b"\"\"") {
        return Err(Invalid::Missing);
    }
    let mut bulk = Bulk::default();
    let mut json = serde_json::Deserializer::from_slice(text);
    let items = Items(Rules {
        bulk: &mut bulk,
        has_app_key,
        required,
        present,
    });
    json.deserialize_seq(items)
        .and_then(|()| json.end())
        .map_err(|_| Invalid::NotAnArray)?;
    Ok(bulk)
}

struct Rules<'r> {
    bulk: &'r mut Bulk,
    has_app_key: bool,
    required: &'r [&'r str],
    present: &'r [bool],
}

struct Items<'r>(Rules<'r>);

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of requests")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(ItemSeed(&mut self.0))?.is_some() {
            self.0.bulk.items = self.0.bulk.items.saturating_add(1);
        }
        Ok(())
    }
}

struct ItemSeed<'s, 'r>(&'s mut Rules<'r>);

impl<'de> DeserializeSeed<'de> for ItemSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // What is no object is skipped by the upstream.
        let raw = <&RawValue>::deserialize(deserializer)?;
        if raw.get().starts_with('{') {
            let item = ItemVisitor {
                required: self.0.required,
            };
            let item = serde_json::Deserializer::from_str(raw.get())
                .deserialize_map(item)
                .map_err(serde::de::Error::custom)?;
            self.0.take(&item);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Item<'a> {
    app_key: Cow<'a, [u8]>,
    device_id: Cow<'a, [u8]>,
    old_device_id: Cow<'a, [u8]>,
    present: Vec<bool>,
}

impl Rules<'_> {
    fn take(&mut self, item: &Item<'_>) {
        if item.device_id.is_empty() || (item.app_key.is_empty() && !self.has_app_key) {
            return;
        }
        if !item.app_key.is_empty() {
            remember(&mut self.bulk.app_keys, &item.app_key, APP_KEYS_MAX);
        }
        remember(&mut self.bulk.devices, &item.device_id, DEVICES_MAX);
        if !item.old_device_id.is_empty() {
            remember(&mut self.bulk.devices, &item.old_device_id, DEVICES_MAX);
        }
        if self.bulk.lacks.is_none() {
            self.bulk.lacks = item
                .present
                .iter()
                .zip(self.present)
                .position(|(in_item, in_request)| !in_item && !in_request);
        }
    }
}

fn remember(values: &mut Vec<Vec<u8>>, value: &[u8], max: usize) {
    if values.len() < max && !values.iter().any(|known| known == value) {
        values.push(value.to_vec());
    }
}

struct ItemVisitor<'r> {
    required: &'r [&'r str],
}

impl<'de> Visitor<'de> for ItemVisitor<'_> {
    type Value = Item<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut item = Item {
            present: vec![false; self.required.len()],
            ..Item::default()
        };
        while let Some(Text(name)) = map.next_key()? {
            let is_required = self.required.iter().position(|asked| *asked == name);
            let place = match &*name {
                "app_key" => Some(&mut item.app_key),
                "device_id" => Some(&mut item.device_id),
                "old_device_id" => Some(&mut item.old_device_id),
                _ => None,
            };
            if place.is_none() && is_required.is_none() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = json_parameter(map.next_value::<&'de RawValue>()?);
            if let Some(index) = is_required {
                item.present[index] = !value.is_empty();
            }
            if let Some(place) = place {
                *place = value;
            }
        }
        Ok(item)
    }
}
