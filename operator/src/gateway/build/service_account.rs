//! ServiceAccount of the data plane: it may do nothing, as the data plane never calls Kubernetes.

use serde_json::json;

use crate::kinds::Kind;
use crate::object::{DATA_PLANE, Object, Owner};

pub(super) fn build(owner: &Owner) -> Object {
    let body = json!({"automountServiceAccountToken": false});
    Object::new(Kind::ServiceAccount, owner, DATA_PLANE, &owner.name, body)
}
