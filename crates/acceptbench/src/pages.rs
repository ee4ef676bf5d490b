//! The admin pages of a standalone server, load generator or watch.

use std::collections::BTreeMap;

use serde::Serialize;
use telemetry::admin::{Page, Pages};
use telemetry::exposition::Families;
use telemetry::namespace::Detail;
use telemetry::standard;

/// Version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from.
pub(crate) const REVISION: &str = env!("ACCEPTBENCH_REVISION");

/// Books, and the program that wrote them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Signed<'a, T> {
    version: &'static str,
    revision: &'static str,
    #[serde(flatten)]
    books: &'a T,
}

impl<'a, T> Signed<'a, T> {
    /// Signed by this program.
    pub(crate) fn new(books: &'a T) -> Self {
        Self { version: VERSION, revision: REVISION, books }
    }
}

/// Pages over anything that can be read and exposed.
pub(crate) struct RolePages<T> {
    /// `server`, `loadgen` or `watch`.
    pub(crate) role: &'static str,
    /// The resolved settings.
    pub(crate) settings: BTreeMap<String, String>,
    /// Reads the books.
    pub(crate) read: Box<dyn Fn(Detail) -> T + Send + Sync>,
    /// Turns them into samples.
    pub(crate) expose: fn(&T, &mut Families),
}

impl<T: Serialize + 'static> Pages for RolePages<T> {
    fn get(&self, path: &str) -> Option<Page> {
        match path {
            "/metrics" => {
                let mut families = Families::new();
                standard::build_info(&mut families, self.role, VERSION, REVISION);
                standard::config_info(&mut families, &self.settings);
                (self.expose)(&(self.read)(Detail::Scrape), &mut families);
                Some(Page::metrics(families.render()))
            }
            "/snapshot" => Some(match serde_json::to_string(&Signed::new(&(self.read)(Detail::Full))) {
                Ok(json) => Page::json(json),
                Err(error) => Page::text(500, format!("{error}\n")),
            }),
            "/healthz" | "/readyz" => Some(Page::text(200, "ok\n".to_owned())),
            _ => None,
        }
    }
}

/// Options as name and text, for the configuration metric.
pub(crate) fn settings(options: &impl Serialize) -> BTreeMap<String, String> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(options) else { return BTreeMap::new() };
    fields
        .into_iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => (name, shortened(&text)),
            other => (name, other.to_string()),
        })
        .collect()
}

/// An option as a person or a label wants it: a trace of arrivals may have a megabyte.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 256;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn a_label_is_short_and_whole_characters() {
        assert_eq!(shortened("burst:400/500ms"), "burst:400/500ms");
        let long = shortened(&"µ".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with("µ…")), (257, true));
    }
}
