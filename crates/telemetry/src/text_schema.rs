//! What a text may look like, for the JSON Schema of experiment files.
//!
//! Owns [`text_schema!`](crate::text_schema!), which gives a type of [`string_serde!`](crate::string_serde!) its pattern. A
//! pattern tells an editor what to write; whether a value makes sense only `FromStr` knows, so a pattern may let more pass
//! than that does.

/// Implements `JsonSchema` for a type that is written as text: a regular expression for the whole text, and what a bare
/// number may be if numbers are taken too.
///
/// ```
/// struct Port;
/// telemetry::text_schema!(Port, "[0-9]+", or { "type": "integer", "minimum": 1 });
///
/// let schema = schemars::SchemaGenerator::default().subschema_for::<Port>();
/// assert_eq!(schema.as_value()["anyOf"][0]["pattern"], "^([0-9]+)$");
/// ```
#[macro_export]
macro_rules! text_schema {
    ($type:ty, $pattern:expr) => {
        $crate::text_schema!(@ $type, $crate::text_schema::schemars::json_schema!({
            "type": "string",
            "pattern": ::std::format!("^({})$", $pattern),
        }));
    };
    ($type:ty, $pattern:expr, or $number:tt) => {
        $crate::text_schema!(@ $type, $crate::text_schema::schemars::json_schema!({
            "anyOf": [{ "type": "string", "pattern": ::std::format!("^({})$", $pattern) }, $number],
        }));
    };
    (@ $type:ty, $schema:expr) => {
        impl $crate::text_schema::schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                ::std::stringify!($type).into()
            }

            fn schema_id() -> ::std::borrow::Cow<'static, str> {
                ::std::concat!(::std::module_path!(), "::", ::std::stringify!($type)).into()
            }

            fn json_schema(
                _: &mut $crate::text_schema::schemars::SchemaGenerator,
            ) -> $crate::text_schema::schemars::Schema {
                $schema
            }
        }
    };
}

/// For the macro only: the library this crate was built with.
#[doc(hidden)]
pub use schemars;
