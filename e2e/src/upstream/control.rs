//! The control endpoint: settings, sums, records, users, copies of requests. JSON both ways.

use std::cell::RefCell;

use serde::Serialize;
use serde_json::Value;

use super::incoming::Reply;
use super::state::State;
use crate::load::clock::now_ns;

/// Answers a request to the control endpoint.
pub fn answer(state: &RefCell<State>, path: &str, query: &str, body: &[u8]) -> Reply {
    let mut state = state.borrow_mut();
    match path {
        "/_control" if body.is_empty() => json(&state.settings),
        "/_control" => match patch(&mut state, body) {
            Ok(()) => json(&state.settings),
            Err(error) => Reply::result(400, &format!("{error:#}")),
        },
        "/_stats" => json(&state.stats()),
        "/_records" => {
            let from = query
                .strip_prefix("from=")
                .and_then(|from| from.parse().ok());
            json(&state.records.get(from.unwrap_or(0)..).unwrap_or_default())
        }
        "/_users" => json(&state.oracle.summaries().collect::<Vec<_>>()),
        "/_requests" => json(&state.copies),
        "/_reset" => {
            state.reset();
            Reply::result(200, "Success")
        }
        _ => Reply::result(404, "Not found"),
    }
}

fn patch(state: &mut State, body: &[u8]) -> anyhow::Result<()> {
    let patch: Value = serde_json::from_slice(body)?;
    state.settings = state.settings.patched(&patch, now_ns())?;
    Ok(())
}

fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_string(value) {
        Ok(text) => Reply::json(200, text),
        Err(error) => Reply::result(500, &error.to_string()),
    }
}
