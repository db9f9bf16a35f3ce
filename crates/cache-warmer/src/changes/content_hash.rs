//! Hashes of content, which are equal for documents that do not differ in what counts.

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

use super::{
    hex,
    rule::{ChangeRule, Place, Scope},
    walk::sorted,
};

/// Bytes of a hash that are kept: enough that no two documents share one by chance.
const KEPT: usize = 16;

/// Tells hashes of documents from those of bytes.
const DOMAIN: &[u8] = b"larder content 1\0";

/// A number by its value, however it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numeric {
    Integer(i128),
    /// The bits of a 64-bit float.
    Float(u64),
}

impl Numeric {
    pub(super) fn of(number: &Number) -> Self {
        if let Some(integer) = number.as_i64() {
            return Self::Integer(integer.into());
        }
        if let Some(integer) = number.as_u64() {
            return Self::Integer(integer.into());
        }
        let float = number.as_f64().unwrap_or(f64::NAN);
        // Larger ones are no integers in JSON either. Floats without a fraction are exact as integers.
        if float.fract() == 0.0 && float.abs() < u64::MAX as f64 {
            Self::Integer(float as i128)
        } else {
            Self::Float(float.to_bits())
        }
    }
}

/// The hash of what is no JSON.
pub(super) fn of_bytes(bytes: &[u8]) -> String {
    shown(&Sha256::digest(bytes))
}

/// The hash of what a rule leaves of a document.
pub(super) fn of_document(document: &Value, rule: &ChangeRule) -> String {
    let mut hasher = Hasher { hash: Sha256::new(), path: Vec::new() };
    hasher.hash.update(DOMAIN);
    hasher.selected(document, &rule.root());
    shown(&hasher.hash.finalize())
}

fn shown(hash: &[u8]) -> String {
    hex(hash.get(..KEPT).unwrap_or(hash))
}

/// Feeds a hash with one byte for the kind of each part, and the length of all that has one, so that
/// no two contents feed the same.
struct Hasher<'d> {
    hash: Sha256,
    path: Vec<Place<'d>>,
}

impl<'d> Hasher<'d> {
    /// Feeds the parts that count, each after its place. What leads there does not count.
    fn selected(&mut self, value: &'d Value, scope: &Scope<'_>) {
        if scope.is_whole() {
            self.hash.update(b"/");
            for place in self.path.clone() {
                self.place(place);
            }
            self.value(value, scope);
            return;
        }
        each(value, scope, |place, part, scope| {
            self.path.push(place);
            self.selected(part, scope);
            self.path.pop();
        });
    }

    /// Feeds a part of which all counts that is not ignored.
    fn value(&mut self, value: &Value, scope: &Scope<'_>) {
        match value {
            Value::Null => self.hash.update(b"n"),
            Value::Bool(true) => self.hash.update(b"t"),
            Value::Bool(false) => self.hash.update(b"f"),
            Value::Number(number) => match Numeric::of(number) {
                Numeric::Integer(integer) => {
                    self.hash.update(b"i");
                    self.hash.update(integer.to_le_bytes());
                }
                Numeric::Float(bits) => {
                    self.hash.update(b"d");
                    self.hash.update(bits.to_le_bytes());
                }
            },
            Value::String(text) => self.text(b's', text),
            Value::Array(_) | Value::Object(_) => {
                self.hash.update(if value.is_array() { b"[" } else { b"{" });
                each(value, scope, |place, part, scope| {
                    self.place(place);
                    self.value(part, scope);
                });
                self.hash.update(b"]");
            }
        }
    }

    fn place(&mut self, place: Place<'_>) {
        match place {
            Place::Member(name) => self.text(b'm', name),
            Place::Item(at) => {
                self.hash.update(b"@");
                self.hash.update((at as u64).to_le_bytes());
            }
        }
    }

    fn text(&mut self, kind: u8, text: &str) {
        self.hash.update([kind]);
        self.hash.update((text.len() as u64).to_le_bytes());
        self.hash.update(text);
    }
}

/// Visits what is directly below a value and in scope, members by name.
fn each<'d>(
    value: &'d Value,
    scope: &Scope<'_>,
    mut visit: impl FnMut(Place<'d>, &'d Value, &Scope<'_>),
) {
    let mut step = |place: Place<'d>, part: &'d Value| {
        if let Some(scope) = scope.below(place) {
            visit(place, part, &scope);
        }
    };
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                step(Place::Item(at), item);
            }
        }
        Value::Object(members) => {
            for (name, member) in sorted(members) {
                step(Place::Member(name), member);
            }
        }
        _ => {}
    }
}
