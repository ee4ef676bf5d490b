//! Placeholders in a target's command and files: `{NAME}`, with a name of small letters, digits and `-`.
//!
//! Everything else in braces is the text's own, for configuration files are full of it: `{}`, `{ … }`, `${name}`. `{{name}}`
//! is `{name}` itself. It refuses a placeholder that names nothing: a typing error would go to the program as it is.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use toml::Value;

use super::Site;
use crate::settings::text_of;

/// Names that every trial gives.
pub(super) const GIVEN: [&str; 3] = ["address", "dir", "port"];

/// What placeholders stand for.
#[derive(Debug)]
pub(super) struct Filling {
    values: BTreeMap<String, String>,
}

/// Can a placeholder be called so?
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

impl Filling {
    pub(super) fn new(values: &BTreeMap<String, Value>, port: NonZeroU16, site: Site<'_>) -> Self {
        let mut values: BTreeMap<String, String> =
            values.iter().map(|(name, value)| (name.clone(), text_of(value))).collect();
        let given = [site.address.to_string(), site.directory.display().to_string(), port.to_string()];
        values.extend(GIVEN.map(str::to_owned).into_iter().zip(given));
        Self { values }
    }

    /// Fills in one text; `key` is where it stands.
    pub(super) fn fill(&self, key: &str, text: &str) -> Result<String, String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, after) = rest.split_at(open);
            filled.push_str(before);
            let named =
                |text: &'_ str| text.split_once('}').map(|(name, _)| name.len()).filter(|end| is_name(&text[..*end]));
            if let Some(end) = after.strip_prefix("{{").and_then(named).filter(|end| after[2 + end..].starts_with("}}"))
            {
                filled.push_str(&after[1..=end + 2]);
                rest = &after[end + 4..];
            } else if let Some(end) = named(&after[1..]).filter(|_| !filled.ends_with('$')) {
                filled.push_str(self.value(key, &after[1..=end])?);
                rest = &after[end + 2..];
            } else {
                filled.push('{');
                rest = &after[1..];
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, key: &str, name: &str) -> Result<&str, String> {
        self.values.get(name).map(String::as_str).ok_or_else(|| {
            let known = self.values.keys().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
            format!(
                "{key}: the placeholder {{{name}}} names nothing; set target.values.{name}, use one of {known}, or write \
                 {{{{{name}}}}} for the text itself"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        Filling { values: BTreeMap::from([("port".to_owned(), "80".to_owned()), ("a-1".to_owned(), "x".to_owned())]) }
            .fill("here", text)
    }

    #[test]
    fn only_whole_names_in_braces_are_placeholders() {
        for (text, expected) in [
            ("listen {port};", "listen 80;"),
            ("{port}{a-1}", "80x"),
            ("http { server { listen {port}; } }", "http { server { listen 80; } }"),
            ("{}", "{}"),
            ("{ port }", "{ port }"),
            ("{\"port\": {port}}", "{\"port\": 80}"),
            ("${port} $x{port}", "${port} $x80"),
            ("{{port}} {{{port}}}", "{port} {{port}}"),
            ("{Port} {1a} {port", "{Port} {1a} {port"),
            ("é{port}é", "é80é"),
            ("{é}", "{é}"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_name_without_a_value_is_an_error_that_says_what_there_is() {
        let error = filled("{prot}").expect_err("no such name");
        assert!(error.starts_with("here: the placeholder {prot} names nothing; set target.values.prot"), "{error}");
        assert!(error.contains("{a-1}, {port}") && error.ends_with("write {{prot}} for the text itself"), "{error}");
    }
}
