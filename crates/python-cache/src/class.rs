//! The classes whose pickles are understood. Any other makes a pickle opaque.

use std::fmt;

/// A class or function that a pickle may name. It is never run: what it would have made is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    // builtins and their pickling
    Set,
    Bytes,
    Slice,
    Object,
    /// A builtin type that makes no value here, such as the one a `defaultdict` starts with.
    Type,
    Encode,
    Reconstructor,
    // datetime, decimal, collections
    DateTime,
    Date,
    Time,
    TimeDelta,
    TimeZone,
    Utc,
    /// A time zone in minutes.
    FixedOffset,
    /// A time zone known by its name only.
    NamedZone,
    Decimal,
    OrderedDict,
    DefaultDict,
    Counter,
    // numpy
    Dtype,
    NdArray,
    ReconstructArray,
    FromBuffer,
    Scalar,
    // pandas
    DataFrame,
    Series,
    BlockManager,
    UnpickleBlock,
    NewIndex,
    Index,
    RangeIndex,
    MultiIndex,
    UnpickleArray,
    /// An array that is a numpy array with a dtype of pandas.
    BackedArray,
    Categorical,
    CategoricalDtype,
    DatetimeTzDtype,
    MaskedArray,
    MaskedDtype,
    StringDtype,
    Timestamp,
    Timedelta,
    NotATime,
    NotAvailable,
    /// A frequency of times, which is not part of the value.
    Frequency,
}

/// Indexes whose labels are in an array.
const INDEXES: [&str; 8] = [
    "Index",
    "Int64Index",
    "UInt64Index",
    "Float64Index",
    "NumericIndex",
    "DatetimeIndex",
    "TimedeltaIndex",
    "CategoricalIndex",
];

const BACKED_ARRAYS: [&str; 5] =
    ["DatetimeArray", "TimedeltaArray", "StringArray", "PandasArray", "NumpyExtensionArray"];

const MASKED_DTYPES: [&str; 11] = [
    "BooleanDtype",
    "Float32Dtype",
    "Float64Dtype",
    "Int8Dtype",
    "Int16Dtype",
    "Int32Dtype",
    "Int64Dtype",
    "UInt8Dtype",
    "UInt16Dtype",
    "UInt32Dtype",
    "UInt64Dtype",
];

const FREQUENCIES: [&str; 15] = [
    "Day",
    "Hour",
    "Minute",
    "Second",
    "Milli",
    "Micro",
    "Nano",
    "Week",
    "BusinessDay",
    "MonthBegin",
    "MonthEnd",
    "QuarterBegin",
    "QuarterEnd",
    "YearBegin",
    "YearEnd",
];

impl Class {
    /// The class of a name; modules of Python 2 are written by protocols 0 to 2.
    pub(crate) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("builtins" | "__builtin__", name) => match name {
                "set" | "frozenset" => Self::Set,
                "bytes" | "bytearray" => Self::Bytes,
                "slice" => Self::Slice,
                "object" => Self::Object,
                "int" | "long" | "float" | "bool" | "str" | "unicode" | "list" | "tuple"
                | "dict" => Self::Type,
                _ => return None,
            },
            ("_codecs", "encode") => Self::Encode,
            ("copyreg" | "copy_reg", "_reconstructor") => Self::Reconstructor,
            ("datetime", "datetime") => Self::DateTime,
            ("datetime", "date") => Self::Date,
            ("datetime", "time") => Self::Time,
            ("datetime", "timedelta") => Self::TimeDelta,
            ("datetime", "timezone") => Self::TimeZone,
            ("pytz", "_UTC") | ("dateutil.tz.tz", "tzutc") => Self::Utc,
            ("pytz", "FixedOffset") => Self::FixedOffset,
            ("pytz", "_p") | ("zoneinfo", "ZoneInfo._unpickle") => Self::NamedZone,
            ("decimal", "Decimal") => Self::Decimal,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("collections", "defaultdict") => Self::DefaultDict,
            ("collections", "Counter") => Self::Counter,
            _ => return Self::numpy(module, name).or_else(|| Self::pandas(module, name)),
        })
    }

    fn numpy(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("numpy", "dtype") => Self::Dtype,
            ("numpy", "ndarray") => Self::NdArray,
            // numpy 2 has renamed its core.
            ("numpy._core.multiarray" | "numpy.core.multiarray", "_reconstruct") => {
                Self::ReconstructArray
            }
            ("numpy._core.multiarray" | "numpy.core.multiarray", "scalar") => Self::Scalar,
            ("numpy._core.numeric" | "numpy.core.numeric", "_frombuffer") => Self::FromBuffer,
            _ => return None,
        })
    }

    fn pandas(module: &str, name: &str) -> Option<Self> {
        // Since pandas 3 public classes name the module that they are imported from.
        let public = matches!(module, "pandas" | "pandas.arrays")
            || module.starts_with("pandas.core.arrays.")
            || module.starts_with("pandas.core.indexes.")
            || matches!(
                module,
                "pandas.core.frame" | "pandas.core.series" | "pandas.core.dtypes.dtypes"
            );
        if public && let Some(class) = Self::public_pandas(name) {
            return Some(class);
        }
        Some(match (module, name) {
            ("pandas.core.internals.managers", "BlockManager" | "SingleBlockManager") => {
                Self::BlockManager
            }
            ("pandas._libs.internals", "_unpickle_block") => Self::UnpickleBlock,
            ("pandas.core.indexes.base", "_new_Index")
            | ("pandas.core.indexes.datetimes", "_new_DatetimeIndex")
            | ("pandas.core.indexes.timedeltas", "_new_TimedeltaIndex") => Self::NewIndex,
            ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked") => Self::UnpickleArray,
            ("pandas._libs.tslibs.timestamps", "_unpickle_timestamp") => Self::Timestamp,
            ("pandas._libs.tslibs.timedeltas", "_timedelta_unpickle") => Self::Timedelta,
            ("pandas._libs.tslibs.nattype", "_nat_unpickle" | "__nat_unpickle") => Self::NotATime,
            ("pandas" | "pandas._libs.missing", "NA") => Self::NotAvailable,
            ("pandas._libs.tslibs.offsets", name) if FREQUENCIES.contains(&name) => Self::Frequency,
            _ => return None,
        })
    }

    /// A class that any public module of pandas may have.
    fn public_pandas(name: &str) -> Option<Self> {
        Some(match name {
            "DataFrame" => Self::DataFrame,
            "Series" => Self::Series,
            "RangeIndex" => Self::RangeIndex,
            "MultiIndex" => Self::MultiIndex,
            "Categorical" => Self::Categorical,
            "CategoricalDtype" => Self::CategoricalDtype,
            "DatetimeTZDtype" => Self::DatetimeTzDtype,
            "IntegerArray" | "FloatingArray" | "BooleanArray" => Self::MaskedArray,
            "StringDtype" => Self::StringDtype,
            name if INDEXES.contains(&name) => Self::Index,
            name if BACKED_ARRAYS.contains(&name) => Self::BackedArray,
            name if MASKED_DTYPES.contains(&name) => Self::MaskedDtype,
            _ => return None,
        })
    }

    /// Whether `BUILD` gives its objects a state that is understood.
    pub(crate) fn has_state(self) -> bool {
        matches!(
            self,
            Self::Dtype
                | Self::ReconstructArray
                | Self::DataFrame
                | Self::Series
                | Self::BlockManager
                | Self::UnpickleArray
                | Self::CategoricalDtype
                | Self::DatetimeTzDtype
                | Self::MaskedArray
                | Self::MaskedDtype
                | Self::StringDtype
                | Self::Frequency
        )
    }

    /// Whether items can be set in its objects.
    pub(crate) fn has_entries(self) -> bool {
        matches!(self, Self::OrderedDict | Self::DefaultDict | Self::Counter)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of class {self:?}")
    }
}
