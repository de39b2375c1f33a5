//! Names of secrets: file names, and keys of a Kubernetes Secret, which are the same letters.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{Secret, secret};

/// Keys of a Kubernetes Secret have at most 253 letters; some are left for telling equal names apart.
const LENGTH_MAX: usize = 230;

/// Puts names in the place of numbers and hands over the secrets under these names.
pub(super) fn give(value: &mut Value, found: &[Secret], secrets: &mut BTreeMap<String, Secret>) {
    walk(value, &mut Vec::new(), found, secrets);
}

/// As deep as the types of the configuration are.
fn walk(
    value: &mut Value,
    path: &mut Vec<String>,
    found: &[Secret],
    secrets: &mut BTreeMap<String, Secret>,
) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let number = value
                    .as_str()
                    .and_then(|text| text.strip_prefix(secret::MARK));
                let number = number.and_then(|number| number.parse::<usize>().ok());
                if let Some(secret) = number.and_then(|number| found.get(number)) {
                    let name = free(path, secrets);
                    secrets.insert(name.clone(), secret.clone());
                    *value = Value::String(name);
                    continue;
                }
                path.push(key.clone());
                walk(value, path, found, secrets);
                path.pop();
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let name = item.get("name").and_then(Value::as_str);
                path.push(name.map_or_else(|| index.to_string(), str::to_owned));
                walk(item, path, found, secrets);
                path.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A name that no other secret has.
fn free(path: &[String], secrets: &BTreeMap<String, Secret>) -> String {
    // No name of an object and no field holds the sign between the parts.
    let mut name = path.join("_");
    if name.len() > LENGTH_MAX {
        name = format!("{}_{:016x}", part(&name), hash(&name));
    }
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fit = name.replace(|c| !is_fit(c), "-");
    // Two names may become the same letters, and stay apart whichever others there are.
    let name = if fit == name {
        fit
    } else {
        format!("{fit}_{:016x}", hash(&name))
    };
    let mut numbered = (2..).map(|number| format!("{name}.{number}"));
    let mut candidate = name.clone();
    while secrets.contains_key(&candidate) {
        candidate = numbered.next().unwrap_or_default();
    }
    candidate
}

fn part(name: &str) -> &str {
    let mut end = LENGTH_MAX - 17;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// FNV-1a: the same in every version, as the names must be.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
