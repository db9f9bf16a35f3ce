//! Hides what should not be read over a shoulder: passwords and keys in URLs and parameters.

use std::{collections::BTreeMap, fmt};

use serde::{Serializer, ser::SerializeMap};

use super::values::MASK;

/// Parts of names whose values are taken for secrets.
const SECRET_PARTS: [&str; 8] =
    ["key", "token", "secret", "pass", "pwd", "auth", "credential", "signature"];

/// Whether a parameter of this name is likely to hold a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "sig" || SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// A URL without its user, its password and the values of query parameters with secret names.
pub(super) fn redact_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (place, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
    let (authority, path) = place.split_at(place.find(['/', '#']).unwrap_or(place.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let mut out = String::new();
    if !scheme.is_empty() {
        out.push_str(scheme);
        out.push_str("://");
    }
    // `user:pa/ss@host` is not a valid URL, yet someone will write it.
    let odd_port = host.rsplit_once(':').is_some_and(|(_, port)| !is_port(port));
    if odd_port && !host.starts_with('[') || scheme.is_empty() && rest.contains('@') {
        out.push_str(MASK);
        return out;
    }
    out.push_str(host);
    out.push_str(path);
    if let Some(query) = query {
        let parts: Vec<String> = query.split('&').map(redact_pair).collect();
        out.push('?');
        out.push_str(&parts.join("&"));
    }
    out
}

fn is_port(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit()) || is_placeholder(text)
}

fn redact_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, value)) if is_secret_name(name) && !is_placeholder(value) => {
            format!("{name}={MASK}")
        }
        _ => pair.to_owned(),
    }
}

fn is_placeholder(text: &str) -> bool {
    text.starts_with('{') && text.ends_with('}')
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
pub(super) fn write_url<S: Serializer>(
    url: &Option<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) => serializer.serialize_some(&redact_url(url)),
        None => serializer.serialize_none(),
    }
}

pub(super) fn write_params<S: Serializer>(
    params: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(params.len()))?;
    for (name, value) in params {
        map.serialize_entry(name, shown_param(name, value))?;
    }
    map.end()
}

fn shown_param<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret_name(name) { MASK } else { value }
}

/// `Debug` of parameters, by the same rule.
pub(super) struct Params<'a>(pub(super) &'a BTreeMap<String, String>);

impl fmt::Debug for Params<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| (name, shown_param(name, value)));
        f.debug_map().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_what_is_secret() {
        for (url, shown) in [
            ("https://host/a?year=2022", "https://host/a?year=2022"),
            ("https://me:pw@host:80/a", "https://host:80/a"),
            ("https://me@pw@host/a", "https://host/a"),
            ("https://host/?api_key=k&x=1&Token=t", "https://host/?api_key=***&x=1&Token=***"),
            ("https://host/?key={key}", "https://host/?key={key}"),
            ("https://me:p/w@host/a", "https://***"),
            ("https://host?sig=s", "https://host?sig=***"),
            ("me:pw@host", "***"),
            ("https://[::1]:80/a", "https://[::1]:80/a"),
        ] {
            assert_eq!(redact_url(url), shown, "{url}");
        }
    }
}
