//! From options back to the command line that gives them, so that every record says how to repeat it.

use serde::Serialize;
use serde_json::Value;

/// The long flags that turn `defaults` into `options`, in the order of the fields. Both are one flat struct whose
/// fields serialise under the names of their flags.
pub fn to_args<T: Serialize>(options: &T, defaults: &T) -> Vec<String> {
    let (Ok(Value::Object(options)), Ok(Value::Object(defaults))) =
        (serde_json::to_value(options), serde_json::to_value(defaults))
    else {
        return Vec::new();
    };
    options
        .iter()
        .filter(|(name, value)| defaults.get(*name) != Some(value))
        .map(|(name, value)| match value {
            Value::String(text) => format!("--{name}={text}"),
            other => format!("--{name}={other}"),
        })
        .collect()
}
