//! The JSON Schema of an experiment file, for editors and for whoever writes such files by program.
//!
//! Derived from the types that read the file: a new option is in it without anybody's doing. It says which keys there are and
//! what their values look like; whether values fit each other, this kernel and the grammar of conditions only
//! `acceptbench check` knows. JSON Schema 2020-12.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use study::quantity::Quantity;

use super::wire::Wire;
use crate::settings::reserved;

/// Names of sysctls that a trial may set.
const SYSCTL_NAME: &str = r"^net[./]";

/// The same as settings.
const SYSCTL_SETTING: &str = r"^sysctl\.net[./]";

/// Entries of the tables within `[target]`, as settings.
const TARGET_SETTING: &str = r"^target\.(values|files)\..";

/// The schema of an experiment file.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Wire>().to_value();
    tidy(&mut schema);
    let Some(defs) = schema.get_mut("$defs").and_then(Value::as_object_mut) else { return schema };
    let names = options(defs);
    defs.insert("setting-name".to_owned(), name_schema(&names));
    defs.insert("settings".to_owned(), settings_schema(&names));
    if let Some(root) = schema.as_object_mut() {
        root.extend(place());
    }
    if let Some(Value::Object(tables)) = schema.get_mut("properties") {
        // Each key has its own; a table's would repeat them, and those that a file cannot set.
        tables.values_mut().filter_map(Value::as_object_mut).for_each(|table| drop(table.remove("default")));
    }
    schema
}

/// Takes the keys that the lab decides itself out of both tables of options; what is left, as settings by full name, with
/// where its schema stands.
fn options(defs: &mut Map<String, Value>) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for (table, def) in [("server", "Server"), ("target", "Target"), ("loadgen", "Loadgen"), ("half-open", "HalfOpen")]
    {
        let Some(keys) = defs.get_mut(def).and_then(|def| def["properties"].as_object_mut()) else { continue };
        keys.retain(|key, _| reserved(&format!("{table}.{key}")).is_none());
        names.extend(keys.keys().map(|key| (format!("{table}.{key}"), format!("#/$defs/{def}/properties/{key}"))));
    }
    for key in ["warm-up", "measure"] {
        names.push((format!("experiment.{key}"), format!("#/$defs/Experiment/properties/{key}")));
    }
    names
}

fn name_schema(names: &[(String, String)]) -> Value {
    let names: Vec<&String> = names.iter().map(|(name, _)| name).collect();
    json!({ "anyOf": [{ "enum": names }, { "type": "string", "pattern": SYSCTL_SETTING }, { "type": "string", "pattern": TARGET_SETTING }] })
}

fn settings_schema(names: &[(String, String)]) -> Value {
    let properties: Map<String, Value> =
        names.iter().map(|(name, place)| (name.clone(), json!({ "$ref": place }))).collect();
    json!({
        "type": "object",
        "properties": properties,
        "patternProperties": { SYSCTL_SETTING: sysctl_value(), TARGET_SETTING: target_value() },
        "additionalProperties": false,
    })
}

/// What a file has depends on where its trials take place.
fn place() -> Map<String, Value> {
    let attached = json!({
        "properties": { "experiment": { "properties": { "topology": { "const": "attached" } }, "required": ["topology"] } },
    });
    let on_a_deployment = json!({
        "required": ["attach"],
        "properties": {
            "experiment": { "required": ["measure"], "properties": { "warm-up": false, "family": false } },
            "server": { "maxProperties": 0 }, "loadgen": { "maxProperties": 0 }, "half-open": { "maxProperties": 0 }, "target": false,
        },
    });
    let in_namespaces = json!({
        "properties": { "attach": false },
        "if": { "required": ["target"] },
        "then": { "properties": { "server": { "maxProperties": 0 } } },
    });
    Map::from_iter([
        ("if".to_owned(), attached),
        ("then".to_owned(), on_a_deployment),
        ("else".to_owned(), in_namespaces),
    ])
}

/// TOML has no null, and a comment's line ends mean nothing.
fn tidy(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(tidy),
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if fields.get("default") == Some(&Value::Null) {
                fields.remove("default");
            }
            if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
                choices.retain(|choice| choice != &json!({ "type": "null" }));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    fields.remove("anyOf");
                    for (key, value) in only {
                        fields.entry(key).or_insert(value);
                    }
                }
            }
            fields.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

fn sysctl_value() -> Value {
    json!({ "type": ["integer", "string"] })
}

fn target_value() -> Value {
    json!({ "type": ["number", "string", "boolean"] })
}

/// The table `[target.values]`.
pub(crate) fn target_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": { "pattern": "^[a-z][a-z0-9-]*$" },
        "additionalProperties": target_value(),
    })
}

/// The `[sysctl]` table.
pub(super) fn sysctls(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": { "pattern": SYSCTL_NAME },
        "additionalProperties": sysctl_value(),
    })
}

/// The full name of a setting; [`schema`] knows them all.
pub(super) fn setting_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "#/$defs/setting-name" })
}

/// Settings by their full names.
pub(super) fn settings(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "#/$defs/settings" })
}

/// Values of one setting.
pub(super) fn values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "items": { "type": ["number", "string", "boolean"] } })
}

/// Tables of settings that go together.
pub(super) fn levels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/settings" } })
}

/// Names of the catalogue.
pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<&str> = Quantity::all().map(|quantity| quantity.name).collect();
    json_schema!({ "type": "array", "items": { "enum": names } })
}

/// NAME OP VALUE, the rest is the grammar's.
pub(super) fn condition(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": r"^\s*\S+\s*(=|!=|<=?|>=?)\s*\S" })
}

/// A factor has `set` and `to`, or `levels`.
pub(super) fn either_way(schema: &mut Schema) {
    schema.insert(
        "oneOf".to_owned(),
        json!([
            { "required": ["set", "to"], "properties": { "levels": false } },
            { "required": ["levels"], "properties": { "set": false, "to": false } },
        ]),
    );
}
