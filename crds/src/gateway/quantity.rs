//! Amounts of memory, CPU and storage, as Kubernetes writes them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The suffixes that people use; no sign and no exponent.
pub(crate) const QUANTITY: &str = "^[0-9]{1,15}(\\.[0-9]{1,9})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$";

/// An amount, as in `500m` or `2Gi`: text, or a whole number.
#[derive(Serialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Quantity(pub String);

impl Quantity {
    /// In thousandths; `None` for what is no quantity.
    pub fn milli(&self) -> Option<u128> {
        milli(&self.0)
    }
}

/// The value of a quantity in thousandths, what is below that left away; `None` for what is no quantity.
pub fn milli(text: &str) -> Option<u128> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: u128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_whole = fraction.is_empty() && number.ends_with('.');
    if whole.is_empty()
        || whole.len() > 15
        || fraction.len() > 9
        || fraction.contains('.')
        || is_whole
    {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let nanos: u128 = format!("{fraction:0<9}").parse().ok()?;
    Some(whole * factor + nanos * factor / 1_000_000_000)
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 500m or 2Gi")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY,
            "maxLength": 32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_have_equal_values() {
        for (a, b) in [
            ("1", "1000m"),
            ("0.5", "500m"),
            ("1Gi", "1024Mi"),
            ("1.5k", "1500"),
        ] {
            assert!(milli(a).is_some());
            assert_eq!(milli(a), milli(b), "{a} {b}");
        }
        for bad in [
            "",
            "Gi",
            ".5",
            "1x",
            "-1",
            "1.2.3",
            "1e3",
            "1234567890123456",
        ] {
            assert_eq!(milli(bad), None, "{bad}");
        }
    }

    #[test]
    fn whole_numbers_are_read() {
        let read: Vec<Quantity> = serde_json::from_str(r#"[2, "2"]"#).unwrap();
        assert_eq!(read[0], read[1]);
    }
}
