//! Follows references to keys of Secrets and ConfigMaps.

use crate::config::Secret;
use crate::gateway::SecretKey;
use crate::objects::{Data, Holder};
use crate::problem::{Reason, nearest, quoted};

use super::Context;

/// What is wrong with a blank value, and what to do.
pub(super) const BLANK: (&str, &str) = ("the value is blank", "give it a value");
/// What is wrong with a value that an editor or `echo` has ended, and what to do.
pub(super) const LINE_BREAK: (&str, &str) = (
    "the value ends with a line break",
    "write it without, as printf does and echo does not",
);

/// The data of an object; reports at `field` when there is none.
pub(super) fn object<'a>(
    holder: Holder,
    name: &str,
    field: &str,
    context: &mut Context<'a>,
) -> Option<&'a Data> {
    let data = context.objects.data(holder, context.namespace, name);
    if data.is_none() {
        let what = format!(
            "{} {}/{name} does not exist",
            holder.kind(),
            context.namespace
        );
        let instead = format!("add the {}, or name one that exists", holder.kind());
        context.problem_because(Reason::RefNotFound, field, what, instead);
    }
    data
}

/// The value under a key that must exist; `field` is the path of the key's name.
pub(super) fn value(
    data: &Data,
    kind: &str,
    name: &str,
    key: &str,
    field: &str,
    context: &mut Context<'_>,
) -> Option<Secret> {
    let Some(value) = data.get(key) else {
        let what = format!(
            "{kind} {}/{name} has no key {}",
            context.namespace,
            quoted(key)
        );
        let instead = match nearest(key, data.keys().map(String::as_str)) {
            Some(near) => format!("write {near}"),
            None if data.is_empty() => "add the key to it".to_owned(),
            None => format!("add it, or name one of its {} keys", data.len()),
        };
        context.problem_because(Reason::RefNotFound, field, what, instead);
        return None;
    };
    if value.expose().is_empty() {
        let what = format!(
            "key {} of {kind} {}/{name} is empty",
            quoted(key),
            context.namespace
        );
        context.problem(field, what, "give it a value");
        return None;
    }
    Some(value.clone())
}

/// The value that a reference at `path` names.
pub(super) fn follow(
    holder: Holder,
    key: &SecretKey,
    path: &str,
    context: &mut Context<'_>,
) -> Option<Secret> {
    let data = object(holder, &key.name, &format!("{path}.name"), context)?;
    value(
        data,
        holder.kind(),
        &key.name,
        &key.key,
        &format!("{path}.key"),
        context,
    )
}

/// A password-like value of a Secret. One line of text that ends with a line break got it by accident, from an editor
/// or from `echo`, and would never match what callers use.
pub(super) fn text(key: &SecretKey, path: &str, context: &mut Context<'_>) -> Option<Secret> {
    let secret = follow(Holder::Secret, key, path, context)?;
    let bytes = secret.expose();
    let is_text = bytes
        .iter()
        .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let field = format!("{path}.key");
    let problem = if bytes.iter().all(u8::is_ascii_whitespace) {
        Some(BLANK)
    } else {
        (is_text && bytes.ends_with(b"\n")).then_some(LINE_BREAK)
    };
    if let Some((what, instead)) = problem {
        context.problem(field, what, instead);
        return None;
    }
    Some(secret)
}
