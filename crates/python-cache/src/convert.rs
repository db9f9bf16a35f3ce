//! From the graph of a pickle to JSON, without recursion and within limits.

use std::{cmp::Ordering, rc::Rc};

use crate::{
    Limits,
    array::{Array, Cell, scalar},
    class::Class,
    frame::{Column, Series, Table, is_missing},
    graph::{Graph, Id, Node, Object, Refusal, Result, refuse},
    json::Output,
    times,
};

/// A JSON array or object that has been begun.
#[derive(Debug)]
enum Open<'g> {
    List {
        items: &'g [Id],
        next: usize,
    },
    Set {
        items: &'g [Id],
        starts: Vec<usize>,
    },
    Dict {
        entries: &'g [(Id, Id)],
        next: usize,
        key: Option<usize>,
        keys: Vec<(usize, usize)>,
    },
    /// One dimension of an array, from an element on.
    Array {
        array: Rc<Array<'g>>,
        axis: usize,
        start: usize,
        next: usize,
    },
    /// Labels of an axis, or the values of a series.
    Column {
        column: Rc<Column<'g>>,
        next: usize,
    },
    /// A label that is a tuple.
    Label {
        column: Rc<Column<'g>>,
        at: usize,
        next: usize,
    },
    Table {
        table: Rc<Table<'g>>,
        next: usize,
    },
    Series {
        series: Series<'g>,
        next: usize,
    },
    Rows {
        table: Rc<Table<'g>>,
        next: usize,
    },
    Row {
        table: Rc<Table<'g>>,
        row: usize,
        next: usize,
    },
}

struct Converter<'g, 'p> {
    graph: &'g Graph<'p>,
    output: Output,
    open: Vec<Open<'g>>,
    max_depth: usize,
    /// Values that may still be visited.
    left: usize,
    max_nodes: usize,
}

/// Writes the value of a pickle.
pub(crate) fn convert(graph: &Graph<'_>, limits: &Limits) -> Result<Vec<u8>> {
    let mut converter = Converter {
        graph,
        output: Output::new(limits.max_json_bytes),
        open: Vec::new(),
        max_depth: limits.max_depth,
        left: limits.max_nodes,
        max_nodes: limits.max_nodes,
    };
    converter.value(graph.root)?;
    while let Some(open) = converter.open.pop() {
        converter.advance(open)?;
    }
    Ok(converter.output.into_text())
}

impl<'g> Converter<'g, '_> {
    /// Writes the next part of what is open, or closes it.
    fn advance(&mut self, open: Open<'g>) -> Result<()> {
        match open {
            Open::List { items, next } => match items.get(next) {
                Some(item) => {
                    self.separate(next)?;
                    self.open.push(Open::List { items, next: next + 1 });
                    self.value(*item)
                }
                None => self.output.put(b"]"),
            },
            Open::Set { items, mut starts } => match items.get(starts.len()) {
                Some(item) => {
                    self.separate(starts.len())?;
                    starts.push(self.output.len());
                    self.open.push(Open::Set { items, starts });
                    self.value(*item)
                }
                None => self.close_set(&starts),
            },
            Open::Dict { entries, next, key, keys } => self.entry(entries, next, key, keys),
            Open::Array { array, axis, start, next } => self.dimension(array, axis, start, next),
            Open::Column { column, next } => {
                if next == column.len() {
                    return self.output.put(b"]");
                }
                self.separate(next)?;
                self.open.push(Open::Column { column: Rc::clone(&column), next: next + 1 });
                if column.levels().is_some() {
                    return self.begin(b"[", Open::Label { column, at: next, next: 0 });
                }
                self.cell(column.cell(next)?, true)
            }
            Open::Label { column, at, next } => match column.levels().and_then(|l| l.get(next)) {
                Some(level) => {
                    self.separate(next)?;
                    let cell = level.cell(at)?;
                    self.open.push(Open::Label { column, at, next: next + 1 });
                    self.cell(cell, true)
                }
                None => self.output.put(b"]"),
            },
            Open::Table { table, next } => {
                let (name, part): (&[u8], _) = match next {
                    0 => (b"\"columns\":[", column(&table.labels)),
                    1 => (b",\"index\":[", column(&table.index)),
                    2 => (b",\"data\":[", Open::Rows { table: Rc::clone(&table), next: 0 }),
                    _ => return self.output.put(b"}"),
                };
                self.open.push(Open::Table { table, next: next + 1 });
                self.begin(name, part)
            }
            Open::Series { series, next } => {
                let (name, part): (&[u8], _) = match next {
                    0 => {
                        self.output.put(b"\"name\":")?;
                        let name = series.name;
                        self.open.push(Open::Series { series, next: 1 });
                        return self.cell(name.map_or(Cell::Null, Cell::Value), true);
                    }
                    1 => (b",\"index\":[", column(&series.index)),
                    2 => (b",\"data\":[", column(&series.values)),
                    _ => return self.output.put(b"}"),
                };
                self.open.push(Open::Series { series, next: next + 1 });
                self.begin(name, part)
            }
            Open::Rows { table, next } => {
                if next == table.index.len() {
                    return self.output.put(b"]");
                }
                self.separate(next)?;
                self.open.push(Open::Rows { table: Rc::clone(&table), next: next + 1 });
                self.begin(b"[", Open::Row { table, row: next, next: 0 })
            }
            Open::Row { table, row, next } => match table.columns.get(next) {
                Some(column) => {
                    self.separate(next)?;
                    let cell = column.cell(row)?;
                    self.open.push(Open::Row { table, row, next: next + 1 });
                    self.cell(cell, true)
                }
                None => self.output.put(b"]"),
            },
        }
    }

    fn separate(&mut self, written: usize) -> Result<()> {
        if written == 0 { Ok(()) } else { self.output.put(b",") }
    }

    fn begin(&mut self, text: &[u8], open: Open<'g>) -> Result<()> {
        if self.open.len() >= self.max_depth {
            return refuse(format!(
                "it is nested deeper than {}, or contains itself",
                self.max_depth
            ));
        }
        self.open.push(open);
        self.output.put(text)
    }

    fn charge(&mut self, values: usize) -> Result<()> {
        let left = self.left.checked_sub(values);
        let max = self.max_nodes;
        self.left = left
            .ok_or_else(|| Refusal(format!("it has more than {max} values, with repeated ones")))?;
        Ok(())
    }

    fn value(&mut self, id: Id) -> Result<()> {
        self.charge(1)?;
        match self.graph.node(id) {
            Node::None | Node::Class(Class::NotAvailable) => self.output.put(b"null"),
            Node::Bool(value) => self.output.display(value),
            Node::Int(value) => self.output.display(value),
            Node::Big(digits) => self.output.put(digits.as_bytes()),
            Node::Float(value) => self.output.float(*value),
            Node::Str(text) => self.output.str(text),
            Node::Bytes(bytes) => self.output.bytes(bytes),
            Node::List(items) | Node::Tuple(items) => {
                self.begin(b"[", Open::List { items, next: 0 })
            }
            Node::Set(items) => self.begin(b"[", Open::Set { items, starts: Vec::new() }),
            Node::Dict(entries) => self.begin(b"{", dict(entries)),
            Node::Class(_) => refuse("it holds a class rather than a value"),
            Node::Object(object) => self.object(id, object),
        }
    }

    fn object(&mut self, id: Id, object: &'g Object) -> Result<()> {
        let graph = self.graph;
        match object.class {
            Class::Set => match *graph.args(object)? {
                [] => self.output.put(b"[]"),
                [items] => {
                    let items = match graph.node(items) {
                        Node::Set(items) => items,
                        _ => graph.items(items)?,
                    };
                    self.begin(b"[", Open::Set { items, starts: Vec::new() })
                }
                _ => refuse("a set is made from several values"),
            },
            Class::OrderedDict | Class::DefaultDict | Class::Counter => {
                self.begin(b"{", dict(entries(graph, object)?))
            }
            Class::Decimal => match *graph.args(object)? {
                [text] => self.output.str(graph.str(text)?),
                _ => refuse("a Decimal is not made from text"),
            },
            Class::DateTime | Class::Date | Class::Time => {
                let text = times::text(graph, object)?;
                self.output.str(&text)
            }
            Class::TimeDelta => {
                let seconds = times::delta(graph, object)?;
                self.output.put(seconds.as_bytes())
            }
            Class::Timestamp => {
                let text = times::timestamp(graph, object)?;
                self.cell(text.map_or(Cell::Null, Cell::Text), false)
            }
            Class::Timedelta => {
                let seconds = times::timedelta(graph, object)?;
                self.cell(seconds.map_or(Cell::Null, Cell::Number), false)
            }
            Class::NotATime => self.output.put(b"null"),
            Class::Scalar => self.cell(scalar(graph, object)?, false),
            Class::ReconstructArray | Class::FromBuffer => {
                let array = Array::read(graph, id)?;
                if array.shape.is_empty() {
                    return self.cell(array.element(0, false)?, false);
                }
                let array = Rc::new(array);
                self.begin(b"[", Open::Array { array, axis: 0, start: 0, next: 0 })
            }
            Class::DataFrame => {
                let table = Table::read(graph, object)?;
                self.charge(table.columns.len() + parts(&table.labels) + parts(&table.index))?;
                self.begin(b"{", Open::Table { table: Rc::new(table), next: 0 })
            }
            Class::Series => {
                let series = Series::read(graph, object)?;
                self.charge(parts(&series.index))?;
                self.begin(b"{", Open::Series { series, next: 0 })
            }
            Class::NewIndex => {
                let index = Column::read_index(graph, id, 0)?;
                self.charge(parts(&index))?;
                self.begin(b"[", Open::Column { column: Rc::new(index), next: 0 })
            }
            class => refuse(format!("{class} has no value in JSON")),
        }
    }

    /// Writes an element; in a frame, what is missing or not finite is null.
    fn cell(&mut self, cell: Cell<'g>, in_frame: bool) -> Result<()> {
        match cell {
            Cell::Null => self.output.put(b"null"),
            Cell::Bool(value) => self.output.display(value),
            Cell::Int(value) => self.output.display(value),
            Cell::Uint(value) => self.output.display(value),
            Cell::Float(value) if in_frame && !value.is_finite() => self.output.put(b"null"),
            Cell::Float(value) => self.output.float(value),
            Cell::Number(digits) => self.output.put(digits.as_bytes()),
            Cell::Text(text) => self.output.str(&text),
            Cell::Bytes(bytes) => self.output.bytes(bytes),
            Cell::Value(id) if in_frame && is_missing(self.graph, id) => self.output.put(b"null"),
            Cell::Value(id) => self.value(id),
        }
    }

    fn dimension(
        &mut self,
        array: Rc<Array<'g>>,
        axis: usize,
        start: usize,
        next: usize,
    ) -> Result<()> {
        let (Some(len), Some(stride)) = (array.shape.get(axis), array.strides.get(axis)) else {
            return refuse("an array has fewer dimensions than it says");
        };
        if next == *len {
            return self.output.put(b"]");
        }
        self.separate(next)?;
        let (at, innermost) = (start + next * stride, axis + 1 == array.shape.len());
        self.open.push(Open::Array { array: Rc::clone(&array), axis, start, next: next + 1 });
        if innermost {
            self.cell(array.element(at, false)?, false)
        } else {
            self.begin(b"[", Open::Array { array, axis: axis + 1, start: at, next: 0 })
        }
    }

    /// The next key of a dict, or the value after the key that began at `key`.
    fn entry(
        &mut self,
        entries: &'g [(Id, Id)],
        next: usize,
        key: Option<usize>,
        mut keys: Vec<(usize, usize)>,
    ) -> Result<()> {
        let Some((name, value)) = entries.get(next) else {
            self.unique(&mut keys)?;
            return self.output.put(b"}");
        };
        let Some(start) = key else {
            self.separate(next)?;
            let key = Some(self.output.len());
            self.open.push(Open::Dict { entries, next, key, keys });
            return self.value(*name);
        };
        // A key that is no text becomes the text that it is in JSON.
        if self.output.since(start).first() != Some(&b'"') {
            let text = String::from_utf8_lossy(self.output.since(start)).into_owned();
            self.output.replace(start, b"")?;
            self.output.str(&text)?;
        }
        keys.push((start, self.output.len()));
        self.output.put(b":")?;
        self.open.push(Open::Dict { entries, next: next + 1, key: None, keys });
        self.value(*value)
    }

    fn unique(&self, keys: &mut [(usize, usize)]) -> Result<()> {
        keys.sort_unstable_by_key(|key| self.output.range(*key));
        let same = |pair: &&[(usize, usize)]| matches!(pair, [a, b] if self.output.range(*a) == self.output.range(*b));
        match keys.windows(2).find(same) {
            Some(_) => refuse("two keys of a dict are the same text"),
            None => Ok(()),
        }
    }

    /// Puts the items of a set in an order that does not depend on Python's hashes.
    fn close_set(&mut self, starts: &[usize]) -> Result<()> {
        let Some(first) = starts.first() else { return self.output.put(b"]") };
        let text = self.output.since(*first).to_owned();
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([first + text.len()]);
        let ranges = starts.iter().zip(ends).map(|(start, end)| start - first..end - first);
        let mut items: Vec<_> = ranges.filter_map(|range| text.get(range)).map(Item::of).collect();
        items.sort_by(Item::compare);
        items.dedup_by(|a, b| a.text == b.text);
        let items: Vec<_> = items.into_iter().map(|item| item.text).collect();
        self.output.replace(*first, &items.join(&b','))?;
        self.output.put(b"]")
    }
}

/// An item of a set: numbers come first, by their size; then others, by their text.
struct Item<'t> {
    number: Option<f64>,
    text: &'t [u8],
}

impl<'t> Item<'t> {
    fn of(text: &'t [u8]) -> Self {
        let digits = text.first().is_some_and(|byte| matches!(byte, b'-' | b'0'..=b'9'));
        let number =
            str::from_utf8(text).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        Self { number, text }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            // Large ints may be the same float.
            (Some(a), Some(b)) => a.total_cmp(&b).then_with(|| self.text.cmp(other.text)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.text.cmp(other.text),
        }
    }
}

fn dict(entries: &[(Id, Id)]) -> Open<'_> {
    Open::Dict { entries, next: 0, key: None, keys: Vec::new() }
}

fn column<'g>(column: &Rc<Column<'g>>) -> Open<'g> {
    Open::Column { column: Rc::clone(column), next: 0 }
}

/// What a label is made of, beside what is written.
fn parts(column: &Column<'_>) -> usize {
    column.levels().map_or(1, <[_]>::len)
}

/// The items of a dict of another class: set one by one, or all in an argument.
fn entries<'g>(graph: &'g Graph<'_>, object: &'g Object) -> Result<&'g [(Id, Id)]> {
    let of = match (object.class, graph.args(object)?) {
        (Class::DefaultDict, [] | [_]) | (_, []) => None,
        (Class::DefaultDict, &[_, items]) | (Class::OrderedDict | Class::Counter, &[items]) => {
            Some(graph.node(items))
        }
        _ => return refuse(format!("{} is made from other values", object.class)),
    };
    match of {
        None => Ok(&object.entries),
        Some(Node::Dict(entries)) if object.entries.is_empty() => Ok(entries),
        Some(_) => refuse(format!("{} is made from other values", object.class)),
    }
}
