//! URL templates: text with names in braces, filled with encoded values.

use std::{collections::BTreeSet, fmt::Write};

/// A URL template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    names: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
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
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let host = host.and_then(|rest| rest.split('/').next()).ok_or(TemplateError::Scheme)?;
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

/// Encodes all but RFC 3986's unreserved characters, so that a value cannot leave its place.
fn encode(value: &str, into: &mut String) {
    let dots = matches!(value, "." | "..");
    for byte in value.bytes() {
        match byte {
            b'.' if dots => into.push_str("%2E"),
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
    fn a_value_of_dots_does_not_climb() {
        let template = Template::parse("https://h.example/a/{v}/b").unwrap();
        assert_eq!(template.fill(|_| Some("..")).unwrap(), "https://h.example/a/%2E%2E/b");
    }

    #[test]
    fn refuses_what_is_no_template() {
        for text in ["ftp://h/", "/path", "", "https://", "https://{host}/", "https://h{x}/a"] {
            assert_eq!(Template::parse(text), Err(TemplateError::Scheme), "{text}");
        }
        for text in
            ["https://h/{", "https://h/}", "https://h/{}", "https://h/{a b}", "https://h/}{a}"]
        {
            assert_eq!(Template::parse(text), Err(TemplateError::Braces), "{text}");
        }
    }
}
