use super::*;
use crate::resolve::pattern;

fn every(schema: &Value, visit: &mut impl FnMut(&Value)) {
    visit(schema);
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flat_map(Map::values)
        .for_each(|property| every(property, visit));
    schema
        .get("items")
        .into_iter()
        .for_each(|items| every(items, visit));
}

#[test]
fn every_field_is_typed_bounded_and_documented() {
    let mut scalars = 0;
    let mut visit = |schema: &Value| {
        assert!(
            schema.get("description").is_some(),
            "no description: {schema}"
        );
        match kind(schema) {
            "object" if is_open(schema) => {}
            "object" if schema.get("additionalProperties").is_some() => {
                let bounded = schema.get("maxProperties").is_some();
                assert!(bounded, "no maxProperties: {schema}");
            }
            "object" => assert!(schema.get("properties").is_some(), "{schema}"),
            "array" => assert!(schema.get("maxItems").is_some(), "no maxItems: {schema}"),
            "integer" => {
                scalars += 1;
                assert!(
                    schema.get("minimum").is_some() && schema.get("maximum").is_some(),
                    "{schema}"
                );
            }
            "" if schema.get("x-kubernetes-int-or-string").is_some() => {
                assert!(schema.get("pattern").is_some(), "{schema}");
            }
            "string" => {
                scalars += 1;
                assert!(
                    schema.get("enum").is_some() || schema.get("maxLength").is_some(),
                    "{schema}"
                );
            }
            other => panic!("{other:?} is no type of this API: {schema}"),
        }
        if let Some(known) = schema.get("pattern").and_then(Value::as_str) {
            assert!(
                !pattern::matches(known, " "),
                "{known} is not known to `pattern`"
            );
        }
    };
    every(&GATEWAY.spec, &mut visit);
    every(&APPLICATION.spec, &mut visit);
    assert!(scalars > 60, "the walk saw {scalars} fields only");
}

#[test]
fn a_placeholder_fits_the_types() {
    serde_json::from_value::<gateway::GatewaySpec>(placeholder(&GATEWAY.spec)).unwrap();
    serde_json::from_value::<application::ApplicationSpec>(placeholder(&APPLICATION.spec)).unwrap();
}
