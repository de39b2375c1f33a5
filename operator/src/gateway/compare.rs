//! Whether an object is as it is wanted: a question about the fields that the operator has an opinion about.
//!
//! What the API server or others added does not count: other fields of objects, other entries of maps, other entries of
//! lists that are told apart by name. Amounts are compared by value, as the API server writes them its own way.

use serde_json::Value;
use sluice_crds::gateway::quantity;

/// By these entries of lists are told apart, as server-side apply does.
const LIST_KEYS: [&str; 3] = ["name", "uid", "mountPath"];

/// Whether the wanted is part of what is there.
pub(super) fn holds(wanted: &Value, live: Option<&Value>) -> bool {
    match (wanted, live) {
        (wanted, None | Some(Value::Null)) => is_empty(wanted),
        (Value::Object(wanted), Some(Value::Object(live))) => wanted
            .iter()
            .all(|(key, wanted)| holds(wanted, live.get(key))),
        (Value::Array(wanted), Some(Value::Array(live))) => list_holds(wanted, live),
        (Value::String(wanted), Some(Value::String(live))) => {
            wanted == live || is_same_amount(wanted, live)
        }
        (wanted, Some(live)) => wanted == live,
    }
}

fn list_holds(wanted: &[Value], live: &[Value]) -> bool {
    let Some(key) = key_of(wanted) else {
        return wanted.len() == live.len()
            && wanted
                .iter()
                .zip(live)
                .all(|(wanted, live)| holds(wanted, Some(live)));
    };
    wanted.iter().all(|wanted| {
        let same = live.iter().find(|live| live.get(key) == wanted.get(key));
        holds(wanted, same)
    })
}

/// What tells the entries of a list apart, if they can be.
fn key_of(list: &[Value]) -> Option<&'static str> {
    let has = |key: &&str| !list.is_empty() && list.iter().all(|entry| entry.get(key).is_some());
    // A volume mount has a name, but may be there twice.
    let mounts = list.iter().all(|entry| entry.get("mountPath").is_some());
    let mut keys = LIST_KEYS.into_iter();
    keys.find(|key| has(key) && (*key != "name" || !mounts))
}

/// What the API server does not store.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_same_amount(a: &str, b: &str) -> bool {
    quantity::milli(a).is_some_and(|a| quantity::milli(b) == Some(a))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn additions_of_others_do_not_count() {
        let wanted = json!({"a": {"b": 1}, "l": [{"name": "x", "v": 1}], "e": {}, "n": []});
        let live = json!({
            "a": {"b": 1, "c": 2}, "l": [{"name": "y"}, {"name": "x", "v": 1, "w": 2}], "s": {}
        });
        assert!(holds(&wanted, Some(&live)));
    }

    #[test]
    fn changes_count() {
        let wanted = json!({"a": 1, "l": [{"name": "x", "v": 1}], "p": ["a", "b"]});
        for live in [
            json!({"a": 2, "l": [{"name": "x", "v": 1}], "p": ["a", "b"]}),
            json!({"l": [{"name": "x", "v": 1}], "p": ["a", "b"]}),
            json!({"a": 1, "l": [{"name": "x", "v": 2}], "p": ["a", "b"]}),
            json!({"a": 1, "l": [], "p": ["a", "b"]}),
            json!({"a": 1, "l": [{"name": "x", "v": 1}], "p": ["a", "b", "c"]}),
            json!({"a": 1, "l": [{"name": "x", "v": 1}], "p": ["b", "a"]}),
        ] {
            assert!(!holds(&wanted, Some(&live)), "{live}");
        }
        assert!(!holds(&wanted, None));
    }

    #[test]
    fn amounts_are_compared_by_value() {
        let wanted = json!({"cpu": "1000m", "memory": "1024Mi"});
        assert!(holds(&wanted, Some(&json!({"cpu": "1", "memory": "1Gi"}))));
        assert!(!holds(&wanted, Some(&json!({"cpu": "2", "memory": "1Gi"}))));
    }

    #[test]
    fn the_same_volume_may_be_mounted_twice() {
        let wanted = json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]);
        assert!(holds(&wanted, Some(&wanted)));
        let live = json!([{"name": "v", "mountPath": "/b"}, {"name": "v", "mountPath": "/c"}]);
        assert!(!holds(&wanted, Some(&live)));
    }
}
