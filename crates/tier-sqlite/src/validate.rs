//! Checking a file, and mending it.

mod coordination;
mod dictionaries;

use cache_core::{CodecId, DictionaryId, Op, ProblemKind, Result, Timestamp, Validation};
use rusqlite::{Connection, Row};

use crate::{
    SqliteOptions, SqliteTier,
    batch::{self, Batch, Group, Sums},
    error::tier_error,
    found, rows, stamps,
    worker::Workers,
};

/// Entries that are looked at in one read, so that others are not kept waiting.
const BATCH: i64 = 500;
/// Most complaints of SQLite's own check.
const COMPLAINTS: i64 = 100;

/// Checks the file, its entries, and what is kept about them.
pub(crate) async fn validate(tier: &SqliteTier, repair: bool) -> Result<Validation> {
    let workers = tier.workers(Op::Inspect)?;
    let before = workers.shared().files_set_aside();
    let mut found = check(tier, &workers, repair).await?;
    if workers.shared().files_set_aside() > before && found.count(ProblemKind::File) == 0 {
        found.add(ProblemKind::File, "it was so damaged that it was set aside");
        found.note_repaired(ProblemKind::File, 1);
    }
    Ok(found)
}

async fn check(tier: &SqliteTier, workers: &Workers, repair: bool) -> Result<Validation> {
    let failed = |failure| tier_error(Op::Inspect, failure);
    let mut found = Validation::default();
    let (of_rows, of_file): (Vec<String>, _) = workers
        .read(|c, _| Ok(complaints(c)?))
        .await
        .map_err(failed)?
        .into_iter()
        .partition(|complaint| is_of_a_row(complaint));
    for complaint in of_file {
        found.add(ProblemKind::File, complaint);
    }
    let unsound = found.count(ProblemKind::File);
    if repair && unsound > 0 {
        // Indexes can be made anew from their tables.
        let reindexed = workers.write(|batch| batch.connection.execute_batch("REINDEX")).await;
        let left = match reindexed {
            Ok(()) => {
                let left = workers.read(|c, _| Ok(complaints(c)?)).await.map_err(failed)?;
                left.iter().filter(|complaint| !is_of_a_row(complaint)).count() as u64
            }
            Err(_) => unsound,
        };
        if left > 0 {
            // Nothing in it can be relied on.
            workers.shared().give_up().map_err(|failure| failed(std::sync::Arc::new(failure)))?;
            found.note_repaired(ProblemKind::File, unsound);
            return Ok(found);
        }
        found.note_repaired(ProblemKind::File, unsound);
    }
    let now = tier.options.clock.now();
    // Before the entries that need them.
    let told = if repair {
        workers.write(dictionaries::mend).await
    } else {
        workers.read(|connection, options| Ok(dictionaries::look(connection, options)?)).await
    };
    for (kind, complaint) in told.map_err(failed)? {
        found.add(kind, complaint);
        found.note_repaired(kind, u64::from(repair));
    }
    let mut after = i64::MIN;
    loop {
        let batch =
            workers.read(move |connection, options| Ok(look(connection, options, after, now)?));
        let looked = batch.await.map_err(failed)?;
        found.entries += looked.entries;
        let (mut damaged, mut senseless) = (0, 0);
        let mut ids = Vec::with_capacity(looked.wrong.len());
        for (id, kind, reason) in looked.wrong {
            found.add(kind, reason);
            *(if kind == ProblemKind::Entry { &mut damaged } else { &mut senseless }) += 1;
            ids.push(id);
        }
        if repair && !ids.is_empty() {
            let removed = workers.write(move |batch| remove(batch, &ids, now)).await;
            removed.map_err(failed)?;
            found.note_repaired(ProblemKind::Entry, damaged);
            found.note_repaired(ProblemKind::Times, senseless);
        }
        match looked.last {
            Some(last) => after = last,
            None => break,
        }
    }
    // Before what is kept about entries: some may have to go.
    let told = if repair {
        workers.write(coordination::mend).await
    } else {
        workers.read(move |connection, _| Ok(coordination::look(connection, now)?)).await
    };
    for (kind, complaint) in told.map_err(failed)? {
        found.add(kind, complaint);
        found.note_repaired(kind, u64::from(repair));
    }
    // After the entries: what is kept about them may have to be made anew.
    let about = if repair {
        workers.write(|batch| kept(batch.connection, batch.now, true)).await
    } else {
        workers.read(move |connection, _| Ok(kept(connection, now, false)?)).await
    };
    for (kind, complaint) in about.map_err(failed)? {
        found.add(kind, complaint);
        found.note_repaired(kind, u64::from(repair));
    }
    // Of rows whose table was looked at row by row; what was not found there, or not mended, is the
    // file's problem.
    let left = if repair && !of_rows.is_empty() {
        workers.read(|c, _| Ok(complaints(c)?)).await.map_err(failed)?
    } else if found.is_sound() {
        of_rows
    } else {
        Vec::new()
    };
    let count = left.len() as u64;
    for complaint in left {
        found.add(ProblemKind::File, complaint);
    }
    if repair && count > 0 {
        workers.shared().give_up().map_err(|failure| failed(std::sync::Arc::new(failure)))?;
        found.note_repaired(ProblemKind::File, count);
    }
    Ok(found)
}

/// Whether SQLite complains of a value that its column may not have, in a table whose rows are looked
/// at one by one.
fn is_of_a_row(complaint: &str) -> bool {
    let tables = ["entries", "barriers", "journal", "leases", "dictionaries"];
    complaint.split_once(" value in ").is_some_and(|(_, place)| {
        place.split_once('.').is_some_and(|(table, _)| tables.contains(&table))
    })
}

fn complaints(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({COMPLAINTS})"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let lines: Vec<String> = lines.collect::<rusqlite::Result<_>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// What a look at some entries found.
#[derive(Default)]
struct Looked {
    entries: u64,
    /// Rows that are to go, and why.
    wrong: Vec<(i64, ProblemKind, String)>,
    /// Where to go on.
    last: Option<i64>,
}

/// Looks at the entries after the row `after`.
fn look(
    connection: &Connection,
    options: &SqliteOptions,
    after: i64,
    now: Timestamp,
) -> rusqlite::Result<Looked> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {}, key_hash, source FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2",
        found::COLUMNS
    ))?;
    let mut rows = statement.query((after, BATCH))?;
    let mut looked = Looked::default();
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        looked.entries += 1;
        looked.last = Some(id);
        let problem = match found::check(connection, row, options, now) {
            Err(reason) => Some((ProblemKind::Entry, reason)),
            Ok(()) if !is_in_place(row) => {
                Some((ProblemKind::Entry, "it is not where its key is looked for".to_owned()))
            }
            Ok(()) => senseless(row, now).map(|reason| (ProblemKind::Times, reason)),
        };
        if let Some((kind, reason)) = problem {
            let key = row.get_ref(1)?.as_str().unwrap_or("(no text)");
            let reason = format!("{}: {reason}", cache_core::Escaped(key));
            looked.wrong.push((id, kind, reason));
        }
    }
    Ok(looked)
}

/// Whether the row has the hash and the source of its key, which its checksum does not cover.
fn is_in_place(row: &Row<'_>) -> bool {
    let in_place = || -> rusqlite::Result<bool> {
        let key = cache_core::Key::new(row.get_ref(1)?.as_str()?);
        let (hash, source) = (row.get::<_, i64>("key_hash")?, row.get_ref("source")?.as_str()?);
        Ok(hash == rows::key_hash(key.as_str()) && source == key.source())
    };
    in_place().unwrap_or(false)
}

/// Why its times cannot be right.
fn senseless(row: &Row<'_>, now: Timestamp) -> Option<String> {
    let time = |column| row.get::<_, i64>(column).unwrap_or_default();
    let (expires_at, stale_until, loaded_at) = (time(3), time(4), time(14));
    let as_of = cache_core::Stamp::from_packed(time(2).cast_unsigned());
    if stale_until < expires_at {
        return Some("it would be dead before it is stale".to_owned());
    }
    if !as_of.is_believable(now) {
        return Some("it was loaded in the far future".to_owned());
    }
    let latest = cache_core::Stamp::latest_believable(now).instant().as_millis();
    (loaded_at > latest).then(|| "its load ended in the far future".to_owned())
}

/// Removes rows, unless they have been replaced by something sound meanwhile.
fn remove(batch: &mut Batch<'_>, ids: &[i64], now: Timestamp) -> rusqlite::Result<()> {
    let mut still = batch.connection.prepare_cached(&format!(
        "SELECT {}, key_hash, source FROM entries WHERE id = ?1",
        found::COLUMNS
    ))?;
    let mut delete = batch.connection.prepare_cached("DELETE FROM entries WHERE id = ?1")?;
    for id in ids {
        let mut rows = still.query([id])?;
        let Some(row) = rows.next()? else { continue };
        let sound = found::check(batch.connection, row, batch.options, now).is_ok()
            && is_in_place(row)
            && senseless(row, now).is_none();
        drop(rows);
        if !sound {
            delete.execute([id])?;
        }
    }
    Ok(())
}

/// What of that which is kept about entries does not fit them; made anew if it is to be repaired.
fn kept(
    connection: &Connection,
    now: Timestamp,
    repair: bool,
) -> rusqlite::Result<Vec<(ProblemKind, String)>> {
    let snapshot = if repair { None } else { Some(connection.unchecked_transaction()?) };
    let mut wrong = tags(connection, repair)?;
    let counters = [uses(connection, repair)?, totals(connection, repair)?];
    let stamp = stamp(connection, now, repair)?;
    let counters = counters.into_iter().flatten().chain(stamp);
    wrong.extend(counters.map(|complaint| (ProblemKind::Counters, complaint)));
    drop(snapshot);
    Ok(wrong)
}

fn count(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

fn tags(connection: &Connection, repair: bool) -> rusqlite::Result<Vec<(ProblemKind, String)>> {
    let mut wrong = Vec::new();
    let orphans = "entry NOT IN (SELECT id FROM entries)";
    let orphaned = count(connection, &format!("SELECT count(*) FROM entry_tags WHERE {orphans}"))?;
    if orphaned > 0 {
        wrong.push((ProblemKind::Tags, format!("{orphaned} tags of entries that are gone")));
        if repair {
            connection.execute(&format!("DELETE FROM entry_tags WHERE {orphans}"), [])?;
        }
    }
    let mut statement = connection.prepare_cached(
        "SELECT id, tags, coalesce((SELECT group_concat(tag, char(10)) FROM (
             SELECT tag FROM entry_tags WHERE entry = id ORDER BY tag)), '')
         FROM entries
         WHERE tags <> '' OR EXISTS (SELECT 1 FROM entry_tags WHERE entry = id)",
    )?;
    let mut rows = statement.query([])?;
    let mut unlike = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, own, indexed) =
            (row.get::<_, i64>(0)?, row.get::<_, String>(1), row.get::<_, String>(2)?);
        // A row that cannot be read is an entry's problem.
        let Ok(own) = own else { continue };
        let mut sorted: Vec<&str> = own.lines().collect();
        sorted.sort_unstable();
        if sorted.join("\n") != indexed {
            unlike.push((id, own));
        }
    }
    drop(rows);
    if !unlike.is_empty() {
        let complaint = format!("{} entries have other tags than are indexed", unlike.len());
        wrong.push((ProblemKind::Tags, complaint));
    }
    if repair {
        for (id, own) in unlike {
            connection.execute("DELETE FROM entry_tags WHERE entry = ?1", [id])?;
            for tag in own.lines() {
                connection
                    .execute("INSERT OR IGNORE INTO entry_tags VALUES (?1, ?2)", (tag, id))?;
            }
        }
    }
    Ok(wrong)
}

fn uses(connection: &Connection, repair: bool) -> rusqlite::Result<Option<String>> {
    let orphans = "entry NOT IN (SELECT id FROM entries)";
    let missing = "id NOT IN (SELECT entry FROM uses)";
    let wrong = count(connection, &format!("SELECT count(*) FROM uses WHERE {orphans}"))?
        + count(connection, &format!("SELECT count(*) FROM entries WHERE {missing}"))?;
    if repair && wrong > 0 {
        connection.execute(&format!("DELETE FROM uses WHERE {orphans}"), [])?;
        let insert = "INSERT INTO uses SELECT id, loaded_at / 1000 FROM entries WHERE";
        connection.execute(&format!("{insert} {missing}"), [])?;
    }
    Ok((wrong > 0).then(|| format!("uses of {wrong} entries are not as they should be")))
}

fn totals(connection: &Connection, repair: bool) -> rusqlite::Result<Option<String>> {
    let real = "SELECT source, codec, dictionary, count(*) AS entries, sum(raw_len) AS raw_bytes,
                    sum(length(value)) AS stored_bytes
                FROM entries GROUP BY source, codec, dictionary";
    // Of a source without entries nothing, or zeros, may be noted.
    let noted = "SELECT source, codec, dictionary, entries, raw_bytes, stored_bytes FROM totals
                 WHERE entries <> 0 OR raw_bytes <> 0 OR stored_bytes <> 0";
    let wrong = count(
        connection,
        &format!(
            "SELECT count(*) FROM (SELECT * FROM ({real} EXCEPT {noted})
                 UNION SELECT * FROM ({noted} EXCEPT {real}))"
        ),
    )?;
    if repair && wrong > 0 {
        let mut statement = connection.prepare(real)?;
        let sums = statement.query_map([], |row| {
            let group =
                Group { codec: CodecId(row.get(1)?), dictionary: DictionaryId(row.get(2)?) };
            let sums =
                Sums { entries: row.get(3)?, raw_bytes: row.get(4)?, stored_bytes: row.get(5)? };
            Ok((row.get::<_, String>(0)?, group, sums))
        })?;
        let sums: Vec<_> = sums.collect::<rusqlite::Result<_>>()?;
        connection.execute("DELETE FROM totals WHERE latest_stamp = 0", [])?;
        connection.execute("UPDATE totals SET entries = 0, raw_bytes = 0, stored_bytes = 0", [])?;
        for (source, group, sums) in sums {
            batch::add(connection, &source, group, sums)?;
        }
    }
    Ok((wrong > 0).then(|| "the sums of sources are not those of their entries".to_owned()))
}

fn stamp(
    connection: &Connection,
    now: Timestamp,
    repair: bool,
) -> rusqlite::Result<Option<String>> {
    let (noted, real) = (stamps::latest(connection, now)?, stamps::believable(connection, now)?);
    if noted >= real {
        return Ok(None);
    }
    if repair {
        stamps::note(connection, real, now)?;
    }
    Ok(Some("the latest stamp is later than what is noted".to_owned()))
}
