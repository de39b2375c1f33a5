//! Requests for people. What comes from clients is shown without control characters.

use std::io::{self, Write};

use serde_json::Value;

use crate::terminal::{clean, columns};

/// Longer keys are cut in tables.
const KEY_CHARS_MAX: usize = 36;

pub(super) fn requests(output: &mut impl Write, requests: &[Value]) -> io::Result<()> {
    let heads = [
        "ID",
        "ACCEPTED",
        "APPLICATION",
        "KEY",
        "STATE",
        "REASON",
        "STATUS",
        "ATTEMPTS",
        "BYTES",
    ];
    let mut rows: Vec<Vec<String>> = vec![heads.map(str::to_owned).into()];
    for request in requests {
        let verdict = &request["verdict"];
        rows.push(vec![
            text(&request["id"]),
            text(&request["acceptedAt"]),
            text(&request["application"]),
            short(&bytes(request, "key")),
            text(&request["state"]),
            text(&verdict["reason"]),
            verdict["httpStatus"]
                .as_u64()
                .filter(|status| *status > 0)
                .map_or_else(dash, |status| status.to_string()),
            text(&verdict["attempts"]),
            text(&request["bytes"]),
        ]);
    }
    columns(output, &rows)
}

pub(super) fn request(output: &mut impl Write, shown: &Value) -> io::Result<()> {
    let verdict = &shown["verdict"];
    let request = &shown["request"];
    let lines = [
        ("id", text(&shown["id"])),
        ("application", text(&shown["application"])),
        ("key", bytes(shown, "key")),
        ("barrier", bytes(shown, "barrier")),
        ("accepted", text(&shown["acceptedAt"])),
        ("state", text(&shown["state"])),
        ("reason", text(&verdict["reason"])),
        ("status", text(&verdict["httpStatus"])),
        ("attempts", text(&verdict["attempts"])),
        ("upstream", text(&verdict["upstream"])),
        ("settled", text(&verdict["at"])),
        ("replay of", text(&shown["replayOf"])),
        ("client", text(&request["client"])),
        ("unreadable", text(&request["error"])),
    ];
    for (name, value) in lines {
        if value != "-" {
            writeln!(output, "{name:12} {value}")?;
        }
    }
    writeln!(output)?;
    writeln!(
        output,
        "{} {}",
        text(&request["method"]),
        bytes(request, "target")
    )?;
    for header in request["headers"].as_array().into_iter().flatten() {
        writeln!(output, "{}: {}", text(&header[0]), text(&header[1]))?;
    }
    writeln!(output)?;
    match (request["body"].as_str(), request["bodyBase64"].as_str()) {
        (Some(body), _) => writeln!(output, "{}", multiline(body))?,
        (None, Some(body)) => writeln!(output, "base64: {body}")?,
        (None, None) => {}
    }
    if request["bodyTruncated"] == true {
        writeln!(output, "(the first part of {} bytes)", request["bodyBytes"])?;
    }
    Ok(())
}

/// What became of one that was named.
pub(super) fn result(output: &mut impl Write, done: &str, result: &Value) -> io::Result<()> {
    let id = text(&result["id"]);
    match (result["error"].as_str(), result["replayedAs"].as_str()) {
        (Some(problem), _) => writeln!(output, "{id}  failed: {}", clean(problem)),
        (None, Some(new)) => writeln!(output, "{id}  {done} as {}", clean(new)),
        (None, None) => writeln!(output, "{id}  {done}"),
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => clean(text),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => dash(),
    }
}

fn bytes(value: &Value, name: &str) -> String {
    match value[format!("{name}Base64")].as_str() {
        Some(encoded) => format!("base64:{}", clean(encoded)),
        None => text(&value[name]),
    }
}

fn short(text: &str) -> String {
    if text.chars().count() <= KEY_CHARS_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(KEY_CHARS_MAX - 1).collect();
    short.push('\u{2026}');
    short
}

fn multiline(text: &str) -> String {
    let keep = |c: char| c == '\n' || c == '\t' || !c.is_control();
    text.chars()
        .map(|c| if keep(c) { c } else { '\u{fffd}' })
        .collect()
}
