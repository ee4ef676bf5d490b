//! HTML from text that may hold anything: escaping, and tables that read well without a script.

use std::fmt::Write;

use serde::Serialize;

/// Text as HTML, in content and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

/// A value as JSON inside a `<script>` element: nothing in it ends the element or opens a comment.
///
/// # Errors
/// When the value has no form in JSON.
pub(super) fn script_json(value: &impl Serialize) -> serde_json::Result<String> {
    // These characters occur in JSON inside strings only, where an escape means the same.
    Ok(serde_json::to_string(value)?.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

/// A list of paragraphs of text; nothing of no text.
pub(super) fn list(texts: &[String]) -> String {
    if texts.is_empty() {
        return String::new();
    }
    format!("<ul>{}</ul>\n", each(texts, |text| format!("<li>{}</li>", escape(text))))
}

/// The markup of each, one after the other.
pub(super) fn each<T>(items: impl IntoIterator<Item = T>, html: impl Fn(T) -> String) -> String {
    items.into_iter().map(html).collect()
}

/// A column's heading.
#[derive(Clone, Debug)]
pub(super) struct Column {
    title: String,
    /// What it means, shown on demand.
    help: String,
}

impl Column {
    pub(super) fn new(title: &str, help: &str) -> Self {
        Self { title: title.to_owned(), help: help.to_owned() }
    }

    pub(super) fn plain(title: &str) -> Self {
        Self::new(title, "")
    }
}

/// One field of a row.
#[derive(Clone, Debug)]
pub(super) struct Field {
    html: String,
    /// What the column is sorted by, where the text is not.
    key: Option<f64>,
    class: &'static str,
}

impl Field {
    /// Any text.
    pub(super) fn text(text: &str) -> Self {
        Self { html: escape(text), key: None, class: "" }
    }

    /// A number as text; the column is sorted by `key`.
    pub(super) fn number(text: &str, key: Option<f64>) -> Self {
        Self { html: escape(text), key, class: "number" }
    }

    /// Markup whose data is escaped already.
    pub(super) fn markup(html: String, key: Option<f64>) -> Self {
        Self { html, key, class: "" }
    }

    /// The same field in a class of the style sheet.
    pub(super) fn class(self, class: &'static str) -> Self {
        Self { class, ..self }
    }
}

/// A table: the first field of each row is its heading.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) caption: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Field>>,
    /// Class of the style sheet beside those of all tables.
    pub(super) class: &'static str,
}

impl Table {
    /// The table in a box that scrolls by itself; nothing without rows.
    pub(super) fn html(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let caption = escape(&self.caption);
        let mut html = format!(
            "<div class=\"scroll {0}\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\"><table class=\"{0}\">\
             <caption><span>{caption}</span></caption>\n<thead><tr>",
            self.class
        );
        for column in &self.columns {
            let help =
                if column.help.is_empty() { String::new() } else { format!(" title=\"{}\"", escape(&column.help)) };
            // Writing to a String cannot fail.
            let _ = write!(html, "<th scope=\"col\"{help}>{}</th>", escape(&column.title));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            html.push_str("<tr>");
            for (index, field) in row.iter().enumerate() {
                let key = field.key.map_or_else(String::new, |key| format!(" data-key=\"{key}\""));
                let class = if field.class.is_empty() { String::new() } else { format!(" class=\"{}\"", field.class) };
                let (open, close) = if index == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
                let _ = write!(html, "<{open}{class}{key}>{}</{close}>", field.html);
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody></table></div>\n");
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(
            escape("</script><a b='c' d=\"e\">&"),
            "&lt;/script&gt;&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;"
        );
    }

    #[test]
    fn json_cannot_end_its_script_and_means_the_same() {
        let text = "</script><!-- & <b>";
        let json = script_json(&text).unwrap();
        assert!(!json.contains(['<', '>', '&']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn a_table_names_its_rows_and_columns() {
        let table = Table {
            caption: "Cells & more".to_owned(),
            columns: vec![Column::plain("cell"), Column::new("served", "of planned")],
            rows: vec![vec![Field::text("a<b"), Field::number("17.2 %", Some(0.172))]],
            class: "sortable",
        };
        let html = table.html();
        assert!(html.contains("<caption><span>Cells &amp; more</span></caption>"), "{html}");
        assert!(html.contains("<th scope=\"col\" title=\"of planned\">served</th>"), "{html}");
        assert!(
            html.contains("<tr><th scope=\"row\">a&lt;b</th><td class=\"number\" data-key=\"0.172\">17.2 %</td></tr>"),
            "{html}"
        );
        assert_eq!(Table { rows: Vec::new(), ..table }.html(), "");
    }
}
