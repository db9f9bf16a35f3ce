//! One YAML document as a tree of text with positions. The only place that knows the parser.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Error, Location, MergeKeyPolicy, NonFiniteFloatPolicy, Options, Spanned, budget, options,
};

/// Nesting no settings file reaches; what goes deeper is an attack or an accident.
const MAX_DEPTH: usize = 32;

/// Settings are tens of nodes, and sources tens each.
const MAX_NODES: usize = 50_000;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Yaml {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) node: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    /// As it was written, without quotes: `007` and `1.50` keep their digits.
    Scalar(String),
    List(Vec<Yaml>),
    /// A key is a scalar with its position.
    Map(Vec<(String, u64, u64, Yaml)>),
}

/// What is wrong, and where if that is known. Holds no values of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) message: String,
}

/// Parses one document; an empty one is null.
pub(super) fn parse(text: &str) -> Result<Yaml, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed: Option<Spanned<Raw>> =
        serde_saphyr::from_str_with_options(text, limits()).map_err(|error| fault(&error))?;
    Ok(match parsed {
        Some(raw) => raw.value.at(raw.defined, text),
        None => Yaml { line: 1, column: 1, node: Node::Null },
    })
}

fn limits() -> Options {
    options! {
        budget: budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: MAX_NODES,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: 8,
        },
        merge_keys: MergeKeyPolicy::Merge,
        strict_booleans: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// Own words for each kind of error: some of the parser's quote the value.
fn fault(error: &Error) -> Fault {
    let (line, column) =
        error.location().map_or((0, 0), |location| (location.line(), location.column()));
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error;
    }
    let message = match cause {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            let key = super::error::clean(super::admit::name_alone(key));
            format!("`{key}` is given twice in one mapping; keep one of them")
        }
        Error::MultipleDocuments { .. } => {
            "a second document begins here; keep one and remove the `---`".to_owned()
        }
        Error::UnknownAnchor { .. } => {
            "this alias has no anchor; quote the text if the `*` belongs to it".to_owned()
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "too deep, too long or too many aliases for a settings file; write it out plainly"
                .to_owned()
        }
        Error::UnsupportedTag { .. } => {
            "a tag such as `!name` is not supported; quote the text if the `!` belongs to it"
                .to_owned()
        }
        // Of the parser itself, whose words are fixed and quote nothing.
        Error::ExternalMessage { msg, .. } => {
            format!("not valid YAML: {}; {SYNTAX_HINT}", cache_core::Escaped(msg))
        }
        _ => format!("not valid YAML; {SYNTAX_HINT}"),
    };
    Fault { line, column, message }
}

const SYNTAX_HINT: &str =
    "check the indentation (spaces, no tabs), the `: ` after each key, and the quotes";

/// A node as serde sees it; what looks like a number or a switch still has to find its text.
enum Raw {
    Null,
    Text(String),
    /// With the text to fall back on.
    Typed(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl Raw {
    fn at(self, location: Location, text: &str) -> Yaml {
        let node = match self {
            Self::Null => Node::Null,
            Self::Text(text) => Node::Scalar(text),
            Self::Typed(canonical) => Node::Scalar(written(location, text).unwrap_or(canonical)),
            Self::List(items) => Node::List(
                items.into_iter().map(|item| item.value.at(item.defined, text)).collect(),
            ),
            Self::Map(entries) => Node::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let (line, column) = (key.defined.line(), key.defined.column());
                        (key.value, line, column, value.value.at(value.defined, text))
                    })
                    .collect(),
            ),
        };
        Yaml { line: location.line(), column: location.column(), node }
    }
}

/// The characters of a plain scalar.
fn written(location: Location, text: &str) -> Option<String> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    let written = text.get(start..end)?.trim();
    let plain = !written.is_empty()
        && written.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
    plain.then(|| written.to_owned())
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn node(text: &str) -> Node {
        let Node::Map(mut entries) = parse(text).expect(text).node else { panic!("{text}") };
        entries.pop().expect(text).3.node
    }

    #[test]
    fn scalars_keep_the_text_that_was_written() {
        for (written, kept) in [
            ("007", "007"),
            ("1.50", "1.50"),
            ("1_000", "1_000"),
            ("0x1F", "0x1F"),
            ("True", "True"),
            ("-5", "-5"),
            ("yes", "yes"),
            (".nan", ".nan"),
            ("1e3", "1e3"),
            ("99999999999999999999999999", "99999999999999999999999999"),
            ("'12'", "12"),
            ("\"a\\nb\"", "a\nb"),
            ("'null'", "null"),
            ("30d", "30d"),
            ("&x 5", "5"),
            ("!!str 5", "5"),
        ] {
            assert_eq!(
                node(&format!("ä: {written} # why\n")),
                Node::Scalar(kept.into()),
                "{written}"
            );
        }
        assert_eq!(node("a: ~"), Node::Null);
        assert_eq!(node("a:"), Node::Null);
    }

    #[test]
    fn positions_are_those_of_the_definition() {
        let yaml = parse("a: &x 5\nb:\n  - *x\n  - 6\n").expect("valid");
        let Node::Map(entries) = yaml.node else { panic!("a mapping") };
        let (key, line, column, value) = &entries[1];
        assert_eq!((key.as_str(), *line, *column), ("b", 2, 1));
        let Node::List(items) = &value.node else { panic!("a list") };
        assert_eq!(items[0].line, 1);
        assert_eq!((items[1].line, items[1].column), (4, 5));
    }

    #[test]
    fn nothing_is_null() {
        for text in ["", "\n", "# only this\n", "---\n", "\u{feff}", "~"] {
            assert_eq!(parse(text).map(|yaml| yaml.node), Ok(Node::Null), "{text:?}");
        }
    }

    fn refused(text: &str, part: &str) {
        let fault = parse(text).expect_err("must be refused");
        assert!(fault.message.contains(part), "{}", fault.message);
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = String::from("l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..9 {
            let items = vec![format!("*l{}", level - 1); 9].join(", ");
            writeln!(laughs, "l{level}: &l{level} [{items}]").expect("a string");
        }
        refused(&laughs, "too many aliases");
        refused(&"[".repeat(10_000), "");
        refused(&format!("a: {}{}", "[".repeat(100), "]".repeat(100)), "");
        let mut deep = String::new();
        for depth in 0..100 {
            writeln!(deep, "{}a:", " ".repeat(depth)).expect("a string");
        }
        refused(&deep, "too deep");
        refused(&format!("a: [{}]", "0, ".repeat(60_000)), "too long");
    }

    #[test]
    fn mistakes_are_refused() {
        refused("a: 1\na: 2\n", "`a` is given twice");
        refused("a: 1\n---\nb: 2\n", "second document");
        refused("a: *x\n", "no anchor");
        refused("a: !ruby/object {}\n", "a tag such as");
        refused("a: [1, 2\n", "not valid YAML");
        refused("a:\n\tb: 1\n", "not valid YAML");
        refused("? [1]\n: 2\n", "");
    }
}
