//! The address of another program's pages, as typed.

use std::str::FromStr;

/// `http://HOST[:PORT][/PATH]`, or with https; no query, no fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl(String);

impl BaseUrl {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let fits = |rest: &str| {
            rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
                && rest.chars().all(|c| c.is_ascii_alphanumeric() || "-._~%:/[]".contains(c))
        };
        match rest {
            Some(rest) if fits(rest) => Ok(Self(text.to_owned())),
            _ => Err(format!(
                "`{text}` is no address that links can begin with; write e.g. http://localhost:3000 or https://example.org/grafana"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_links_can_begin_with_is_taken() {
        for good in ["http://localhost:3000", "https://example.org/grafana/", "http://[::1]:3000"] {
            assert_eq!(good.parse::<BaseUrl>().map(|url| url.0).ok().as_deref(), Some(good));
        }
        for bad in [
            "localhost:3000",
            "javascript:alert(1)",
            "http://",
            "http:///d",
            "http://a b",
            "http://a\"onclick",
            "http://a?b",
        ] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }
}
