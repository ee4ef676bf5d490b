//! Words on a terminal: lines of a width, and colours where they are wanted. Owns no sentence.

use std::fmt::Write;

/// How a table is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Characters per line.
    pub width: usize,
    /// Whether escape sequences are welcome.
    pub colours: Colours,
}

/// Whether escape sequences are welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Plain text.
    Off,
    /// SGR escape sequences (ECMA-48).
    On,
}

/// What a piece of text is to say by its colour.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    /// As claimed.
    Good,
    /// Other than claimed.
    Bad,
    /// Unknown.
    Unknown,
    /// A heading.
    Heading,
}

impl Look {
    /// The text in a colour, or as it is.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Unknown => "33",
            Tone::Heading => "1",
        };
        match self.colours {
            Colours::Off => text.to_owned(),
            Colours::On => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// Appends `label` and `text` below each other's left edges: the label at `indent`, the text behind `column`, its
    /// further lines there too.
    pub(crate) fn labelled(self, out: &mut String, indent: usize, column: usize, label: &str, text: &str) {
        let room = self.width.saturating_sub(column);
        let mut lead = format!("{:indent$}{label:<gap$}", "", gap = column.saturating_sub(indent));
        for line in wrap(text, room) {
            // Writing to a String does not fail.
            let _ = writeln!(out, "{}", format!("{lead}{line}").trim_end());
            lead = " ".repeat(column);
        }
    }
}

/// `text` in lines of at most `width` characters, broken at spaces, never between a number and its unit. A word that is
/// longer gets a line of its own.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in words(text) {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(&word);
            used += length;
        }
    }
    lines
}

/// What a line is not broken within: words, and numbers with their units.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let is_unit = matches!(word.trim_end_matches([',', ';', '.', ':', ')']), "s" | "ms" | "us" | "%");
        match words.last_mut().filter(|last| is_unit && last.ends_with(|c: char| c.is_ascii_digit())) {
            Some(number) => {
                number.push(' ');
                number.push_str(word);
            }
            None => words.push(word.to_owned()),
        }
    }
    words
}

/// `1 claim`, `2 claims`.
pub(crate) fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_count_characters_not_bytes() {
        assert_eq!(wrap("één twee drie", 8), ["één twee", "drie"]);
        assert_eq!(wrap("a incomprehensibilities b", 5), ["a", "incomprehensibilities", "b"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn a_number_keeps_its_unit() {
        assert_eq!(wrap("resent after 1, 2, 7 s; then", 22), ["resent after 1, 2,", "7 s; then"]);
    }

    #[test]
    fn a_label_is_written_once() {
        let mut out = String::new();
        Look { width: 20, colours: Colours::Off }.labelled(&mut out, 2, 9, "claim:", "one two three four");
        assert_eq!(out, "  claim: one two\n         three four\n");
    }
}
