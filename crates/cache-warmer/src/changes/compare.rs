//! Comparing two documents.

use serde::{Deserialize, Serialize};

use super::{
    content_hash::{of_bytes, of_document},
    node::Node,
    rule::ChangeRule,
    walk::Walk,
};

/// Documents larger than this, in bytes, are compared as bytes.
pub const MAX_COMPARED_BYTES: usize = 8 << 20;

/// Most differences that are told one by one.
pub const MAX_DELTAS: usize = 50;

/// How two documents differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Comparison {
    /// The first [`MAX_DELTAS`] differences; members by name, items by place. Empty if the documents
    /// were compared as bytes.
    pub deltas: Vec<Delta>,
    /// How many differences there are; 1 if the documents were compared as bytes.
    pub changed: u64,
    /// Hash of the old content: the first 16 bytes of a SHA-256, as 32 hexadecimal digits.
    ///
    /// Of JSON it is a hash of what the rule leaves, however that is written: it is the same if,
    /// and only if, nothing that counts differs. Of all else it is that of the bytes.
    pub old_hash: String,
    /// Hash of the new content.
    pub new_hash: String,
}

/// One difference between two JSON documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Delta {
    /// Where, as a JSON pointer (RFC 6901). One of over 500 characters is cut, and ends in `…`.
    pub pointer: String,
    /// What was there, as JSON without what the rule ignores and with numbers by their value; `None`
    /// for nothing. A text of over 200 characters is cut, and ends in `…`.
    pub old: Option<String>,
    /// What is there now, in the same way.
    pub new: Option<String>,
}

impl Comparison {
    /// That of a document with one that is the same: for a change of its version only.
    pub fn unchanged(document: &[u8], rule: &ChangeRule) -> Self {
        let hash = hash(document, parse(document).as_ref(), rule);
        Self { deltas: Vec::new(), changed: 0, old_hash: hash.clone(), new_hash: hash }
    }
}

/// How `new` differs from `old` in what `rule` says counts; `None` if it does not.
///
/// In JSON neither white space nor the order of members matters, and the last of several members of
/// one name counts. Arrays are ordered: an item put before others moves all of them. Numbers are
/// compared by value: `1`, `1.0` and `1e0` are the same, and so are numbers that no 64-bit integer
/// or float tells apart.
///
/// What is no JSON is compared as bytes, whatever the rule says, and so are documents of which one
/// is larger than [`MAX_COMPARED_BYTES`], and those nested deeper than 127 levels.
///
/// Takes time in proportion to the documents, about a second for two of the largest, and memory of
/// up to 20 times their size: run it where blocking is allowed if they may be large.
pub fn compare(old: &[u8], new: &[u8], rule: &ChangeRule) -> Option<Comparison> {
    if old == new {
        return None;
    }
    let documents = (parse(old), parse(new));
    let (changed, deltas) = match &documents {
        (Some(old), Some(new)) => Walk::over(old, new, rule),
        _ => (1, Vec::new()),
    };
    (changed > 0).then(|| Comparison {
        deltas,
        changed,
        old_hash: hash(old, documents.0.as_ref(), rule),
        new_hash: hash(new, documents.1.as_ref(), rule),
    })
}

/// The document, if it is JSON that is compared as such.
fn parse(bytes: &[u8]) -> Option<Node<'_>> {
    if bytes.len() > MAX_COMPARED_BYTES { None } else { serde_json::from_slice(bytes).ok() }
}

/// Depends on the document and the rule alone, not on what it is compared with: the new hash of one
/// change is the old one of the next.
fn hash(bytes: &[u8], document: Option<&Node<'_>>, rule: &ChangeRule) -> String {
    document.map_or_else(|| of_bytes(bytes), |document| of_document(document, rule))
}
