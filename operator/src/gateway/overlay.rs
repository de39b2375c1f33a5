//! Lays what a user wants otherwise over a pod template.
//!
//! Objects are merged, entries of lists by their `name`, null removes, all else replaces.

use serde_json::Value;

pub(super) fn lay(over: &Value, base: &mut Value) {
    match (over, base) {
        (Value::Object(over), Value::Object(base)) => {
            for (key, over) in over {
                if over.is_null() {
                    base.remove(key);
                } else if let Some(base) = base.get_mut(key) {
                    lay(over, base);
                } else {
                    base.insert(key.clone(), over.clone());
                }
            }
        }
        (Value::Array(over), Value::Array(base)) if are_named(over) && are_named(base) => {
            for entry in over {
                let same = base
                    .iter_mut()
                    .find(|base| base.get("name") == entry.get("name"));
                match same {
                    Some(base) => lay(entry, base),
                    None => base.push(entry.clone()),
                }
            }
        }
        (over, base) => *base = over.clone(),
    }
}

fn are_named(list: &[Value]) -> bool {
    list.iter().all(|entry| entry.get("name").is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn overlays_merge_by_name() {
        let mut base = json!({
            "spec": {"containers": [{"name": "sluice", "image": "a", "args": ["x", "y"]}], "old": 1}
        });
        let over = json!({
            "metadata": {"labels": {"team": "a"}},
            "spec": {
                "old": null,
                "priorityClassName": "high",
                "containers": [{"name": "sluice", "args": ["z"]}, {"name": "side"}]
            }
        });
        lay(&over, &mut base);
        let wanted = json!({
            "metadata": {"labels": {"team": "a"}},
            "spec": {
                "priorityClassName": "high",
                "containers": [{"name": "sluice", "image": "a", "args": ["z"]}, {"name": "side"}]
            }
        });
        assert_eq!(base, wanted);
    }
}
