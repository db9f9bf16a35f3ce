//! The schema, and whether a file has it as it was written.

use std::sync::OnceLock;

use rusqlite::Connection;

pub(crate) const SCHEMA: &str = include_str!("schema.sql");

/// Names and definitions of all that the schema makes, in their order.
type Parts = Vec<(String, String)>;

/// The first part of the schema that the file does not have word for word, if there is one: with a
/// bit flipped in a column's name, SQLite knows no such column, and finds nothing wrong with that.
pub(crate) fn damaged_part(connection: &Connection) -> rusqlite::Result<Option<String>> {
    static EXPECTED: OnceLock<Parts> = OnceLock::new();
    let expected = if let Some(expected) = EXPECTED.get() {
        expected
    } else {
        let model = Connection::open_in_memory()?;
        model.execute_batch(SCHEMA)?;
        let parts = parts(&model)?;
        EXPECTED.get_or_init(|| parts)
    };
    let found = parts(connection)?;
    // What SQLite or a person has added does no harm.
    Ok(expected.iter().find(|part| found.binary_search(part).is_err()).map(|part| part.0.clone()))
}

fn parts(connection: &Connection) -> rusqlite::Result<Parts> {
    let mut statement =
        connection.prepare("SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema")?;
    let parts = statement.query_map([], |row| Ok((text(row, 0)?, text(row, 1)?)))?;
    let mut parts: Parts = parts.collect::<Result<_, _>>()?;
    parts.sort_unstable();
    Ok(parts)
}

/// A text of which nothing is expected.
fn text(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<String> {
    let bytes = row.get_ref(column)?.as_bytes_or_null()?;
    Ok(String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned())
}
