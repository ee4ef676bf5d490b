//! Values of what an attempt does: what it says, what it expects, and how closely its worker watches the clock.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use telemetry::units::{ParseUnitError, SPAN_PATTERN, Span};

/// Longest text a client says: it fits any socket's send buffer, so that one send(2) takes it whole.
const LONGEST_MESSAGE: usize = 4096;

/// Longest beginning an answer is compared with.
const LONGEST_EXPECTATION: usize = 64;

/// What a client says first. It is shown and recorded as its bytes, also when they came from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// What is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Default for Message {
    fn default() -> Self {
        Self(b"a".to_vec())
    }
}

impl FromStr for Message {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = match text.strip_prefix('@') {
            Some(path) => std::fs::read(path)
                .map_err(|error| ParseUnitError::new(format!("cannot read {path}: {error}; write @FILE, or a text")))?,
            None => unescape(text)?,
        };
        match bytes.len() {
            0 => Err(ParseUnitError::new(format!("`{text}` is empty; a client that speaks first says something"))),
            1..=LONGEST_MESSAGE => Ok(Self(bytes)),
            length => Err(ParseUnitError::new(format!(
                "`{text}` has {length} bytes; at most {LONGEST_MESSAGE} are sent in one piece"
            ))),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A leading @ would name a file.
        match self.0.strip_prefix(b"@") {
            Some(rest) => write!(f, "\\x40{}", escape(rest)),
            None => f.write_str(&escape(&self.0)),
        }
    }
}
telemetry::string_serde!(Message);
telemetry::text_schema!(Message, r"[\s\S]+", or { "type": "number" });

/// The bytes of a text with backslash escapes.
fn unescape(text: &str) -> Result<Vec<u8>, ParseUnitError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (escaped, length) = match rest {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |hex: u8| char::from(hex).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                (digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0), 3)
            }
            _ => {
                return Err(ParseUnitError::new(format!(
                    "`{text}`: after a backslash comes r, n, t, xHH or another backslash"
                )));
            }
        };
        bytes.push(escaped);
        rest = &rest[length..];
    }
    Ok(bytes)
}

/// The text that [`unescape`] turns into these bytes.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

/// How an answer must begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// With any byte.
    Any,
    /// With these, 1 to 64 of them.
    Prefix(Vec<u8>),
}

impl Expectation {
    /// The bytes it must begin with; none for any.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Any => &[],
            Self::Prefix(bytes) => bytes,
        }
    }
}

impl FromStr for Expectation {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let bytes = unescape(text)?;
        match bytes.len() {
            1..=LONGEST_EXPECTATION => Ok(Self::Prefix(bytes)),
            length => Err(ParseUnitError::new(format!(
                "`{text}` has {length} bytes; write any, or the first 1 to {LONGEST_EXPECTATION} bytes of the answer"
            ))),
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Prefix(bytes) if bytes == b"any" => f.write_str("\\x61ny"),
            Self::Prefix(bytes) => f.write_str(&escape(bytes)),
        }
    }
}
telemetry::string_serde!(Expectation);
telemetry::text_schema!(Expectation, r"[\s\S]+", or { "type": "number" });

/// How long before a planned instant a worker is awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// As long as wake-ups have taken so far, 25 µs at most.
    Auto,
    /// This long; 0 is off.
    For(Span),
}

impl FromStr for Spin {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const MOST: Span = Span::from_secs(1);
        let span: Span = match text {
            "auto" => return Ok(Self::Auto),
            "off" => Span::ZERO,
            _ => text.parse()?,
        };
        if span > MOST {
            return Err(ParseUnitError::new(format!("`{text}`: a worker spins for {MOST} at most")));
        }
        Ok(Self::For(span))
    }
}

impl From<Duration> for Spin {
    fn from(duration: Duration) -> Self {
        Self::For(duration.into())
    }
}

impl fmt::Display for Spin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::For(Span::ZERO) => f.write_str("off"),
            Self::For(span) => span.fmt(f),
        }
    }
}
telemetry::string_serde!(Spin);
telemetry::text_schema!(Spin, format!("auto|off|{SPAN_PATTERN}"), or { "const": 0 });

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_means_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            let message = Message(bytes.clone());
            prop_assert_eq!(message.to_string().parse::<Message>().expect("a message"), message);
            let bytes = bytes.into_iter().take(64).collect();
            let expectation = Expectation::Prefix(bytes);
            prop_assert_eq!(expectation.to_string().parse::<Expectation>().expect("a prefix"), expectation);
        }
    }

    #[test]
    fn a_message_is_text_with_escapes_or_a_file() {
        let bytes = |text: &str| text.parse::<Message>().map(|message| message.bytes().to_vec());
        assert_eq!(bytes("GET / HTTP/1.1\\r\\n\\r\\n").expect("a message"), b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(bytes("\\x00\\xfFé\\\\").expect("a message"), [0, 255, 0xc3, 0xa9, b'\\']);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ping");
        std::fs::write(&path, b"PING\n\\n").expect("a file");
        let typed = format!("@{}", path.display());
        let message: Message = typed.parse().expect("a message");
        assert_eq!((message.bytes(), message.to_string().as_str()), (b"PING\n\\n".as_slice(), "PING\\n\\\\n"));
        for (wrong, says) in [
            ("", "is empty"),
            ("@/nowhere/at/all", "cannot read /nowhere/at/all"),
            ("\\q", "after a backslash"),
            ("\\x1", "after a backslash"),
            ("\\", "after a backslash"),
            (&"a".repeat(4097), "4097 bytes"),
        ] {
            let error = bytes(wrong).expect_err(wrong).to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_expectation_is_a_prefix_or_any() {
        assert_eq!("any".parse::<Expectation>().expect("any").bytes(), b"");
        assert_eq!("+PONG\\r".parse::<Expectation>().expect("a prefix").bytes(), b"+PONG\r");
        let literally = Expectation::Prefix(b"any".to_vec());
        assert_eq!(literally.to_string().parse::<Expectation>().expect("a prefix"), literally);
        for wrong in ["", &"a".repeat(65)] {
            assert!(wrong.parse::<Expectation>().expect_err(wrong).to_string().contains("1 to 64 bytes"));
        }
    }

    #[test]
    fn spinning_is_bounded() {
        for text in ["auto", "off", "30us"] {
            assert_eq!(text.parse::<Spin>().expect(text).to_string(), text);
        }
        assert!("2s".parse::<Spin>().expect_err("too long").to_string().contains("1s at most"));
    }
}
