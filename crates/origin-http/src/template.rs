//! Templates: text with names in braces, filled with values, in URLs encoded ones.

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    net::IpAddr,
};

use reqwest::Url;

/// A URL template.
///
/// `Debug` shows only its names: its text may hold keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Pattern);

/// Text with names of values in braces.
///
/// `Debug` shows only its names: its text may hold keys.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
    names: BTreeSet<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(String),
}

/// A template is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It must start with a scheme and a host that no value can change.
    #[error("a URL starts with http:// or https:// and a host without {{}}")]
    Scheme,
    /// A brace has no partner, or a name is empty or has odd characters.
    #[error("write names of values as {{name}}, with letters, digits and _ only")]
    Braces,
}

/// What two braces of a kind stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubled {
    /// One brace that is text.
    Literal,
    /// A mistake: in a URL a brace that is text is written encoded.
    Mistake,
}

impl Pattern {
    pub(crate) fn parse(text: &str, doubled: Doubled) -> Result<Self, TemplateError> {
        let (mut parts, mut names) = (Vec::new(), BTreeSet::new());
        let (mut literal, mut rest) = (String::new(), text);
        while let Some((before, at)) = rest.find(['{', '}']).map(|at| rest.split_at(at)) {
            literal.push_str(before);
            let double = [("{{", '{'), ("}}", '}')]
                .into_iter()
                .find_map(|(double, brace)| Some((brace, at.strip_prefix(double)?)))
                .filter(|_| doubled == Doubled::Literal);
            if let Some((brace, behind)) = double {
                literal.push(brace);
                rest = behind;
                continue;
            }
            let inside = at.strip_prefix('{').and_then(|after| after.split_once('}'));
            let (name, behind) = inside.ok_or(TemplateError::Braces)?;
            let proper = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(proper) {
                return Err(TemplateError::Braces);
            }
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(Part::Value(name.to_owned()));
            names.insert(name.to_owned());
            rest = behind;
        }
        literal.push_str(rest);
        parts.push(Part::Text(literal));
        Ok(Self { parts, names })
    }

    /// Names of the values it needs.
    pub(crate) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// The text with values as they are, or the name of one that is missing.
    pub(crate) fn fill<'v>(
        &self,
        value: impl Fn(&str) -> Option<&'v str>,
    ) -> Result<String, String> {
        self.fill_with(value, |value, filled| filled.push_str(value))
    }

    fn fill_with<'v>(
        &self,
        value: impl Fn(&str) -> Option<&'v str>,
        add: impl Fn(&str, &mut String),
    ) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Value(name) => add(value(name).ok_or(name)?, &mut filled),
            }
        }
        Ok(filled)
    }
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
        Pattern::parse(text, Doubled::Mistake).map(Self)
    }

    /// Names of the values it needs.
    pub(crate) fn names(&self) -> &BTreeSet<String> {
        self.0.names()
    }

    /// The URL that it makes of values that say nothing; `None` if it can make none.
    pub(crate) fn sample(&self) -> Option<Url> {
        self.fill(|_| Some("x")).ok().and_then(|text| Url::parse(&text).ok())
    }

    /// Whether it leads to this machine itself.
    pub(crate) fn is_loopback(&self) -> bool {
        // Values are no part of the host.
        let url = self.sample();
        url.as_ref().and_then(Url::host_str).is_some_and(|host| {
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        })
    }

    /// The URL with every value encoded, or the name of one that is missing.
    pub(crate) fn fill<'v>(
        &self,
        value: impl Fn(&str) -> Option<&'v str>,
    ) -> Result<String, String> {
        self.0.fill_with(value, encode)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parts: _, names } = self;
        f.debug_struct("Pattern").field("names", names).finish_non_exhaustive()
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
    fn outside_urls_two_braces_are_one() {
        let fill = |text| {
            let pattern = Pattern::parse(text, Doubled::Literal)?;
            Ok(pattern.fill(|name| (name == "a").then_some("{b}\"")).unwrap())
        };
        assert_eq!(fill("{{a}} {a}{{{a}}}}}"), Ok("{a} {b}\"{{b}\"}}".to_owned()));
        assert_eq!(fill("query {{ x }}"), Ok("query { x }".to_owned()));
        for text in ["{", "}", "{}", "{a", "{ a }", "{{a}", "a}"] {
            assert_eq!(fill(text), Err(TemplateError::Braces), "{text}");
        }
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
