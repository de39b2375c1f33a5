//! Numbers, texts and choices against their schema.

use std::time::Duration;

use serde_json::Value;

use crate::gateway::DURATION;
use crate::problem::{nearest, quoted};
use crate::resolve::{duration, pattern};

use super::name_of;

/// What is wrong, and what to write instead.
type Finding = (String, String);

pub(super) fn check(schema: &Value, value: &Value, path: &str) -> Result<(), Finding> {
    match (super::kind(schema), value) {
        ("integer", Value::Number(number)) => {
            let (min, max) = range(schema);
            match number.as_i64() {
                Some(number) if (min..=max).contains(&number) => Ok(()),
                _ => {
                    let what = if path.ends_with(".port") {
                        "is not a port"
                    } else {
                        "is out of range"
                    };
                    Err((
                        format!("{number} {what}"),
                        format!("write {}", wanted(schema, path)),
                    ))
                }
            }
        }
        ("string", Value::String(text)) => string(schema, text),
        ("", Value::String(text)) if is_int_or_string(schema) => string(schema, text),
        ("", Value::Number(number)) if is_int_or_string(schema) && number.is_u64() => Ok(()),
        ("string", Value::Number(_) | Value::Bool(_)) if is_free_text(schema) => Err((
            format!("{} stands here", name_of(value)),
            "put it in quotes".to_owned(),
        )),
        (_, other) => Err((
            format!("{} stands here", name_of(other)),
            format!("write {}", wanted(schema, path)),
        )),
    }
}

fn string(schema: &Value, text: &str) -> Result<(), Finding> {
    if let Some(choices) = choices(schema) {
        if choices.contains(&text) {
            return Ok(());
        }
        let instead = match nearest(text, choices.iter().copied()) {
            Some(near) => format!("write {near}"),
            None => format!("write {}", wanted(schema, "")),
        };
        return Err((
            format!("{} is not one of the choices", quoted(text)),
            instead,
        ));
    }
    let chars = text.chars().count() as u64;
    let length = |key| schema.get(key).and_then(Value::as_u64);
    if length("minLength").is_some_and(|min| chars < min) {
        return Err((
            "too short".to_owned(),
            format!("write {}", wanted(schema, "")),
        ));
    }
    if let Some(max) = length("maxLength").filter(|max| chars > *max) {
        return Err((
            format!("{chars} characters are too many"),
            format!("write at most {max}"),
        ));
    }
    let Some(known) = schema.get("pattern").and_then(Value::as_str) else {
        return Ok(());
    };
    if !pattern::matches(known, text) {
        return Err((
            format!("{} is not {}", quoted(text), pattern::noun(known)),
            format!("write {}", wanted(schema, "")),
        ));
    }
    match (known == DURATION)
        .then(|| duration_bounds(schema))
        .flatten()
    {
        Some((min, max, _))
            if duration::parse(text).is_some_and(|time| time < min || time > max) =>
        {
            Err((
                format!("{text} is out of range"),
                format!("write {}", wanted(schema, "")),
            ))
        }
        _ => Ok(()),
    }
}

/// A value of the schema, in words.
pub(super) fn wanted(schema: &Value, path: &str) -> String {
    if let Some(choices) = choices(schema) {
        return match choices.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} or {last}", others.join(", "))
            }
            _ => choices.join(""),
        };
    }
    match super::kind(schema) {
        "integer" => {
            let (min, max) = range(schema);
            format!("a number from {min} to {max}")
        }
        "array" => "a list".to_owned(),
        "object" => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let fields: Vec<String> = properties
                .into_iter()
                .flat_map(|fields| fields.keys())
                .map(|field| format!("{field}: ..."))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        _ => match schema.get("pattern").and_then(Value::as_str) {
            Some(DURATION) => match duration_bounds(schema) {
                Some((_, _, bounds)) => format!("a duration from {bounds}"),
                None => pattern::description(DURATION).to_owned(),
            },
            Some(known) => pattern::description(known).to_owned(),
            None if path.is_empty() => "some text".to_owned(),
            None => "text".to_owned(),
        },
    }
}

fn is_int_or_string(schema: &Value) -> bool {
    schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
}

/// Whether a number or `true` may have been meant as text.
fn is_free_text(schema: &Value) -> bool {
    schema.get("enum").is_none() && schema.get("pattern").is_none()
}

fn range(schema: &Value) -> (i64, i64) {
    // The bounds of this API are small whole numbers; Kubernetes types them as floats.
    let bound = |key| {
        schema
            .get(key)
            .and_then(Value::as_f64)
            .map(|bound| bound as i64)
    };
    (
        bound("minimum").unwrap_or(i64::MIN),
        bound("maximum").unwrap_or(i64::MAX),
    )
}

fn choices(schema: &Value) -> Option<Vec<&str>> {
    let choices = schema.get("enum")?.as_array()?;
    Some(choices.iter().filter_map(Value::as_str).collect())
}

/// Least and greatest duration, and both in words, from the one CEL rule that duration fields have.
fn duration_bounds(schema: &Value) -> Option<(Duration, Duration, String)> {
    let rule = schema
        .pointer("/x-kubernetes-validations/0/rule")?
        .as_str()?;
    let mut bounds = rule
        .split("duration('")
        .skip(1)
        .filter_map(|rest| rest.split('\'').next());
    let (min, max) = (bounds.next()?, bounds.next()?);
    Some((
        duration::parse(min)?,
        duration::parse(max)?,
        format!("{min} to {max}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_rules_are_understood() {
        let rule = "duration(self) >= duration('1s') && duration(self) <= duration('10m')";
        let schema = serde_json::json!({
            "type": "string", "pattern": DURATION, "x-kubernetes-validations": [{"rule": rule}]
        });
        assert!(string(&schema, "1s").is_ok() && string(&schema, "10m").is_ok());
        for bad in ["999ms", "11m", "ten", "-1s"] {
            assert!(string(&schema, bad).is_err(), "{bad}");
        }
        assert_eq!(wanted(&schema, ""), "a duration from 1s to 10m");
    }
}
