//! What a pickle describes: values that refer to each other by number.

use std::borrow::Cow;

use crate::class::Class;

/// The number of a value.
pub(crate) type Id = u32;

/// Why a pickle is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

pub(crate) type Result<T> = std::result::Result<T, Refusal>;

/// Refuses, with a reason.
pub(crate) fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Refusal(reason.into()))
}

/// A value.
#[derive(Debug)]
pub(crate) enum Node<'p> {
    None,
    Bool(bool),
    Int(i64),
    /// Digits of an int beyond 64 bits.
    Big(Box<str>),
    Float(f64),
    Str(Cow<'p, str>),
    /// `bytes` or `bytearray`.
    Bytes(Cow<'p, [u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// `set` or `frozenset`.
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Class(Class),
    Object(Box<Object>),
}

/// What a call would have made.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) class: Class,
    /// A tuple.
    pub(crate) args: Id,
    pub(crate) state: Option<Id>,
    /// Items set in it.
    pub(crate) entries: Vec<(Id, Id)>,
}

impl Object {
    pub(crate) fn state(&self) -> Result<Id> {
        self.state.ok_or_else(|| Refusal(format!("{} has no state", self.class)))
    }
}

/// All values of a pickle.
#[derive(Debug)]
pub(crate) struct Graph<'p> {
    pub(crate) nodes: Vec<Node<'p>>,
    pub(crate) root: Id,
}

impl<'p> Graph<'p> {
    pub(crate) fn node(&self, id: Id) -> &Node<'p> {
        // Ids are only made for nodes that exist.
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    pub(crate) fn tuple(&self, id: Id) -> Result<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) => Ok(items),
            _ => refuse("a tuple is missing in an object's data"),
        }
    }

    /// The items of a list or a tuple.
    pub(crate) fn items(&self, id: Id) -> Result<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => Ok(items),
            _ => refuse("a list is missing in an object's data"),
        }
    }

    pub(crate) fn str(&self, id: Id) -> Result<&str> {
        match self.node(id) {
            Node::Str(text) => Ok(text),
            _ => refuse("a str is missing in an object's data"),
        }
    }

    pub(crate) fn bytes(&self, id: Id) -> Result<&[u8]> {
        match self.node(id) {
            Node::Bytes(bytes) => Ok(bytes),
            _ => refuse("bytes are missing in an object's data"),
        }
    }

    pub(crate) fn int(&self, id: Id) -> Result<i64> {
        match self.node(id) {
            Node::Int(int) => Ok(*int),
            _ => refuse("an int is missing in an object's data"),
        }
    }

    pub(crate) fn size(&self, id: Id) -> Result<usize> {
        usize::try_from(self.int(id)?).or_else(|_error| refuse("a size is negative"))
    }

    pub(crate) fn is_none(&self, id: Id) -> bool {
        matches!(self.node(id), Node::None)
    }

    pub(crate) fn object(&self, id: Id) -> Option<&Object> {
        match self.node(id) {
            Node::Object(object) => Some(object),
            _ => None,
        }
    }

    pub(crate) fn class(&self, id: Id) -> Option<Class> {
        match self.node(id) {
            Node::Class(class) => Some(*class),
            _ => None,
        }
    }

    /// The arguments of an object.
    pub(crate) fn args(&self, object: &Object) -> Result<&[Id]> {
        self.tuple(object.args)
    }

    /// The value of a key in a dict of few keys; the last, should there be more.
    pub(crate) fn get(&self, dict: Id, key: &str) -> Result<Option<Id>> {
        let Node::Dict(entries) = self.node(dict) else {
            return refuse("a dict is missing in an object's data");
        };
        if entries.len() > MAX_ATTRIBUTES {
            return refuse("an object has too many attributes");
        }
        let found = entries
            .iter()
            .rev()
            .find(|(name, _)| matches!(self.node(*name), Node::Str(name) if name == key));
        Ok(found.map(|(_, value)| *value))
    }

    pub(crate) fn attribute(&self, dict: Id, key: &str) -> Result<Id> {
        self.get(dict, key)?.ok_or_else(|| Refusal(format!("an object has no `{key}`")))
    }
}

/// Most attributes of an object whose class is known; they are looked through one by one.
const MAX_ATTRIBUTES: usize = 64;
