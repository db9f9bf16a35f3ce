//! What compressing has taken, noted in the file from time to time, so that other processes can tell.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cache_core::{CodecStats, CodecUse, Compression};
use rusqlite::{Connection, Row};

/// What of a process's statistics is in the file.
#[derive(Debug, Default)]
pub(crate) struct CodecTimes(Mutex<BTreeMap<CodecUse, CodecStats>>);

impl CodecTimes {
    /// Adds what was done since the last time; if that fails, it is lost.
    pub(crate) fn write(
        &self,
        connection: &Connection,
        compression: &dyn Compression,
    ) -> rusqlite::Result<()> {
        let now: BTreeMap<_, _> = compression.stats().into_iter().collect();
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *written, now.clone());
        drop(written);
        let mut add = connection.prepare_cached(
            "INSERT INTO codec_times VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (source, codec, dictionary) DO UPDATE SET
                 packed = packed + excluded.packed,
                 pack_nanos = pack_nanos + excluded.pack_nanos,
                 kept_raw = kept_raw + excluded.kept_raw,
                 failed = failed + excluded.failed,
                 unpacked = unpacked + excluded.unpacked,
                 unpack_nanos = unpack_nanos + excluded.unpack_nanos",
        )?;
        for (of, now) in &now {
            let before = before.get(of).cloned().unwrap_or_default();
            if *now == before {
                continue;
            }
            let more = |now: u64, before: u64| count(now.saturating_sub(before));
            let longer = |now: Duration, before| nanos(now.saturating_sub(before));
            add.execute((
                &*of.source,
                of.codec.0,
                of.dictionary.0,
                more(now.packed, before.packed),
                longer(now.pack_time, before.pack_time),
                more(now.kept_raw, before.kept_raw),
                more(now.failed, before.failed),
                more(now.unpacked, before.unpacked),
                longer(now.unpack_time, before.unpack_time),
            ))?;
        }
        Ok(())
    }

    /// Whether there is something to write.
    pub(crate) fn is_due(&self, compression: &dyn Compression) -> bool {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = compression.stats();
        now.len() != written.len() || now.iter().any(|(of, stats)| written.get(of) != Some(stats))
    }
}

/// The statistics in six columns of a row, from `first` on.
pub(crate) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<CodecStats> {
    // A damaged sum may be less than nothing.
    let sum = |column: usize| -> rusqlite::Result<u64> {
        Ok(row.get::<_, Option<i64>>(first + column)?.unwrap_or(0).max(0).cast_unsigned())
    };
    let mut stats = CodecStats::default();
    stats.packed = sum(0)?;
    stats.pack_time = Duration::from_nanos(sum(1)?);
    stats.kept_raw = sum(2)?;
    stats.failed = sum(3)?;
    stats.unpacked = sum(4)?;
    stats.unpack_time = Duration::from_nanos(sum(5)?);
    Ok(stats)
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}
