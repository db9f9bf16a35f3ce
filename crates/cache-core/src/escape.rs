//! Text from outside, made safe to print.

use std::fmt::{self, Write};

/// Displays text with control, invisible and direction-changing characters escaped.
///
/// Keys, values and server messages may hold terminal escapes; nothing from outside is printed raw.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_unsafe(c) { write!(f, "{}", c.escape_unicode()) } else { f.write_char(c) }
        })
    }
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_controls_and_direction_marks_only() {
        let text = "a\u{1b}[2J\u{9b}b\u{202e}é,\n";
        assert_eq!(Escaped(text).to_string(), "a\\u{1b}[2J\\u{9b}b\\u{202e}é,\\u{a}");
    }
}
