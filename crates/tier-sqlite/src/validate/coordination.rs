//! Checking what processes tell each other through the file: barriers, journal, leases.
//!
//! A row that cannot be right is never just removed if something may have been missed for it: it is
//! replaced by what covers at least as much.

use cache_core::{Barrier, Effect, ProblemKind, Selector, Stamp, Timestamp};
use rusqlite::{Connection, Row};

use crate::{barriers, batch::Batch, journal, lease, marks, stamps};

/// Places in the journal up to here may have been reached by counting.
const FARTHEST: i64 = 1 << 53;
/// Whose change a row of the journal is that a repair has written: nobody's.
const NOBODY: i64 = 0;

type Wrong = Vec<(ProblemKind, String)>;

/// What is wrong with the rows of the three tables.
pub(super) fn look(connection: &Connection, now: Timestamp) -> rusqlite::Result<Wrong> {
    let snapshot = connection.unchecked_transaction()?;
    let mut wrong = Barriers::read(&snapshot, now)?.complaints();
    wrong.extend(Journal::read(&snapshot, now)?.complaints());
    wrong.extend(Leases::read(&snapshot, now)?.complaints());
    Ok(wrong)
}

/// The same, mended.
pub(super) fn mend(batch: &mut Batch<'_>) -> rusqlite::Result<Wrong> {
    // First what barriers put in place of malformed ones drops leases, and is told in the journal.
    let barriers = Barriers::read(batch.connection, batch.now)?;
    barriers.mend(batch)?;
    let journal = Journal::read(batch.connection, batch.now)?;
    journal.mend(batch.connection)?;
    let leases = Leases::read(batch.connection, batch.now)?;
    leases.mend(batch.connection)?;
    let mut wrong = barriers.complaints();
    wrong.extend(journal.complaints());
    wrong.extend(leases.complaints());
    Ok(wrong)
}

/// A stamp that a clock may have issued.
fn stamp(row: &Row<'_>, column: usize, now: Timestamp) -> Option<Stamp> {
    let packed = u64::try_from(row.get::<_, i64>(column).ok()?).ok()?;
    Some(Stamp::from_packed(packed)).filter(|stamp| stamp.is_believable(now))
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> Option<&'a str> {
    row.get_ref(column).ok()?.as_str().ok()
}

fn effect(row: &Row<'_>, column: usize) -> Option<Effect> {
    match row.get::<_, u8>(column).ok()? {
        0 => Some(Effect::Forget),
        1 => Some(Effect::Expire),
        _ => None,
    }
}

/// What the columns from the first on select, if they are as they are written for that.
fn selector(row: &Row<'_>) -> Option<Selector> {
    let (kind, name, tag) = (row.get(0).ok()?, text(row, 1)?, text(row, 2)?);
    barriers::selector(kind, name, tag)
        .filter(|selector| barriers::columns(selector) == (kind, name, tag))
}

struct Barriers {
    sound: Vec<Barrier>,
    /// What takes the place of malformed ones, and why each is that.
    replacements: Vec<(Replacement, String)>,
    marks: marks::Rows,
}

/// A malformed barrier, as far as it can be read.
struct Replacement {
    selector: Option<Selector>,
    stamp: Option<Stamp>,
}

impl Barriers {
    fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let mut statement =
            connection.prepare("SELECT kind, name, tag, effect, stamp FROM barriers")?;
        let mut rows = statement.query([])?;
        let mut read =
            Self { sound: Vec::new(), replacements: Vec::new(), marks: marks::Rows::default() };
        while let Some(row) = rows.next()? {
            if row.get::<_, u8>(0).is_ok_and(|kind| kind == marks::KIND) {
                let mark = row.get(3).ok().zip(text(row, 1)).zip(stamp(row, 4, now));
                match mark.filter(|_| text(row, 2) == Some("")) {
                    Some(((effect, name), stamp)) => read.marks.add(effect, name, stamp),
                    None => read.marks.add_malformed(),
                }
                continue;
            }
            let (selector, effect, stamp) = (selector(row), effect(row, 3), stamp(row, 4, now));
            if let (Some(selector), Some(effect), Some(stamp)) = (&selector, effect, stamp) {
                let selector = selector.clone();
                read.sound.push(match effect {
                    Effect::Forget => Barrier::forget(selector, stamp),
                    Effect::Expire => Barrier::expire(selector, stamp),
                });
                continue;
            }
            let mut unreadable = Vec::new();
            unreadable.extend(selector.is_none().then_some("what it selects"));
            unreadable.extend(effect.is_none().then_some("its effect"));
            unreadable.extend(stamp.is_none().then_some("its stamp"));
            let why = format!(
                "of a barrier over {} it cannot be right: {}; repairing forgets what it may have \
                 covered",
                selector.as_ref().map_or_else(|| "something".to_owned(), ToString::to_string),
                unreadable.join(", ")
            );
            read.replacements.push((Replacement { selector, stamp }, why));
        }
        Ok(read)
    }

    fn complaints(&self) -> Wrong {
        let replaced = self.replacements.iter().map(|(_, why)| why.clone());
        let marks = self.marks.complaint();
        replaced.chain(marks).map(|why| (ProblemKind::Barriers, why)).collect()
    }

    /// Puts in the place of each malformed barrier one that covers no less: of what cannot be read, the
    /// most it may have been.
    fn mend(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        if !self.replacements.is_empty() {
            // All of them: a malformed row may have no text to find it by.
            batch.connection.execute("DELETE FROM barriers", [])?;
            for barrier in &self.sound {
                barriers::keep(batch.connection, barrier)?;
            }
            self.marks.write(batch.connection)?;
        }
        if self.marks.complaint().is_some() {
            marks::Rows::renew(batch.connection, batch.now)?;
        }
        let latest = stamps::latest(batch.connection, batch.now)?.max(Stamp::at(batch.now));
        for (Replacement { selector, stamp }, _) in &self.replacements {
            let selector = selector.clone().unwrap_or(Selector::All);
            // Only what came later is sure to have come after it.
            barriers::set(batch, &Barrier::forget(selector, stamp.unwrap_or(latest)))?;
        }
        if !self.replacements.is_empty() {
            // This process's memory, too, may have what they covered.
            start_anew(batch.connection)?;
        }
        Ok(())
    }
}

struct Journal {
    malformed: Vec<(i64, &'static str)>,
    /// The number that the next row follows on cannot be right.
    end: Option<i64>,
}

impl Journal {
    fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let end = journal::end(connection)?;
        let mut statement =
            connection.prepare("SELECT kind, name, tag, effect, stamp, seq, node FROM journal")?;
        let mut rows = statement.query([])?;
        let mut malformed = Vec::new();
        while let Some(row) = rows.next()? {
            let seq = row.get(5)?;
            if row.get::<_, i64>(6).is_err() {
                malformed.push((seq, "whose change it is"));
            } else if !journal_selects(row) {
                malformed.push((seq, "what was changed"));
            } else if effect(row, 3).is_none() {
                malformed.push((seq, "its effect"));
            } else if stamp(row, 4, now).is_none() {
                malformed.push((seq, "its stamp"));
            } else if seq < 1 {
                malformed.push((seq, "its place"));
            }
        }
        Ok(Self { malformed, end: (end > FARTHEST).then_some(end) })
    }

    fn complaints(&self) -> Wrong {
        let rows = self.malformed.iter();
        let rows = rows.map(|(seq, what)| format!("of change {seq} it cannot be right: {what}"));
        let end = self.end.map(|end| format!("{end} cannot be the number of the last change"));
        rows.chain(end).map(|why| (ProblemKind::Journal, why)).collect()
    }

    /// Removes what is malformed; who has not read that yet is told to start anew.
    fn mend(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.malformed.is_empty() && self.end.is_none() {
            return Ok(());
        }
        if self.end.is_some() {
            // Counted from the start again, which is told from rows that are missing.
            connection.execute("DELETE FROM journal", [])?;
        }
        // First: the number of the last row must not be given once more.
        start_anew(connection)?;
        let mut delete = connection.prepare("DELETE FROM journal WHERE seq = ?1")?;
        for (seq, _) in &self.malformed {
            delete.execute([seq])?;
        }
        Ok(())
    }
}

/// Has all who follow changes, also in this process, start anew.
fn start_anew(connection: &Connection) -> rusqlite::Result<()> {
    journal::append(connection, NOBODY, (journal::MANY, "", "", 0, Stamp::ZERO))
}

fn journal_selects(row: &Row<'_>) -> bool {
    let keys = text(row, 1).filter(|_| text(row, 2) == Some(""));
    match row.get::<_, u8>(0) {
        Ok(journal::STORED) => keys.is_some_and(|keys| !keys.is_empty()),
        Ok(journal::MANY) => keys == Some(""),
        Ok(journal::DICTIONARIES) => keys.is_some(),
        Ok(_) => selector(row).is_some(),
        Err(_) => false,
    }
}

struct Leases {
    sound: Vec<(String, i64, i64)>,
    malformed: Vec<String>,
}

impl Leases {
    fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare("SELECT key, owner, until FROM leases")?;
        let mut rows = statement.query([])?;
        let (mut sound, mut malformed) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let (key, owner, until) = (text(row, 0), row.get(1).ok(), row.get(2).ok());
            let until = until.filter(|until| lease::is_deadline(*until, now.as_millis()));
            if let (Some(key), Some(owner), Some(until)) = (key, owner, until) {
                sound.push((key.to_owned(), owner, until));
                continue;
            }
            let key = cache_core::Escaped(key.unwrap_or("(no text)"));
            let what = if owner.is_none() { "its owner" } else { "its key or deadline" };
            malformed.push(format!("of the lease of {key} it cannot be right: {what}"));
        }
        Ok(Self { sound, malformed })
    }

    fn complaints(&self) -> Wrong {
        self.malformed.iter().map(|why| (ProblemKind::Leases, why.clone())).collect()
    }

    /// Removes what is malformed: without its lease a key may be loaded twice, no more.
    fn mend(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.malformed.is_empty() {
            return Ok(());
        }
        connection.execute("DELETE FROM leases", [])?;
        let mut insert = connection.prepare("INSERT INTO leases VALUES (?1, ?2, ?3)")?;
        self.sound.iter().try_for_each(|lease| insert.execute(lease.clone()).map(drop))
    }
}
