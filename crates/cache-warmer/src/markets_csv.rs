//! Reads files of markets: CSV with a `market` column, and further columns for URL templates.

mod error;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use crate::{
    gazetteer::{Gazetteer, UnknownMarket},
    market::Market,
};

pub use self::error::{MarketsError, MarketsProblem};

/// Larger files hold no list of markets: the whole gazetteer has under 64 KiB.
const MAX_BYTES: u64 = 16 << 20;

/// Unknown markets past this many come without the names like them: nobody reads so many, and a
/// large file of something else would be compared for minutes.
const MAX_ADVISED: usize = 100;

/// The name of the one column a file must have.
const MARKET: &str = "market";

/// What a file of markets holds.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct MarketList {
    /// The markets, in the file's order.
    pub rows: Vec<MarketRow>,
    /// What is no market, with its line.
    pub unknown: Vec<(u64, UnknownMarket)>,
    /// How many rows said again what an earlier row said: the same market and the same parameters.
    pub duplicates: usize,
}

/// One row of a file of markets.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MarketRow {
    /// Line the row starts on, from 1.
    pub line: u64,
    /// The market it names.
    pub market: Market,
    /// Its other columns; empty cells are left out.
    pub extra: BTreeMap<String, String>,
}

impl MarketRow {
    /// The row of a market that no file names.
    pub fn of(market: &Market) -> Self {
        Self { line: 0, market: market.clone(), extra: BTreeMap::new() }
    }

    /// The parameters of the market, overridden and extended by the row's columns.
    pub fn params(&self) -> BTreeMap<String, String> {
        let mut params = self.market.params();
        params.extend(self.extra.clone());
        params
    }
}

/// Reads a file of markets.
///
/// Markets may be named in any way [`Gazetteer::resolve`] knows, mixed. A byte order mark, blank
/// lines and both kinds of line ends are accepted. Markets that are not known do not end the
/// reading: they are collected, so that all of them can be shown at once.
pub fn read_markets(reader: impl Read, gazetteer: &Gazetteer) -> Result<MarketList, MarketsError> {
    let text = read_text(reader)?;
    let mut list = MarketList::default();
    let mut header: Option<Header> = None;
    let mut rows = Rows::new(&text);
    while let Some((line, fields)) = rows.next()? {
        let Some(header) = &header else {
            header = Some(Header::new(&fields).map_err(|problem| problem.on(line))?);
            continue;
        };
        let (name, extra) = header.split(&fields, gazetteer).map_err(|problem| problem.on(line))?;
        if let Some(market) = gazetteer.find(name) {
            list.rows.push(MarketRow { line, market: market.clone(), extra });
        } else if list.unknown.len() < MAX_ADVISED {
            list.unknown.extend(gazetteer.resolve(name).err().map(|unknown| (line, unknown)));
        } else {
            let unknown = UnknownMarket { given: name.to_owned(), nearest: Vec::new() };
            list.unknown.push((line, unknown));
        }
    }
    if header.is_none() {
        return Err(MarketsProblem::NoMarketColumn { found: String::new() }.on(1));
    }
    list.drop_duplicates();
    Ok(list)
}

impl MarketList {
    fn drop_duplicates(&mut self) {
        let before = self.rows.len();
        let mut seen = BTreeSet::new();
        self.rows.retain(|row| seen.insert((row.market.cbsa(), row.extra.clone())));
        self.duplicates = before - self.rows.len();
    }
}

/// The whole text, without its byte order mark.
fn read_text(reader: impl Read) -> Result<String, MarketsError> {
    let mut bytes = Vec::new();
    let read = reader.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|err| MarketsProblem::Io(err).on(line_at(&bytes)))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(MarketsProblem::TooLarge.on(1));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(err) => {
            let sound = err.as_bytes().get(..err.utf8_error().valid_up_to());
            Err(MarketsProblem::NotUtf8.on(line_at(sound.unwrap_or_default())))
        }
    }
}

/// Line, from 1, of what follows `bytes`.
fn line_at(bytes: &[u8]) -> u64 {
    bytes.split(|&b| b == b'\n').count() as u64
}

/// The rows that are not blank, with their lines.
struct Rows<'t> {
    text: &'t str,
    reader: csv::Reader<&'t [u8]>,
    /// A place in the text, and the line it is on.
    counted: (usize, u64),
}

impl<'t> Rows<'t> {
    fn new(text: &'t str) -> Self {
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        Self { text, reader, counted: (0, 1) }
    }

    fn next(&mut self) -> Result<Option<(u64, Vec<String>)>, MarketsError> {
        let mut record = csv::StringRecord::new();
        loop {
            let more = self.reader.read_record(&mut record);
            let line = self.line_of(&record);
            if !more.map_err(|err| MarketsProblem::Io(err.into()).on(line))? {
                return Ok(None);
            }
            let fields: Vec<String> = record.iter().map(|field| field.trim().to_owned()).collect();
            if fields.iter().any(|field| !field.is_empty()) {
                return Ok(Some((line, fields)));
            }
        }
    }

    /// The line on which `record` starts.
    fn line_of(&mut self, record: &csv::StringRecord) -> u64 {
        let (from, line) = self.counted;
        let Some(start) = record.position().and_then(|at| usize::try_from(at.byte()).ok()) else {
            return line;
        };
        // The reader's own position is before the blank lines that it skips.
        let rest = self.text.get(start..).unwrap_or_default();
        let start = start + (rest.len() - rest.trim_start_matches(['\r', '\n']).len());
        let passed = self.text.as_bytes().get(from..start).unwrap_or_default();
        self.counted = (start, line + line_at(passed) - 1);
        self.counted.1
    }
}

/// The columns of a file.
struct Header {
    /// Which of the columns is `market`.
    market: usize,
    columns: Vec<String>,
}

impl Header {
    fn new(fields: &[String]) -> Result<Self, MarketsProblem> {
        let market = fields
            .iter()
            .position(|column| column.eq_ignore_ascii_case(MARKET))
            .ok_or_else(|| MarketsProblem::NoMarketColumn { found: fields.join(",") })?;
        for (place, column) in fields.iter().enumerate() {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            if column.is_empty() || !column.bytes().all(plain) {
                return Err(MarketsProblem::ColumnName { column: column.clone() });
            }
            if fields.iter().take(place).any(|earlier| earlier.eq_ignore_ascii_case(column)) {
                return Err(MarketsProblem::ColumnTwice { column: column.clone() });
            }
        }
        Ok(Self { market, columns: fields.to_vec() })
    }

    /// A row's market and its other columns.
    fn split<'f>(
        &self,
        fields: &'f [String],
        gazetteer: &Gazetteer,
    ) -> Result<(&'f str, BTreeMap<String, String>), MarketsProblem> {
        let name = fields.get(self.market).map_or("", String::as_str);
        if name.contains(['\r', '\n']) {
            return Err(MarketsProblem::OpenQuote);
        }
        if fields.len() != self.columns.len() {
            let (expected, found) = (self.columns.len(), fields.len());
            return Err(MarketsProblem::FieldCount { expected, found });
        }
        // With a second column the count is right when `Boulder, CO` lacks both quotes and value.
        if let Some(next) = fields.get(self.market + 1)
            && gazetteer.find(name).is_none()
        {
            let name = format!("{name}, {next}");
            if gazetteer.find(&name).is_some() {
                return Err(MarketsProblem::Unquoted { name });
            }
        }
        let others = self.columns.iter().zip(fields).enumerate();
        let extra = others
            .filter(|(place, (_, value))| *place != self.market && !value.is_empty())
            .map(|(_, (column, value))| (column.clone(), value.clone()))
            .collect();
        Ok((name, extra))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn read(text: impl AsRef<[u8]>) -> Result<MarketList, MarketsError> {
        read_markets(text.as_ref(), Gazetteer::us())
    }

    fn codes(list: &MarketList) -> Vec<(u64, u32)> {
        list.rows.iter().map(|row| (row.line, row.market.cbsa())).collect()
    }

    fn refusal(text: impl AsRef<[u8]>) -> String {
        read(text).expect_err("the file is wrong").to_string()
    }

    #[test]
    fn names_slugs_and_codes_mix() {
        let list = read("market\n\"Boulder, CO\"\ndenver-co\n22660\nGreeley CO\n").unwrap();
        assert_eq!(codes(&list), [(2, 14_500), (3, 19_740), (4, 22_660), (5, 24_540)]);
        assert!(list.unknown.is_empty());
        assert_eq!(list.duplicates, 0);
    }

    #[test]
    fn other_columns_override_and_extend_the_parameters() {
        let list = read("year,Market,name\n2022,14500,Boulder County\n,19740,\n").unwrap();
        let params: Vec<_> = list.rows.iter().map(MarketRow::params).collect();
        assert_eq!(params[0]["year"], "2022");
        assert_eq!(params[0]["name"], "Boulder County");
        assert_eq!(params[0]["slug"], "boulder-co");
        assert_eq!(params[1].get("year"), None, "an empty cell gives no parameter");
        assert_eq!(params[1]["name"], "Denver, CO", "nor does it take one away");
    }

    #[test]
    fn marks_line_ends_and_blank_lines_are_tolerated() {
        let text = "\u{feff}\r\nmarket,year\r\n\r\n  \r\n14500,1\r\n,\r\n\r\n19740,2";
        assert_eq!(codes(&read(text).unwrap()), [(5, 14_500), (8, 19_740)]);
    }

    #[test]
    fn lines_are_counted_over_fields_that_span_them() {
        let text = "market,note\n14500,\"a\nb\"\n\n\nnowhere,c\n";
        let list = read(text).unwrap();
        assert_eq!(list.rows[0].extra["note"], "a\nb");
        assert_eq!(list.unknown[0].0, 6);
    }

    #[test]
    fn unknown_markets_are_collected() {
        let list = read("market\n\"Bolder, CO\"\n14500\n99999\n").unwrap();
        assert_eq!(codes(&list), [(3, 14_500)]);
        let unknown: Vec<_> =
            list.unknown.iter().map(|(line, err)| (*line, err.given.as_str())).collect();
        assert_eq!(unknown, [(2, "Bolder, CO"), (4, "99999")]);
    }

    #[test]
    fn unknown_markets_without_end_come_without_advice() {
        let list = read(format!("market\n{}", "nowhere\n".repeat(150))).unwrap();
        let advised = list.unknown.iter().filter(|(_, err)| !err.nearest.is_empty()).count();
        assert_eq!((list.unknown.len(), advised), (150, 100));
    }

    #[test]
    fn only_true_duplicates_are_skipped() {
        let list = read("market,year\n14500,1\nboulder-co,1\n14500,2\n\"Boulder, CO\",1\n");
        let list = list.unwrap();
        assert_eq!(codes(&list), [(2, 14_500), (4, 14_500)]);
        assert_eq!(list.duplicates, 2);
    }

    #[test]
    fn a_file_without_the_header_is_told_which_it_needs() {
        for text in ["boulder-co\ndenver-co\n", "Boulder, CO\n", "name,year\nx,1\n", "", "\n\n"] {
            let refusal = refusal(text);
            assert!(refusal.contains("a header with the column `market`"), "{refusal}");
        }
        assert!(refusal("\nboulder-co\n").starts_with("line 2: "), "{}", refusal("\nboulder-co\n"));
    }

    #[test]
    fn an_unquoted_name_is_recognised_with_its_line() {
        let quote = "quote names that hold commas: \"Boulder, CO\"";
        for text in [
            "market\n14500\nBoulder, CO\n",
            "market,year\n14500,1\nBoulder, CO,2\n",
            "market,year\n14500,1\nBoulder, CO\n",
            "market\n14500\n \"Boulder, CO\"\n",
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with("line 3: ") && refusal.contains(quote), "{refusal}");
        }
    }

    #[test]
    fn an_open_quote_is_recognised_with_its_line() {
        assert!(refusal("market\n14500\n\"Boulder, CO\n19740\n").starts_with("line 3: the name"));
    }

    #[test]
    fn bad_headers_are_refused() {
        assert!(refusal("market,\n").contains("column name ``"));
        assert!(refusal("market,a b\n").contains("column name `a b`"));
        assert!(refusal("market,x,X\n").contains("`X` twice"));
        assert!(refusal("market,\u{1b}[31m\n").contains("\\u{1b}[31m"));
    }

    #[test]
    fn invalid_utf8_is_refused_with_its_line() {
        assert_eq!(refusal(b"market\n14500\nCa\xf1on\n"), "line 3: the text is not UTF-8");
    }

    #[test]
    fn files_without_end_are_refused() {
        assert!(read_markets(io::repeat(b'x'), Gazetteer::us()).is_err());
    }
}
