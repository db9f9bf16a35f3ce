//! Why a file of markets was refused.

use std::io;

use crate::names::Printable;

/// A file of markets that cannot be read, and where.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
#[non_exhaustive]
pub struct MarketsError {
    /// Line of the problem, from 1.
    pub line: u64,
    /// What is wrong there.
    pub problem: MarketsProblem,
}

/// What is wrong with a file of markets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MarketsProblem {
    /// Reading failed.
    #[error("the file could not be read: {0}")]
    Io(io::Error),
    /// Larger than any list of markets.
    #[error("the file is larger than 16 MiB")]
    TooLarge,
    /// The first line names no `market` column.
    #[error(
        "the first line must be a header with the column `market`, but is `{}`; \
         put `market` above the names, and quote names that hold commas: \"Boulder, CO\"",
        Printable(.found)
    )]
    NoMarketColumn {
        /// The first line.
        found: String,
    },
    /// A column cannot be named in a URL template.
    #[error("column name `{}` is not made of letters, digits, `_` and `-`", Printable(.column))]
    ColumnName {
        /// The column's name.
        column: String,
    },
    /// Two columns have one name.
    #[error("the header names column `{}` twice", Printable(.column))]
    ColumnTwice {
        /// The column's name.
        column: String,
    },
    /// A row is shorter or longer than the header.
    #[error(
        "{found} fields under a header of {expected}; \
         quote names that hold commas: \"Boulder, CO\""
    )]
    FieldCount {
        /// Columns in the header.
        expected: usize,
        /// Fields in the row.
        found: usize,
    },
    /// A name was cut at its comma, and the rest fell into the next column.
    #[error("quote names that hold commas: \"{}\"", Printable(.name))]
    Unquoted {
        /// The name as it was meant.
        name: String,
    },
    /// A row has one of two coordinates.
    #[error("the row has no `{lacks}`; give both `lat` and `lon`, or neither")]
    HalfCoordinates {
        /// The column that is empty or missing.
        lacks: &'static str,
    },
    /// What should be coordinates is none.
    #[error(
        "`{}` and `{}` are no coordinates; write degrees north in `lat` (-90 to 90) and degrees \
         east in `lon` (-180 to 180)",
        Printable(.lat),
        Printable(.lon)
    )]
    NoCoordinates {
        /// What stands in `lat`.
        lat: String,
        /// What stands in `lon`.
        lon: String,
    },
    /// A name runs over several lines.
    #[error("the name does not end on its line; is a closing quote missing?")]
    OpenQuote,
    /// The text is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
}

impl MarketsProblem {
    pub(crate) fn on(self, line: u64) -> MarketsError {
        MarketsError { line, problem: self }
    }
}
