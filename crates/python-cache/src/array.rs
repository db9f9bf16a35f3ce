//! Arrays and scalars of numpy.

use std::rc::Rc;

use crate::{
    class::Class,
    graph::{Graph, Id, Node, Object, Refusal, Result, refuse},
    times::{Unit, seconds, since_1970},
};

/// Most dimensions that numpy gives an array.
const MAX_DIMENSIONS: usize = 64;

/// One element of an array.
#[derive(Debug)]
pub(crate) enum Cell<'g> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// Digits of a number.
    Number(String),
    Text(String),
    Bytes(&'g [u8]),
    /// Any value of Python.
    Value(Id),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    Int,
    Uint,
    Float,
    Text,
    Bytes,
    Time(Unit),
    Span(Unit),
    Object,
}

/// What elements are, and how they are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dtype {
    kind: Kind,
    /// In bytes; of no meaning for objects.
    size: usize,
    big_endian: bool,
}

#[derive(Debug)]
enum Data<'g> {
    Packed(&'g [u8]),
    Objects(&'g [Id]),
}

/// An array whose elements are all there.
#[derive(Debug)]
pub(crate) struct Array<'g> {
    dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Elements from one to the next in each dimension.
    pub(crate) strides: Vec<usize>,
    data: Data<'g>,
}

/// Elements of an array in one direction.
#[derive(Clone, Debug)]
pub(crate) struct Line<'g> {
    pub(crate) array: Rc<Array<'g>>,
    pub(crate) start: usize,
    pub(crate) stride: usize,
    pub(crate) len: usize,
    /// Whether times are in UTC rather than local.
    pub(crate) utc: bool,
}

impl Dtype {
    fn read(graph: &Graph<'_>, id: Id) -> Result<Self> {
        let unreadable = || Refusal("a dtype of numpy is not one that is read".into());
        let object = graph.object(id).filter(|object| object.class == Class::Dtype);
        let object = object.ok_or_else(unreadable)?;
        let [code, ..] = graph.args(object)? else { return Err(unreadable()) };
        let state = graph.tuple(object.state()?)?;
        let [_, order, base, names, fields, ..] = *state else { return Err(unreadable()) };
        if [base, names, fields].iter().any(|id| !graph.is_none(*id)) {
            return refuse("an array of structures is not read");
        }
        let code = graph.str(*code)?;
        let (kind, digits) = code.split_at_checked(1).ok_or_else(unreadable)?;
        let size: usize = digits.parse().map_err(|_error| unreadable())?;
        let unit = || {
            let metadata = graph.tuple(*state.get(8).ok_or_else(unreadable)?)?;
            let [_, unit] = *metadata else { return Err(unreadable()) };
            let [name, count, ..] = *graph.tuple(unit)? else { return Err(unreadable()) };
            Unit::named(graph.bytes(name)?, graph.int(count)?)
        };
        let kind = match (kind, size) {
            ("b", 1) => Kind::Bool,
            ("i", 1 | 2 | 4 | 8) => Kind::Int,
            ("u", 1 | 2 | 4 | 8) => Kind::Uint,
            ("f", 2 | 4 | 8) => Kind::Float,
            // Without a size, the bytes of an array would not bound how many it has.
            ("U", 1..) => Kind::Text,
            ("S", 1..) => Kind::Bytes,
            ("M", 8) => Kind::Time(unit()?),
            ("m", 8) => Kind::Span(unit()?),
            ("O", _) => Kind::Object,
            _ => return refuse("an array of complex or other elements is not read"),
        };
        let size = if matches!(kind, Kind::Text) { size.checked_mul(4) } else { Some(size) };
        Ok(Self { kind, size: size.ok_or_else(unreadable)?, big_endian: graph.str(order)? == ">" })
    }

    /// An element that is packed into these bytes.
    fn element<'g>(&self, packed: &'g [u8], utc: bool) -> Result<Cell<'g>> {
        let bits = || {
            let mut wide = [0; 8];
            for (to, from) in wide.iter_mut().zip(packed) {
                *to = *from;
            }
            if self.big_endian
                && let Some(used) = wide.get_mut(..packed.len())
            {
                used.reverse();
            }
            u64::from_le_bytes(wide)
        };
        let unused = 64 - 8 * self.size.min(8) as u32;
        let signed = || bits().unbounded_shl(unused).cast_signed().unbounded_shr(unused);
        let or_null =
            |text: Option<String>, cell: fn(String) -> Cell<'g>| text.map_or(Cell::Null, cell);
        Ok(match self.kind {
            Kind::Bool => Cell::Bool(bits() != 0),
            Kind::Int => Cell::Int(signed()),
            Kind::Uint => Cell::Uint(bits()),
            Kind::Float => Cell::Float(match self.size {
                2 => half(bits() as u16),
                4 => f32::from_bits(bits() as u32).into(),
                _ => f64::from_bits(bits()),
            }),
            Kind::Text => Cell::Text(self.text(packed)?),
            Kind::Bytes => {
                let end = packed.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                Cell::Bytes(packed.get(..end).unwrap_or_default())
            }
            Kind::Time(unit) => or_null(since_1970(signed(), unit, utc)?, Cell::Text),
            Kind::Span(unit) => or_null(seconds(signed(), unit)?, Cell::Number),
            Kind::Object => return refuse("an object is packed in an array"),
        })
    }

    /// UCS-4, filled up with zeros.
    fn text(&self, packed: &[u8]) -> Result<String> {
        let (units, _) = packed.as_chunks::<4>();
        let read = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let end = units.iter().rposition(|unit| *unit != [0; 4]).map_or(0, |last| last + 1);
        let chars = units.iter().take(end).map(|unit| char::from_u32(read(*unit)));
        let text: Option<String> = chars.collect();
        text.ok_or_else(|| Refusal("a str of numpy holds a lone surrogate".into()))
    }
}

/// A 16-bit float.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (fraction + 1024.0) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { size } else { -size }
}

/// Elements from one to the next in each dimension, and how many there are.
fn layout(shape: &[usize], fortran: bool) -> Result<(Vec<usize>, usize)> {
    let mut strides = vec![0; shape.len()];
    let mut count = 1_usize;
    for at in 0..shape.len() {
        let axis = if fortran { at } else { shape.len() - 1 - at };
        if let (Some(stride), Some(len)) = (strides.get_mut(axis), shape.get(axis)) {
            *stride = count;
            // An empty array has no elements, whatever its other dimensions are.
            count = if shape.contains(&0) { 0 } else { count.saturating_mul(*len) };
        }
    }
    if count == usize::MAX { refuse("an array is too large") } else { Ok((strides, count)) }
}

impl<'g> Array<'g> {
    /// Whether an object is an array.
    pub(crate) fn is_made_by(object: &Object) -> bool {
        matches!(object.class, Class::ReconstructArray | Class::FromBuffer)
    }

    pub(crate) fn read(graph: &'g Graph<'_>, id: Id) -> Result<Self> {
        let unreadable = || Refusal("an array of numpy has data that is not read".into());
        let object = graph.object(id).filter(|object| Self::is_made_by(object));
        let object = object.ok_or_else(unreadable)?;
        let args = graph.args(object)?;
        // Dimensions, the dtype, whether in Fortran's order, the elements, the order of dimensions.
        let (shape, dtype, fortran, data, axes) = if object.class == Class::FromBuffer {
            let [data, dtype, shape, order, ..] = *args else { return Err(unreadable()) };
            let axes = args.get(4).filter(|axes| !graph.is_none(**axes));
            let (fortran, axes) = match (graph.str(order)?, axes) {
                ("C", None) => (false, None),
                ("F", None) => (true, None),
                ("K", Some(axes)) => (false, Some(*axes)),
                _ => return Err(unreadable()),
            };
            (shape, dtype, fortran, data, axes)
        } else {
            if args.first().and_then(|class| graph.class(*class)) != Some(Class::NdArray) {
                return Err(unreadable());
            }
            let state = graph.tuple(object.state()?)?;
            let [_, shape, dtype, fortran, data] = *state else { return Err(unreadable()) };
            let Node::Bool(fortran) = graph.node(fortran) else { return Err(unreadable()) };
            (shape, dtype, *fortran, data, None)
        };
        let shape = graph.tuple(shape)?;
        if shape.len() > MAX_DIMENSIONS {
            return Err(unreadable());
        }
        let shape: Vec<_> = shape.iter().map(|len| graph.size(*len)).collect::<Result<_>>()?;
        let dtype = Dtype::read(graph, dtype)?;
        // Objects are listed in the order of C, wherever they were in memory.
        let fortran = fortran && !matches!(dtype.kind, Kind::Object);
        let (strides, count) = layout(&shape, fortran)?;
        let data = match (dtype.kind, graph.node(data)) {
            (Kind::Object, Node::List(objects)) if objects.len() == count => Data::Objects(objects),
            (Kind::Object, _) => return Err(unreadable()),
            (_, Node::Bytes(packed)) if count.checked_mul(dtype.size) == Some(packed.len()) => {
                Data::Packed(packed)
            }
            _ => return refuse("an array has not as many bytes as its elements take"),
        };
        let array = Self { dtype, shape, strides, data };
        match axes {
            Some(axes) => array.transposed(graph, axes),
            None => Ok(array),
        }
    }

    fn transposed(self, graph: &Graph<'_>, axes: Id) -> Result<Self> {
        let axes = graph.items(axes)?;
        let mut axes: Vec<_> = axes.iter().map(|axis| graph.size(*axis)).collect::<Result<_>>()?;
        let pick =
            |from: &[usize]| axes.iter().map_while(|axis| from.get(*axis).copied()).collect();
        let (shape, strides) = (pick(&self.shape), pick(&self.strides));
        axes.sort_unstable();
        if !axes.into_iter().eq(0..self.shape.len()) {
            return refuse("the dimensions of an array are out of order");
        }
        Ok(Self { shape, strides, ..self })
    }

    /// The element at a place, counted in elements.
    pub(crate) fn element(&self, at: usize, utc: bool) -> Result<Cell<'g>> {
        let missing = || Refusal("an array is shorter than it says".into());
        match self.data {
            Data::Objects(objects) => {
                objects.get(at).map(|id| Cell::Value(*id)).ok_or_else(missing)
            }
            Data::Packed(packed) => {
                let size = self.dtype.size;
                let start = at.checked_mul(size).ok_or_else(missing)?;
                let end = start.checked_add(size).ok_or_else(missing)?;
                self.dtype.element(packed.get(start..end).ok_or_else(missing)?, utc)
            }
        }
    }
}

impl<'g> Line<'g> {
    /// All of an array of one dimension.
    pub(crate) fn whole(array: Array<'g>) -> Result<Self> {
        let ([len], [stride]) = (&array.shape[..], &array.strides[..]) else {
            return refuse("an array has not one dimension");
        };
        let (len, stride) = (*len, *stride);
        Ok(Self { array: Rc::new(array), start: 0, stride, len, utc: false })
    }

    pub(crate) fn cell(&self, at: usize) -> Result<Cell<'g>> {
        self.array.element(self.start + at * self.stride, self.utc)
    }

    /// An element that is a whole number.
    pub(crate) fn int(&self, at: usize) -> Result<i64> {
        match self.cell(at)? {
            Cell::Int(int) => Ok(int),
            Cell::Uint(int) => {
                i64::try_from(int).or_else(|_error| refuse("a position is too large"))
            }
            _ => refuse("positions are not whole numbers"),
        }
    }
}

/// A scalar of numpy.
pub(crate) fn scalar<'g>(graph: &'g Graph<'_>, object: &Object) -> Result<Cell<'g>> {
    let [dtype, packed] = *graph.args(object)? else {
        return refuse("a scalar of numpy has data that is not read");
    };
    let (dtype, packed) = (Dtype::read(graph, dtype)?, graph.bytes(packed)?);
    if packed.len() != dtype.size {
        return refuse("a scalar has not as many bytes as its dtype takes");
    }
    dtype.element(packed, false)
}
