//! Hashes of content, which are equal for documents that do not differ in what counts.

use sha2::{Digest, Sha256};

use super::{
    hex,
    node::{Node, Number},
    rule::{ChangeRule, Place, Scope},
};

/// Bytes of a hash that are kept: enough that no two documents share one by chance.
const KEPT: usize = 16;

/// Tells hashes of documents from those of bytes.
const DOMAIN: &[u8] = b"larder content 1\0";

/// The hash of what is no JSON.
pub(super) fn of_bytes(bytes: &[u8]) -> String {
    shown(&Sha256::digest(bytes))
}

/// The hash of what a rule leaves of a document.
pub(super) fn of_document(document: &Node<'_>, rule: &ChangeRule) -> String {
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
    fn selected(&mut self, part: &'d Node<'d>, scope: &Scope<'_>) {
        if scope.is_whole() {
            self.hash.update(b"/");
            for place in self.path.clone() {
                self.place(place);
            }
            self.part(part, scope);
            return;
        }
        part.each(scope, |place, part, scope| {
            self.path.push(place);
            self.selected(part, scope);
            self.path.pop();
        });
    }

    /// Feeds a part of which all counts that is not ignored.
    fn part(&mut self, part: &Node<'_>, scope: &Scope<'_>) {
        match part {
            Node::Null => self.hash.update(b"n"),
            Node::Bool(true) => self.hash.update(b"t"),
            Node::Bool(false) => self.hash.update(b"f"),
            Node::Number(Number::Integer(integer)) => self.number(b'i', integer.to_le_bytes()),
            Node::Number(Number::Large(integer)) => self.number(b'u', integer.to_le_bytes()),
            Node::Number(Number::Float(bits)) => self.number(b'd', bits.to_le_bytes()),
            Node::Text(text) => self.text(b's', text),
            Node::Array(_) | Node::Object(_) => {
                self.hash.update(if matches!(part, Node::Array(_)) { b"[" } else { b"{" });
                part.each(scope, |place, part, scope| {
                    self.place(place);
                    self.part(part, scope);
                });
                self.hash.update(b"]");
            }
        }
    }

    fn number(&mut self, kind: u8, bytes: [u8; 8]) {
        self.hash.update([kind]);
        self.hash.update(bytes);
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
