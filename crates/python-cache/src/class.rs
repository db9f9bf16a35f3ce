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
        Some(match (module, name) {
            (_, "DataFrame") if public => Self::DataFrame,
            (_, "Series") if public => Self::Series,
            (_, "Index" | "Int64Index" | "UInt64Index" | "Float64Index" | "NumericIndex")
            | (_, "DatetimeIndex" | "TimedeltaIndex" | "CategoricalIndex")
                if public =>
            {
                Self::Index
            }
            (_, "RangeIndex") if public => Self::RangeIndex,
            (_, "MultiIndex") if public => Self::MultiIndex,
            (_, "DatetimeArray" | "TimedeltaArray" | "StringArray" | "PandasArray")
            | (_, "NumpyExtensionArray" | "StringArrayNumpySemantics")
                if public =>
            {
                Self::BackedArray
            }
            (_, "Categorical") if public => Self::Categorical,
            (_, "CategoricalDtype") if public => Self::CategoricalDtype,
            (_, "DatetimeTZDtype") if public => Self::DatetimeTzDtype,
            (_, "IntegerArray" | "FloatingArray" | "BooleanArray") if public => Self::MaskedArray,
            (_, "BooleanDtype" | "Float32Dtype" | "Float64Dtype" | "Int8Dtype" | "Int16Dtype")
            | (_, "Int32Dtype" | "Int64Dtype" | "UInt8Dtype" | "UInt16Dtype" | "UInt32Dtype")
            | (_, "UInt64Dtype")
                if public =>
            {
                Self::MaskedDtype
            }
            (_, "StringDtype") if public => Self::StringDtype,
            ("pandas.core.internals.managers", "BlockManager" | "SingleBlockManager") => {
                Self::BlockManager
            }
            ("pandas._libs.internals", "_unpickle_block") => Self::UnpickleBlock,
            ("pandas.core.indexes.base", "_new_Index") => Self::NewIndex,
            ("pandas.core.indexes.datetimes", "_new_DatetimeIndex")
            | ("pandas.core.indexes.timedeltas", "_new_TimedeltaIndex") => Self::NewIndex,
            ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked") => Self::UnpickleArray,
            ("pandas._libs.tslibs.timestamps", "_unpickle_timestamp") => Self::Timestamp,
            ("pandas._libs.tslibs.timedeltas", "_timedelta_unpickle") => Self::Timedelta,
            ("pandas._libs.tslibs.nattype", "_nat_unpickle" | "__nat_unpickle") => Self::NotATime,
            ("pandas" | "pandas._libs.missing", "NA") => Self::NotAvailable,
            ("pandas._libs.tslibs.offsets", "Day" | "Hour" | "Minute" | "Second" | "Milli")
            | ("pandas._libs.tslibs.offsets", "Micro" | "Nano" | "Week" | "BusinessDay")
            | ("pandas._libs.tslibs.offsets", "MonthBegin" | "MonthEnd" | "QuarterBegin")
            | ("pandas._libs.tslibs.offsets", "QuarterEnd" | "YearBegin" | "YearEnd") => {
                Self::Frequency
            }
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
