//! Checking, and mending, the dictionaries that entries need.

use cache_core::{Dictionary, DictionaryId, ProblemKind};
use rusqlite::Connection;

use crate::{SqliteOptions, batch::Batch, dictionaries};

/// What is wrong with those in the file, before it is mended.
pub(super) fn look(
    connection: &Connection,
    options: &SqliteOptions,
) -> rusqlite::Result<Vec<(ProblemKind, String)>> {
    Ok(Wrong::find(connection, options)?.complaints())
}

/// The same, mended: what this process knows is stored anew, the rest removed. Entries that need
/// one that is gone cannot be read, which the look at them finds.
pub(super) fn mend(batch: &mut Batch<'_>) -> rusqlite::Result<Vec<(ProblemKind, String)>> {
    let wrong = Wrong::find(batch.connection, batch.options)?;
    for id in &wrong.damaged {
        batch.connection.execute("DELETE FROM dictionaries WHERE id = ?1", [id])?;
    }
    let known = |id: &i64| known(batch.options, DictionaryId(u32::try_from(*id).ok()?));
    let again: Vec<_> =
        wrong.damaged.iter().filter_map(known).chain(wrong.missing.clone()).collect();
    again.iter().try_for_each(|dictionary| dictionaries::keep(batch, dictionary))?;
    Ok(wrong.complaints())
}

struct Wrong {
    damaged: Vec<i64>,
    /// That entries refer to, and this process knows.
    missing: Vec<Dictionary>,
}

impl Wrong {
    fn find(connection: &Connection, options: &SqliteOptions) -> rusqlite::Result<Self> {
        let damaged = dictionaries::damaged(connection)?;
        let mut statement = connection.prepare(
            "SELECT DISTINCT dictionary FROM entries
             WHERE dictionary <> 0 AND dictionary NOT IN (SELECT id FROM dictionaries)",
        )?;
        // What is no number of a dictionary is an entry's problem.
        let ids = statement.query_map([], |row| Ok(row.get::<_, u32>(0).ok()))?;
        let ids = ids.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten();
        let missing = ids.filter_map(|id| known(options, DictionaryId(id))).collect();
        Ok(Self { damaged, missing })
    }

    fn complaints(&self) -> Vec<(ProblemKind, String)> {
        let damaged = self.damaged.iter().map(|id| format!("dictionary {id:08x} is damaged"));
        let missing = self.missing.iter().map(|one| format!("dictionary {} is missing", one.id));
        damaged.chain(missing).map(|why| (ProblemKind::Dictionaries, why)).collect()
    }
}

fn known(options: &SqliteOptions, id: DictionaryId) -> Option<Dictionary> {
    options.compression.as_deref()?.dictionary(id)
}
