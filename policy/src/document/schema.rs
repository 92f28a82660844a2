//! The JSON Schema of a policy file, for editors: made from the tables that the reader checks with.

use serde_json::{Map, Value, json};

use super::keys::{KNOWN, Key, POLICY, Shape, Table};

/// The schema, as `deploy/policy.schema.json` holds it.
pub fn schema() -> Value {
    let mut schema = object(&POLICY);
    if let Value::Object(top) = &mut schema {
        top.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        top.insert("title".to_owned(), json!("Outgate policy"));
    }
    schema
}

fn object(table: &Table) -> Value {
    let properties: Map<String, Value> =
        table.keys.iter().map(|key| (key.name.to_owned(), described(key))).collect();
    let required: Vec<&str> = table.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn described(key: &Key) -> Value {
    let mut value = shape(&key.shape);
    value["description"] = json!(key.help);
    value
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Version => json!({ "const": 1 }),
        Shape::Text => json!({ "type": "string", "minLength": 1 }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Size => json!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$" },
        ] }),
        Shape::Window => json!({ "type": "string", "pattern": "^[0-9]+ *[smhd]$" }),
        Shape::Word(_, words) => json!({ "enum": words }),
        Shape::Texts(example) => {
            json!({ "type": "array", "items": { "type": "string" }, "examples": [[example]] })
        }
        Shape::Ports => {
            json!({ "type": "array", "items": { "type": "integer", "minimum": 1, "maximum": 65535 } })
        }
        Shape::Time => json!({ "type": "string", "format": "date-time" }),
        Shape::Domains => json!({
            "type": "object",
            "additionalProperties": { "type": "array", "items": { "type": "string" } },
        }),
        Shape::Known => {
            json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, object(&KNOWN)] } })
        }
        Shape::Table(table) => object(table),
        Shape::Tables(table) => json!({ "type": "array", "items": object(table) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_in_deploy_is_this_one() {
        let kept = include_str!("../../../deploy/policy.schema.json");
        let made = format!("{:#}\n", schema());
        assert!(
            kept == made,
            "deploy/policy.schema.json is stale: write it anew with `cargo run -p policy --example schema > deploy/policy.schema.json`"
        );
    }
}
