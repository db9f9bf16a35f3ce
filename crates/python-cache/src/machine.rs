//! The pickle machine: builds the graph of values that a pickle describes, and runs nothing.
//!
//! Where Python would import and call, an object is noted with its class, arguments and state; a
//! class that is not known ends it. Every instruction does work in proportion to the bytes that
//! brought what it handles, so that a pickle of n bytes costs O(n) time and memory.

use std::{borrow::Cow, mem};

use cache_core::Escaped;

use crate::{
    Limits,
    class::Class,
    graph::{Graph, Id, Node, Object, Refusal, Result, refuse},
    input::{Input, ascii, int_of_bytes, int_of_text, raw_unicode, utf8},
};

const NONE: Id = 0;
const FALSE: Id = 1;
const TRUE: Id = 2;
const EMPTY: Id = 3;
/// Nothing is remembered there.
const FORGOTTEN: Id = Id::MAX;

/// Characters of a class name that a message shows.
const SHOWN_NAME: usize = 80;

#[derive(Debug)]
struct Machine<'p> {
    input: Input<'p>,
    /// Bytes of the whole pickle.
    len: usize,
    nodes: Vec<Node<'p>>,
    max_nodes: usize,
    stack: Vec<Id>,
    /// Where the stack was as marks were set.
    marks: Vec<usize>,
    memo: Vec<Id>,
    remembered: usize,
    /// Bytes that may still be copied.
    copies: usize,
}

/// Reads a pickle into a graph.
pub(crate) fn load<'p>(pickle: &'p [u8], limits: &Limits) -> Result<Graph<'p>> {
    let mut machine = Machine {
        input: Input::new(pickle),
        len: pickle.len(),
        // Shared, as nothing can change them.
        nodes: vec![Node::None, Node::Bool(false), Node::Bool(true), Node::Tuple(Vec::new())],
        max_nodes: limits.max_nodes.min(FORGOTTEN as usize),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        remembered: 0,
        copies: limits.max_json_bytes,
    };
    loop {
        let op = machine.input.byte()?;
        if op == b'.' {
            break;
        }
        machine.step(op)?;
    }
    let root = machine.pop()?;
    if machine.input.len() != 0 {
        return refuse("there are bytes after the end of the pickle");
    }
    Ok(Graph { nodes: machine.nodes, root })
}

impl<'p> Machine<'p> {
    fn step(&mut self, op: u8) -> Result<()> {
        match op {
            // PROTO
            0x80 => match self.input.byte()? {
                0..=5 => Ok(()),
                protocol => refuse(format!("protocol {protocol} is not known")),
            },
            // FRAME
            0x95 => self.input.len_of(8).map(drop),
            // POP, POP_MARK, DUP, MARK
            b'0' => {
                if self.stack.len() > self.floor() {
                    self.pop().map(drop)
                } else {
                    self.pop_mark().map(drop)
                }
            }
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)
            }
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memo(op),
            b'l' | b't' | b'd' | b']' | b')' | b'}' | 0x85 | 0x86 | 0x87 | 0x8f | 0x91 | b'a'
            | b'e' | b's' | b'u' | 0x90 => self.container(op),
            b'c' | b'i' | b'o' | b'R' | b'b' | 0x81 | 0x92 | 0x93 => self.object(op),
            b'P' | b'Q' => refuse("it refers to an object outside of it (a persistent id)"),
            0x82..=0x84 => refuse("it uses extension codes, whose classes are not in it"),
            0x97 | 0x98 => refuse("it refers to buffers outside of it"),
            _ => self.scalar(op),
        }
    }

    fn scalar(&mut self, op: u8) -> Result<()> {
        let node = match op {
            b'N' => return self.push_id(NONE),
            0x88 => return self.push_id(TRUE),
            0x89 => return self.push_id(FALSE),
            // INT, LONG
            b'I' => match self.input.ascii_line()? {
                "00" => return self.push_id(FALSE),
                "01" => return self.push_id(TRUE),
                text => int_of_text(text)?,
            },
            b'L' => int_of_text(self.input.ascii_line()?)?,
            // BININT, BININT1, BININT2, LONG1, LONG4
            b'J' => Node::Int(i32::from_le_bytes(self.input.array()?).into()),
            b'K' => Node::Int(self.input.byte()?.into()),
            b'M' => Node::Int(u16::from_le_bytes(self.input.array()?).into()),
            0x8a => int_of_bytes(self.input.counted(1)?)?,
            0x8b => int_of_bytes(self.input.counted(4)?)?,
            // FLOAT, BINFLOAT
            b'F' => {
                let text = self.input.ascii_line()?;
                let float = text.parse();
                Node::Float(float.map_err(|_error| Refusal("a float is no number".into()))?)
            }
            b'G' => Node::Float(f64::from_be_bytes(self.input.array()?)),
            // STRING, BINSTRING, SHORT_BINSTRING: the str of Python 2.
            b'S' => Node::Str(quoted(self.input.ascii_line()?)?.into()),
            b'T' => Node::Str(ascii(self.input.counted(4)?)?.into()),
            b'U' => Node::Str(ascii(self.input.counted(1)?)?.into()),
            // UNICODE, BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'V' => Node::Str(raw_unicode(self.input.line()?)?),
            b'X' => Node::Str(utf8(self.input.counted(4)?)?.into()),
            0x8c => Node::Str(utf8(self.input.counted(1)?)?.into()),
            0x8d => Node::Str(utf8(self.input.counted(8)?)?.into()),
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' => Node::Bytes(self.input.counted(4)?.into()),
            b'C' => Node::Bytes(self.input.counted(1)?.into()),
            0x8e | 0x96 => Node::Bytes(self.input.counted(8)?.into()),
            _ => return refuse(format!("it has an unknown instruction, {op:#04x}")),
        };
        self.push(node)
    }

    /// Values that are remembered: PUT, MEMOIZE, GET in all their sizes.
    fn memo(&mut self, op: u8) -> Result<()> {
        let index = match op {
            0x94 => self.remembered,
            b'q' | b'h' => self.input.byte()?.into(),
            b'r' | b'j' => u32::from_le_bytes(self.input.array()?) as usize,
            _ => {
                let number = self.input.ascii_line()?.parse();
                number.map_err(|_error| Refusal("a memo number is no number".into()))?
            }
        };
        if matches!(op, b'g' | b'h' | b'j') {
            let found = self.memo.get(index).copied().filter(|id| *id != FORGOTTEN);
            let id = found.ok_or_else(|| Refusal("it refers to a value it has not made".into()))?;
            return self.push_id(id);
        }
        // Numbers are given in order, so none can be larger than the pickle.
        if index > self.len {
            return refuse("a memo number is too large");
        }
        if index >= self.memo.len() {
            self.memo.resize(index + 1, FORGOTTEN);
        }
        let id = self.top()?;
        if let Some(place) = self.memo.get_mut(index)
            && mem::replace(place, id) == FORGOTTEN
        {
            self.remembered += 1;
        }
        Ok(())
    }

    fn container(&mut self, op: u8) -> Result<()> {
        match op {
            b')' => self.push_id(EMPTY),
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            0x8f => self.push(Node::Set(Vec::new())),
            b'l' | b't' | b'd' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(match op {
                    b'l' => Node::List(items),
                    b't' => Node::Tuple(items),
                    b'd' => Node::Dict(pairs(&items)?),
                    _ => Node::Set(items),
                })
            }
            // TUPLE1, TUPLE2, TUPLE3
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(op - 0x84))?;
                self.push(Node::Tuple(items))
            }
            // APPEND, SETITEM, APPENDS, SETITEMS, ADDITEMS
            _ => {
                let items = match op {
                    b'a' => self.pop_many(1)?,
                    b's' => self.pop_many(2)?,
                    _ => self.pop_mark()?,
                };
                let target = self.top()?;
                match (op, self.nodes.get_mut(target as usize)) {
                    (b'a' | b'e', Some(Node::List(list))) => list.extend(items),
                    (b's' | b'u', Some(Node::Dict(entries))) => entries.extend(pairs(&items)?),
                    (b's' | b'u', Some(Node::Object(object))) if object.class.has_entries() => {
                        object.entries.extend(pairs(&items)?);
                    }
                    (0x90, Some(Node::Set(set))) => set.extend(items),
                    _ => return refuse("it adds items to a value that takes none"),
                }
                Ok(())
            }
        }
    }

    fn object(&mut self, op: u8) -> Result<()> {
        match op {
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let class = class(utf8(module)?, utf8(name)?)?;
                self.push(Node::Class(class))
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let class = match names[..] {
                    [module, name] => match (self.node(module), self.node(name)) {
                        (Node::Str(module), Node::Str(name)) => class(module, name)?,
                        _ => return refuse("the name of a class is not text"),
                    },
                    _ => return refuse(UNDERFLOW),
                };
                self.push(Node::Class(class))
            }
            // INST, OBJ
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let class = class(utf8(module)?, utf8(name)?)?;
                let args = self.pop_mark()?;
                let args = self.add(Node::Tuple(args))?;
                self.call(class, args)
            }
            b'o' => {
                let mut args = self.pop_mark()?;
                if args.is_empty() {
                    return refuse(UNDERFLOW);
                }
                let class = self.callee(args.remove(0))?;
                let args = self.add(Node::Tuple(args))?;
                self.call(class, args)
            }
            // REDUCE, NEWOBJ, NEWOBJ_EX
            b'R' | 0x81 | 0x92 => {
                if op == 0x92 {
                    let names = self.pop()?;
                    if !matches!(self.node(names), Node::Dict(entries) if entries.is_empty()) {
                        return refuse("it makes an object with arguments by name");
                    }
                }
                let args = self.pop()?;
                let callee = self.pop()?;
                let class = self.callee(callee)?;
                self.call(class, args)
            }
            // BUILD
            _ => {
                let state = self.pop()?;
                let target = self.top()?;
                match self.nodes.get_mut(target as usize) {
                    Some(Node::Object(object))
                        if object.class.has_state() && object.state.is_none() =>
                    {
                        object.state = Some(state);
                        Ok(())
                    }
                    Some(Node::Object(object)) => {
                        refuse(format!("{} has attributes of its own", object.class))
                    }
                    _ => refuse("it sets the state of a value that has none"),
                }
            }
        }
    }

    fn callee(&self, id: Id) -> Result<Class> {
        match self.node(id) {
            Node::Class(class) => Ok(*class),
            _ => refuse("it calls something that is no class"),
        }
    }

    /// Notes what a call would make. What stands for a builtin value becomes that value.
    fn call(&mut self, class: Class, args: Id) -> Result<()> {
        let Node::Tuple(items) = self.node(args) else {
            return refuse("it calls with arguments that are no tuple");
        };
        let (class, args) = match (class, &items[..]) {
            (Class::Encode | Class::Bytes, _) => {
                let bytes = self.encode(class, args)?;
                return self.push(Node::Bytes(bytes));
            }
            // `object.__new__(class)`, as protocols 0 and 1 write it.
            (Class::Reconstructor, &[class, base, state])
                if matches!(self.node(base), Node::Class(Class::Object))
                    && matches!(self.node(state), Node::None) =>
            {
                (self.callee(class)?, EMPTY)
            }
            (Class::Reconstructor | Class::Object | Class::Type, _) => {
                return refuse(format!("{class} cannot be made from what it is called with"));
            }
            _ => (class, args),
        };
        let object = Object { class, args, state: None, entries: Vec::new() };
        self.push(Node::Object(Box::new(object)))
    }

    /// `bytes` as protocols 0 to 2 write them: text in which a character is a byte.
    fn encode(&mut self, class: Class, args: Id) -> Result<Cow<'p, [u8]>> {
        let Node::Tuple(items) = self.node(args) else { return refuse(UNDERFLOW) };
        let bytes = match (class, &items[..]) {
            (Class::Bytes, []) => Cow::Borrowed(&[][..]),
            (Class::Bytes, &[bytes]) => match self.node(bytes) {
                Node::Bytes(bytes) => bytes.clone(),
                _ => return refuse("bytes are made from something else"),
            },
            (_, &[text, encoding]) => match (self.node(text), self.node(encoding)) {
                (Node::Str(text), Node::Str(encoding))
                    if matches!(&**encoding, "latin1" | "latin-1") =>
                {
                    let bytes: std::result::Result<Vec<u8>, _> =
                        text.chars().map(u8::try_from).collect();
                    match bytes {
                        Ok(bytes) => bytes.into(),
                        Err(_) => return refuse("bytes are made from other characters"),
                    }
                }
                _ => return refuse("bytes are made in another encoding"),
            },
            _ => return refuse("bytes are made from something else"),
        };
        if let Cow::Owned(copy) = &bytes {
            // The same text may be asked for often; that is the only copy a few bytes can cause.
            self.copies = self
                .copies
                .checked_sub(copy.len())
                .ok_or_else(|| Refusal("its bytes take more than may be decoded".into()))?;
        }
        Ok(bytes)
    }

    fn node(&self, id: Id) -> &Node<'p> {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    fn add(&mut self, node: Node<'p>) -> Result<Id> {
        if self.nodes.len() >= self.max_nodes {
            return refuse(format!("it has more than {} values", self.max_nodes));
        }
        let id = self.nodes.len() as Id;
        self.nodes.push(node);
        Ok(id)
    }

    fn push(&mut self, node: Node<'p>) -> Result<()> {
        let id = self.add(node)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        // Not only nodes: a million times the same value is a stack of a million.
        if self.stack.len() >= self.max_nodes {
            return refuse(format!("it has more than {} values", self.max_nodes));
        }
        self.stack.push(id);
        Ok(())
    }

    /// What lies below belongs to before the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => refuse(UNDERFLOW),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= self.floor() => Ok(self.stack.split_off(start)),
            _ => refuse(UNDERFLOW),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            // `split_off` would hand out the whole capacity of the stack.
            Some(0) => Ok(self.stack.drain(..).collect()),
            Some(start) => Ok(self.stack.split_off(start)),
            None => refuse(UNDERFLOW),
        }
    }
}

const UNDERFLOW: &str = "an instruction lacks the values it needs";

/// The class of a name, if it is understood.
fn class(module: &str, name: &str) -> Result<Class> {
    Class::named(module, name).ok_or_else(|| {
        let full = format!("{module}.{name}");
        let shown: String = full.chars().take(SHOWN_NAME).collect();
        Refusal(format!("class `{}` is not one that is read", Escaped(&shown)))
    })
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    } else {
        refuse("a key has no value")
    }
}

/// The text between quotes.
fn quoted(text: &str) -> Result<&str> {
    let inner = ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .filter(|inner| !inner.contains('\\'));
    inner.ok_or_else(|| Refusal("text of Python 2 has escapes".into()))
}
