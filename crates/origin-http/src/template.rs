//! URL templates: text with names in braces, filled with encoded values.

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    net::IpAddr,
};

use reqwest::Url;

/// A URL template.
///
/// `Debug` shows only its names: its text may hold keys.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    names: BTreeSet<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(String),
}

/// A URL template is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It must start with a scheme and a host that no value can change.
    #[error("a URL starts with http:// or https:// and a host without {{}}")]
    Scheme,
    /// A brace has no partner, or a name is empty or has odd characters.
    #[error("write names of values as {{name}}, with letters, digits and _ only")]
    Braces,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (scheme, rest) = text.split_once("://").ok_or(TemplateError::Scheme)?;
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(TemplateError::Scheme);
        }
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.is_empty() || host.contains(['{', '}']) {
            return Err(TemplateError::Scheme);
        }
        let (mut parts, mut names) = (Vec::new(), BTreeSet::new());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or(TemplateError::Braces)?;
            let proper = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if before.contains('}') || name.is_empty() || !name.chars().all(proper) {
                return Err(TemplateError::Braces);
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Value(name.to_owned()));
            names.insert(name.to_owned());
            rest = behind;
        }
        if rest.contains('}') {
            return Err(TemplateError::Braces);
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts, names })
    }

    /// Names of the values it needs.
    pub(crate) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Whether it leads to this machine itself.
    pub(crate) fn is_loopback(&self) -> bool {
        // Values are no part of the host.
        let url = self.fill(|_| Some("x")).ok().and_then(|text| Url::parse(&text).ok());
        url.as_ref().and_then(Url::host_str).is_some_and(|host| {
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        })
    }

    /// The URL, or the name of a value that is missing.
    pub(crate) fn fill<'v>(
        &self,
        value: impl Fn(&str) -> Option<&'v str>,
    ) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Value(name) => encode(value(name).ok_or(name)?, &mut filled),
            }
        }
        Ok(filled)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parts: _, names } = self;
        f.debug_struct("Template").field("names", names).finish_non_exhaustive()
    }
}

/// Whether a part of the path of `url` is `.` or `..`. Encoding does not help there: URL parsers
/// take `%2E` for a dot.
pub(crate) fn climbs(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.split('/').any(|part| matches!(part, "." | ".."))
}

/// Encodes all but RFC 3986's unreserved characters, so that a value cannot end its part of the
/// path or its pair of the query.
fn encode(value: &str, into: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                into.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => _ = write!(into, "%{byte:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_names_with_encoded_values() {
        let template = Template::parse("https://h.example/{a}/x?b={b}&c={a}").unwrap();
        let value = |name: &str| Some(if name == "a" { "../é?#" } else { "1&c=2" });
        assert_eq!(
            template.fill(value).unwrap(),
            "https://h.example/..%2F%C3%A9%3F%23/x?b=1%26c%3D2&c=..%2F%C3%A9%3F%23"
        );
        assert_eq!(template.fill(|name| (name == "a").then_some("1")), Err("b".to_owned()));
        assert_eq!(template.names().len(), 2);
    }

    #[test]
    fn dots_climb_only_as_a_whole_part_of_the_path() {
        for url in ["https://h/./a", "https://h/a/..", "https://h/a/../b?c", "https://h/a/.#b"] {
            assert!(climbs(url), "{url}");
        }
        for url in ["https://h/a.b/..c/...", "https://h/a?b=/../c", "https://h/a#/.."] {
            assert!(!climbs(url), "{url}");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_address() {
        let local = |text| Template::parse(text).unwrap().is_loopback();
        let here = ["http://127.0.0.1:80/{a}", "http://[::1]/", "https://u:p@localhost/x?{a}"];
        assert!(here.into_iter().all(local));
        let elsewhere = ["http://128.0.0.1/", "http://localhost.example/", "http://h/127.0.0.1"];
        assert!(!elsewhere.into_iter().any(local));
    }

    #[test]
    fn refuses_what_is_no_template() {
        for text in [
            "ftp://h/",
            "/path",
            "",
            "https://",
            "https://{host}/",
            "https://h{x}/a",
            "https://h{x}?a",
        ] {
            assert_eq!(Template::parse(text), Err(TemplateError::Scheme), "{text}");
        }
        for text in
            ["https://h/{", "https://h/}", "https://h/{}", "https://h/{a b}", "https://h/}{a}"]
        {
            assert_eq!(Template::parse(text), Err(TemplateError::Braces), "{text}");
        }
    }
}
