//! Larder's reader of the cache files that its Python predecessor made.
//!
//! Such a file is a SQLite database with one table, `cache(key, value, created_at, expires_at)`,
//! whose values are Python pickles. [`PythonCache`] reads its rows and never writes it. [`decode`]
//! turns a value into JSON, or says why it cannot. [`Row::outline`] and [`Outline::with_value`] make
//! entries of rows.
//!
//! # Pickles
//!
//! A pickle is a program; in Python, it runs. Here it only describes values: classes are names in
//! a list, and nothing is imported, called or looked up. Protocols 0 to 5 are read.
//!
//! | Python | JSON |
//! |---|---|
//! | `None` | `null` |
//! | `bool` | `true`, `false` |
//! | `int` | number, with all its digits (up to 4,300, as many as Python prints) |
//! | `float` | number as `repr` writes it; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `str` | string |
//! | `bytes`, `bytearray` | `{"base64": "…"}` |
//! | `list`, `tuple` | array |
//! | `set`, `frozenset` | array: first numbers by size, then others by their JSON text |
//! | `dict`, `OrderedDict`, `defaultdict`, `Counter` | object; see below |
//! | `datetime`, `date`, `time` | string, as `isoformat()` writes it |
//! | `timedelta`, numpy `timedelta64`, pandas `Timedelta` | number of seconds, exact |
//! | `Decimal` | string |
//! | numpy scalar | as the same value of Python |
//! | numpy `datetime64`, pandas `Timestamp` | string; a date if the unit is days or longer |
//! | numpy array | array, nested by its shape |
//! | pandas `DataFrame` | `{"columns": [...], "index": [...], "data": [[...], ...]}` |
//! | pandas `Series` | `{"name": ..., "index": [...], "data": [...]}` |
//! | pandas `Index` | array of its labels |
//! | pandas `NA`, `NaT` | `null` |
//!
//! - A key of a dict that is no string is the JSON text of the value it would be: `1`, `1.5`,
//!   `true` and `null`, as `json.dumps` writes them, a date as its ISO text, `["a",1]` for a tuple.
//!   If two keys are the same text, the pickle is opaque.
//! - In a frame, a series or an index, what is missing or not finite is `null`, as in pandas'
//!   `to_json`; columns may be of numbers, booleans, text, times, spans of time, objects, nullable
//!   and categorical. Labels of a `MultiIndex` are arrays. Times with a zone are in UTC. `attrs`,
//!   names of indexes and frequencies are left out.
//! - Floats of 16 and 32 bits are written as the 64-bit floats they are equal to.
//!
//! Any other class (arrays of complex numbers and structures, periods, intervals, sparse and Arrow
//! columns, time zones known by name only), a lone surrogate, a value that contains itself, and
//! anything beyond the [`Limits`] makes a pickle [`Decoded::Opaque`].
//!
//! # Bounds
//!
//! Reading takes memory and time in proportion to the pickle's length, at most
//! [`Limits::max_nodes`] values of it; no length in it is believed before as many bytes have been
//! seen. Writing stops at [`Limits::max_json_bytes`], and after [`Limits::max_nodes`] values. There
//! is no recursion.

mod array;
mod class;
mod connect;
mod convert;
mod entry;
mod error;
mod file;
mod frame;
mod graph;
mod input;
mod iso;
mod json;
mod machine;
mod report;
mod times;

pub use crate::{
    entry::{Imported, Outline, Unfit},
    error::Error,
    file::{PythonCache, Row, UnreadableKey},
    report::ImportReport,
};

/// The content type of a pickle that is kept as it is.
pub const PICKLE_CONTENT_TYPE: &str = "application/python-pickle";

/// What a pickle may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the JSON text.
    pub max_json_bytes: usize,
    /// Most values in a pickle, and most that are written, repeated ones each time.
    pub max_nodes: usize,
    /// How deep JSON arrays and objects may lie in each other.
    pub max_depth: usize,
}

impl Default for Limits {
    /// 64 MiB, two million values, 128 deep.
    fn default() -> Self {
        Self { max_json_bytes: 64 << 20, max_nodes: 2_000_000, max_depth: 128 }
    }
}

/// What a pickle became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// JSON text, without blanks.
    Json(Vec<u8>),
    /// Its value is not known; it is to be kept as it is, as [`PICKLE_CONTENT_TYPE`].
    Opaque {
        /// Why. A clause that can follow the name of a row and "is kept as a pickle: ".
        reason: String,
    },
}

/// Reads a pickle, running nothing of it.
///
/// ```
/// use python_cache::{Decoded, Limits, decode};
///
/// // pickle.dumps({"rain": 0.5}, 4)
/// let pickle = b"\x80\x04\x95\x14\0\0\0\0\0\0\0}\x94\x8c\x04rain\x94G?\xe0\0\0\0\0\0\0s.";
/// assert_eq!(decode(pickle, &Limits::default()), Decoded::Json(b"{\"rain\":0.5}".into()));
///
/// // class X: __reduce__ = lambda self: (os.system, ("true",))
/// let hostile = b"cposix\nsystem\n(Vtrue\ntR.";
/// let reason = "class `posix.system` is not one that is read".to_owned();
/// assert_eq!(decode(hostile, &Limits::default()), Decoded::Opaque { reason });
/// ```
pub fn decode(pickle: &[u8], limits: &Limits) -> Decoded {
    let json = machine::load(pickle, limits).and_then(|graph| convert::convert(&graph, limits));
    match json {
        Ok(json) => Decoded::Json(json),
        Err(graph::Refusal(reason)) => Decoded::Opaque { reason },
    }
}
