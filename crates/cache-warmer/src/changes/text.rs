//! Parts of a document as short texts.

use serde_json::Value;

use super::{
    node::Node,
    rule::{Place, Scope},
};

/// Longest text of a value, in characters.
const LONGEST_VALUE: usize = 200;
/// Longest text of a pointer, in characters.
const LONGEST_POINTER: usize = 500;

/// The value as JSON without what is ignored, cut where it becomes too long.
pub(super) fn of(part: &Node<'_>, scope: &Scope<'_>) -> String {
    let mut text = Text::new(LONGEST_VALUE);
    // The rest of what is too long is not even looked at.
    _ = text.part(part, scope);
    text.done()
}

/// The JSON pointer that leads along `path`.
pub(super) fn pointer(path: &[Place<'_>]) -> String {
    let mut text = Text::new(LONGEST_POINTER);
    _ = path.iter().try_for_each(|place| {
        text.push("/")?;
        match place {
            Place::Item(at) => text.push(&at.to_string()),
            Place::Member(name) => {
                text.push(&text.fitting(name).replace('~', "~0").replace('/', "~1"))
            }
        }
    });
    text.done()
}

/// The text has become too long.
struct Full;

/// A text that takes only so many characters.
struct Text {
    written: String,
    left: usize,
    is_full: bool,
}

impl Text {
    fn new(longest: usize) -> Self {
        Self { written: String::new(), left: longest, is_full: false }
    }

    fn push(&mut self, more: &str) -> Result<(), Full> {
        for character in more.chars() {
            if self.left == 0 {
                self.is_full = true;
                return Err(Full);
            }
            self.written.push(character);
            self.left -= 1;
        }
        Ok(())
    }

    /// As much of `text` as there is room for, and one character more where there is more.
    fn fitting<'t>(&self, text: &'t str) -> &'t str {
        let end = text.char_indices().nth(self.left + 1).map_or(text.len(), |(end, _)| end);
        text.get(..end).unwrap_or(text)
    }

    fn part(&mut self, part: &Node<'_>, scope: &Scope<'_>) -> Result<(), Full> {
        match part {
            Node::Null => self.push("null"),
            Node::Bool(value) => self.push(if *value { "true" } else { "false" }),
            Node::Number(number) => self.push(&number.to_string()),
            Node::Text(text) => self.string(text),
            Node::Array(items) => {
                let mut comma = "";
                self.push("[")?;
                for (at, item) in items.iter().enumerate() {
                    if let Some(scope) = scope.below(Place::Item(at)) {
                        self.push(comma)?;
                        self.part(item, &scope)?;
                        comma = ",";
                    }
                }
                self.push("]")
            }
            Node::Object(members) => {
                let mut comma = "";
                self.push("{")?;
                for (name, member) in members {
                    if let Some(scope) = scope.below(Place::Member(name)) {
                        self.push(comma)?;
                        self.string(name)?;
                        self.push(":")?;
                        self.part(member, &scope)?;
                        comma = ",";
                    }
                }
                self.push("}")
            }
        }
    }

    fn string(&mut self, text: &str) -> Result<(), Full> {
        let text = Value::from(self.fitting(text)).to_string();
        self.push(&text)
    }

    /// The text, whose last character tells if there was more.
    fn done(mut self) -> String {
        if self.is_full {
            self.written.pop();
            self.written.push('…');
        }
        self.written
    }
}
