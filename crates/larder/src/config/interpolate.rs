//! `${VAR}`, `${VAR:-default}` and `${VAR:?message}` inside one scalar of a file.
//!
//! It works on parsed scalars, and once, so that the text of a variable can neither add settings
//! nor name further variables.

use std::collections::BTreeMap;

/// The environment handed to the loader.
pub(super) type Vars = BTreeMap<String, String>;

/// A scalar after substitution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) text: String,
    /// Whether the value of a variable is in the text, which makes it a secret.
    pub(super) tainted: bool,
    /// The first variable that has neither value nor default, and what to do about it.
    pub(super) missing: Option<Missing>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) variable: String,
    /// From `${VAR:?message}`.
    pub(super) message: Option<String>,
}

const FORMS: &str = "write ${VAR}, ${VAR:-default} or ${VAR:?message}, or $$ for a plain $";

/// Replaces the references in `raw`; the error says what is malformed, without the text.
pub(super) fn fill(raw: &str, vars: &Vars) -> Result<Filled, String> {
    let mut filled = Filled { text: String::new(), tainted: false, missing: None };
    let mut rest = raw;
    while let Some(at) = rest.find('$') {
        filled.text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some((inside, after)) = after.split_once('}') else {
                return Err(format!("`${{` is not closed by `}}`; {FORMS}"));
            };
            filled.reference(inside, vars)?;
            rest = after;
        } else {
            // `$NAME` and a lone `$` are ordinary text: passwords have them.
            filled.text.push('$');
        }
    }
    filled.text.push_str(rest);
    Ok(filled)
}

impl Filled {
    fn reference(&mut self, inside: &str, vars: &Vars) -> Result<(), String> {
        let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, operator) = inside.split_at(end.unwrap_or(inside.len()));
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("`${{...}}` does not begin with the name of a variable; {FORMS}"));
        }
        let value = vars.get(name);
        if operator.is_empty() {
            match value {
                Some(value) => self.take(value),
                None => self.lack(name, None),
            }
            return Ok(());
        }
        let nonempty = value.filter(|value| !value.is_empty());
        let argument = |operator: &str| match operator {
            text if text.contains("${") => Err(format!(
                "`${{{name}...}}` has another `${{` inside, which is not read; {FORMS}"
            )),
            text => Ok(text.replace("$$", "$")),
        };
        if let Some(default) = operator.strip_prefix(":-") {
            let default = argument(default)?;
            match nonempty {
                Some(value) => self.take(value),
                None => self.text.push_str(&default),
            }
        } else if let Some(message) = operator.strip_prefix(":?") {
            let message = argument(message)?;
            match nonempty {
                Some(value) => self.take(value),
                None => self.lack(name, Some(message)),
            }
        } else {
            return Err(format!("`${{{name}...}}` is malformed; {FORMS}"));
        }
        Ok(())
    }

    fn take(&mut self, value: &str) {
        self.text.push_str(value);
        self.tainted = true;
    }

    fn lack(&mut self, variable: &str, message: Option<String>) {
        let message = message.filter(|message| !message.is_empty());
        self.missing.get_or_insert(Missing { variable: variable.to_owned(), message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> Vars {
        let vars = [("A", "one"), ("EMPTY", ""), ("SLY", "${A} $$ *x\nadmin: true")];
        vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn check(raw: &str, text: &str, tainted: bool) {
        let filled = Filled { text: text.into(), tainted, missing: None };
        assert_eq!(fill(raw, &vars()), Ok(filled), "{raw}");
    }

    #[test]
    fn references_are_replaced_once() {
        check("plain", "plain", false);
        check("${A}", "one", true);
        check("<${A}${A}>", "<oneone>", true);
        check("${EMPTY}", "", true);
        check("${SLY}", "${A} $$ *x\nadmin: true", true);
        check("${NO:-two}", "two", false);
        check("${EMPTY:-two}", "two", false);
        check("${A:-two}", "one", true);
        check("${NO:-}", "", false);
        check("${NO:-a:-b}", "a:-b", false);
        check("${A:?needed}", "one", true);
        check("$$", "$", false);
        check("$${A}", "${A}", false);
        check("$A costs 5$", "$A costs 5$", false);
        check("${NO:-$$5}", "$5", false);
        check("ä${A}ß", "äoneß", true);
    }

    #[test]
    fn a_missing_variable_is_noted() {
        let missing = |raw| fill(raw, &vars()).expect(raw).missing;
        let named = |message: Option<&str>| {
            Some(Missing { variable: "NO".into(), message: message.map(Into::into) })
        };
        assert_eq!(missing("${NO}"), named(None));
        assert_eq!(missing("${NO:?set NO}"), named(Some("set NO")));
        assert_eq!(missing("${EMPTY:?}").map(|missing| missing.variable), Some("EMPTY".into()));
        assert_eq!(missing("${A}${NO}${OTHER}"), named(None));
    }

    #[test]
    fn malformed_references_are_refused() {
        for raw in
            ["${", "${A", "${}", "${1A}", "${A B}", "${A:x}", "${A-x}", "${NO:-${A}}", "${-}"]
        {
            let error = fill(raw, &vars()).expect_err(raw);
            assert!(error.contains("${VAR:-default}"), "{raw}: {error}");
        }
    }
}
