//! Frames, series and indexes of pandas, as columns.

use std::rc::Rc;

use crate::{
    array::{Array, Cell, Line},
    class::Class,
    graph::{Graph, Id, Node, Object, Refusal, Result, refuse},
};

/// How deep indexes lie in each other: categories in a level of a `MultiIndex`.
const MAX_NESTED: usize = 2;

/// Values of one column, or labels of one axis.
#[derive(Clone, Debug)]
pub(crate) enum Column<'g> {
    Plain(Line<'g>),
    /// Nullable integers, floats and booleans.
    Masked {
        values: Line<'g>,
        mask: Line<'g>,
    },
    Categorical {
        codes: Line<'g>,
        categories: Rc<Column<'g>>,
    },
    Range {
        start: i64,
        step: i64,
        len: usize,
    },
    /// Labels that are tuples.
    Multi {
        levels: Vec<Column<'g>>,
        len: usize,
    },
}

/// Most columns of a frame.
const MAX_COLUMNS: usize = 100_000;

/// A frame.
#[derive(Debug)]
pub(crate) struct Table<'g> {
    pub(crate) labels: Rc<Column<'g>>,
    pub(crate) index: Rc<Column<'g>>,
    pub(crate) columns: Vec<Column<'g>>,
}

/// A series.
#[derive(Debug)]
pub(crate) struct Series<'g> {
    pub(crate) name: Option<Id>,
    pub(crate) index: Rc<Column<'g>>,
    pub(crate) values: Rc<Column<'g>>,
}

/// Values and the columns they are in.
type Block = (Id, Id);

fn unreadable() -> Refusal {
    Refusal("an object of pandas has data that is not read".into())
}

impl<'g> Column<'g> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(line) | Self::Categorical { codes: line, .. } => line.len,
            Self::Masked { values, .. } => values.len,
            Self::Range { len, .. } | Self::Multi { len, .. } => *len,
        }
    }

    /// The value at a place; labels that are tuples have [`levels`](Self::levels) instead.
    pub(crate) fn cell(&self, at: usize) -> Result<Cell<'g>> {
        match self {
            Self::Plain(line) => line.cell(at),
            Self::Masked { values, mask } => match mask.cell(at)? {
                Cell::Bool(true) => Ok(Cell::Null),
                _ => values.cell(at),
            },
            Self::Categorical { codes, categories } => match usize::try_from(codes.int(at)?) {
                // -1: none of them.
                Err(_) => Ok(Cell::Null),
                Ok(code) if code < categories.len() => categories.cell(code),
                Ok(_) => refuse("a category does not exist"),
            },
            Self::Range { start, step, .. } => {
                let value = i128::from(*start) + i128::from(*step) * at as i128;
                i64::try_from(value).map(Cell::Int).map_err(|_error| unreadable())
            }
            Self::Multi { .. } => Err(unreadable()),
        }
    }

    /// The parts of labels that are tuples.
    pub(crate) fn levels(&self) -> Option<&[Self]> {
        match self {
            Self::Multi { levels, .. } => Some(levels),
            _ => None,
        }
    }

    /// The columns that an array of values makes: of two dimensions, each of the first is one.
    fn read_all(graph: &'g Graph<'_>, id: Id, nested: usize) -> Result<Vec<Self>> {
        let object = graph.object(id).ok_or_else(unreadable)?;
        match object.class {
            Class::ReconstructArray | Class::FromBuffer => lines(Array::read(graph, id)?, false),
            Class::UnpickleArray => Self::read_backed(graph, object, nested),
            Class::MaskedArray => {
                let state = object.state()?;
                let part = |name| Line::whole(Array::read(graph, graph.attribute(state, name)?)?);
                let (values, mask) = (part("_data")?, part("_mask")?);
                if values.len != mask.len {
                    return Err(unreadable());
                }
                Ok(vec![Self::Masked { values, mask }])
            }
            _ => Err(unreadable()),
        }
    }

    /// An array of pandas that keeps an array of numpy.
    fn read_backed(graph: &'g Graph<'_>, object: &Object, nested: usize) -> Result<Vec<Self>> {
        let [class, _, state] = *graph.args(object)? else { return Err(unreadable()) };
        let state = object.state.unwrap_or(state);
        let [dtype, values, ..] = *graph.tuple(state)? else { return Err(unreadable()) };
        let values = Array::read(graph, values)?;
        let dtype = graph.object(dtype).ok_or_else(unreadable)?;
        match (graph.class(class), dtype.class) {
            (Some(Class::BackedArray), Class::DatetimeTzDtype) => lines(values, true),
            (Some(Class::BackedArray), Class::Dtype | Class::StringDtype) => lines(values, false),
            (Some(Class::Categorical), Class::CategoricalDtype) => {
                let categories = graph.attribute(dtype.state()?, "categories")?;
                let categories = Self::read_index(graph, categories, nested + 1)?;
                let codes = Line::whole(values)?;
                Ok(vec![Self::Categorical { codes, categories: Rc::new(categories) }])
            }
            _ => Err(unreadable()),
        }
    }

    /// An index of any kind.
    pub(crate) fn read_index(graph: &'g Graph<'_>, id: Id, nested: usize) -> Result<Self> {
        let object = graph.object(id).ok_or_else(unreadable)?;
        let [class, data] = *graph.args(object)? else { return Err(unreadable()) };
        if object.class != Class::NewIndex || nested > MAX_NESTED {
            return Err(unreadable());
        }
        match graph.class(class) {
            Some(Class::RangeIndex) => {
                let part = |name| graph.int(graph.attribute(data, name)?);
                let (start, step) = (part("start")?, part("step")?);
                Ok(Self::Range { start, step, len: range_len(start, part("stop")?, step)? })
            }
            Some(Class::Index) => {
                let values = graph.attribute(data, "data")?;
                // Categories of an index that are an index themselves go one deeper.
                one(Self::read_all(graph, values, nested)?)
            }
            Some(Class::MultiIndex) if nested == 0 => {
                let levels = graph.items(graph.attribute(data, "levels")?)?;
                let codes = graph.items(graph.attribute(data, "codes")?)?;
                let parts = levels.iter().zip(codes).map(|(level, codes)| {
                    Ok(Self::Categorical {
                        codes: Line::whole(Array::read(graph, *codes)?)?,
                        categories: Rc::new(Self::read_index(graph, *level, nested + 1)?),
                    })
                });
                let parts: Vec<_> = parts.collect::<Result<_>>()?;
                let len = parts.first().map_or(0, Self::len);
                if levels.len() != codes.len() || parts.iter().any(|part| part.len() != len) {
                    return Err(unreadable());
                }
                Ok(Self::Multi { levels: parts, len })
            }
            _ => Err(unreadable()),
        }
    }
}

/// The columns of an array.
fn lines(array: Array<'_>, utc: bool) -> Result<Vec<Column<'_>>> {
    match (&array.shape[..], &array.strides[..]) {
        ([_], _) => Ok(vec![Column::Plain(Line { utc, ..Line::whole(array)? })]),
        (&[count, len], &[to_next, stride]) => {
            few_enough(count)?;
            let array = Rc::new(array);
            let line = |at| {
                let array = Rc::clone(&array);
                Column::Plain(Line { array, start: at * to_next, stride, len, utc })
            };
            Ok((0..count).map(line).collect())
        }
        _ => Err(unreadable()),
    }
}

/// A column takes more memory than the single byte that can be all there is of it in a pickle.
fn few_enough(columns: usize) -> Result<()> {
    if columns > MAX_COLUMNS {
        return refuse(format!("a frame has more than {MAX_COLUMNS} columns"));
    }
    Ok(())
}

fn one<T>(mut of: Vec<T>) -> Result<T> {
    match (of.pop(), of.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(unreadable()),
    }
}

/// As many as Python's `range` has.
fn range_len(start: i64, end: i64, step: i64) -> Result<usize> {
    let (start, end, step) = (i128::from(start), i128::from(end), i128::from(step));
    let span = if step < 0 { start - end } else { end - start };
    if step == 0 {
        return Err(unreadable());
    }
    let len = (span.max(0) + step.abs() - 1) / step.abs();
    usize::try_from(len).map_err(|_error| unreadable())
}

/// The axes and blocks of a manager, in either of the forms pandas has written them.
fn parts<'g>(graph: &'g Graph<'_>, manager: Id) -> Result<(&'g [Id], Vec<Block>)> {
    let object = graph.object(manager).filter(|object| object.class == Class::BlockManager);
    let object = object.ok_or_else(unreadable)?;
    if let Some(state) = object.state {
        // A dict for those who read the form of version 0.14.1 comes last.
        let extra = *graph.tuple(state)?.last().ok_or_else(unreadable)?;
        let extra = graph.attribute(extra, "0.14.1")?;
        let blocks = graph.items(graph.attribute(extra, "blocks")?)?.iter().map(|block| {
            Ok((graph.attribute(*block, "values")?, graph.attribute(*block, "mgr_locs")?))
        });
        return Ok((graph.items(graph.attribute(extra, "axes")?)?, blocks.collect::<Result<_>>()?));
    }
    let [blocks, axes] = *graph.args(object)? else { return Err(unreadable()) };
    let blocks = graph.items(blocks)?.iter().map(|block| {
        let block = graph.object(*block).filter(|block| block.class == Class::UnpickleBlock);
        match *graph.args(block.ok_or_else(unreadable)?)? {
            [values, placement, _] => Ok((values, placement)),
            _ => Err(unreadable()),
        }
    });
    Ok((graph.items(axes)?, blocks.collect::<Result<_>>()?))
}

/// The manager in a frame's or series' state.
fn manager(graph: &Graph<'_>, state: Id) -> Result<Id> {
    match graph.get(state, "_mgr")? {
        Some(manager) => Ok(manager),
        // pandas before 1.1
        None => graph.attribute(state, "_data"),
    }
}

/// Which of `count` columns a block holds.
fn placement(graph: &Graph<'_>, id: Id, count: usize) -> Result<Vec<usize>> {
    let object = graph.object(id).ok_or_else(unreadable)?;
    let places = if object.class == Class::Slice {
        let [start, end, step] = *graph.args(object)? else { return Err(unreadable()) };
        let optional = |id| if graph.is_none(id) { Ok(None) } else { graph.int(id).map(Some) };
        let step = optional(step)?.unwrap_or(1);
        let count = i64::try_from(count).map_err(|_error| unreadable())?;
        let (first, last) = if step < 0 { (count - 1, -1) } else { (0, count) };
        let start = optional(start)?.unwrap_or(first);
        let end = optional(end)?.unwrap_or(last);
        Column::Range { start, step, len: range_len(start, end, step)? }
    } else {
        Column::Plain(Line::whole(Array::read(graph, id)?)?)
    };
    if places.len() > count {
        return Err(unreadable());
    }
    let place = |at| match places.cell(at)? {
        Cell::Int(place) => usize::try_from(place).map_err(|_error| unreadable()),
        _ => Err(unreadable()),
    };
    (0..places.len()).map(place).collect()
}

impl<'g> Table<'g> {
    pub(crate) fn read(graph: &'g Graph<'_>, object: &Object) -> Result<Self> {
        let (axes, blocks) = parts(graph, manager(graph, object.state()?)?)?;
        let &[labels, index] = axes else { return Err(unreadable()) };
        let labels = Rc::new(Column::read_index(graph, labels, 0)?);
        let index = Rc::new(Column::read_index(graph, index, 0)?);
        few_enough(labels.len())?;
        let mut columns = Vec::new();
        for (values, places) in blocks {
            let found = Column::read_all(graph, values, 0)?;
            let places = placement(graph, places, labels.len())?;
            if found.len() != places.len() {
                return Err(unreadable());
            }
            columns.extend(places.into_iter().zip(found));
            few_enough(columns.len())?;
        }
        columns.sort_by_key(|(place, _)| *place);
        let complete = columns.iter().map(|(place, _)| *place).eq(0..labels.len());
        if !complete || columns.iter().any(|(_, column)| column.len() != index.len()) {
            return refuse("a frame's columns do not fit its labels");
        }
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        Ok(Self { labels, index, columns })
    }
}

impl<'g> Series<'g> {
    pub(crate) fn read(graph: &'g Graph<'_>, object: &Object) -> Result<Self> {
        let state = object.state()?;
        let name = match graph.get(state, "_name")? {
            None => graph.get(state, "name")?,
            name => name,
        };
        let (axes, blocks) = parts(graph, manager(graph, state)?)?;
        let (&[index], &[(values, _)]) = (axes, &blocks[..]) else { return Err(unreadable()) };
        let index = Column::read_index(graph, index, 0)?;
        let values = one(Column::read_all(graph, values, 0)?)?;
        if index.len() != values.len() {
            return Err(unreadable());
        }
        Ok(Self { name, index: Rc::new(index), values: Rc::new(values) })
    }
}

/// Whether a value of Python is pandas' way to say that there is none.
pub(crate) fn is_missing(graph: &Graph<'_>, id: Id) -> bool {
    match graph.node(id) {
        Node::None | Node::Class(Class::NotAvailable) => true,
        Node::Float(float) => !float.is_finite(),
        Node::Object(object) => object.class == Class::NotATime,
        _ => false,
    }
}
