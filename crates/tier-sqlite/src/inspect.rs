//! Looking at what is stored.

use std::fs;

use async_trait::async_trait;
use cache_core::{
    CodecId, CodecUsage, CodecUse, DictionaryId, Filter, Inspect, Key, Op, Result, SourceUsage,
    Summary, Timestamp, Usage, Validation,
};
use rusqlite::Connection;

use crate::{
    SqliteTier,
    bound::{self, beside},
    codec_times,
    error::tier_error,
    rows, validate,
};

/// What entries of each source, codec and dictionary occupy, and what their compression took.
fn codecs(connection: &Connection) -> rusqlite::Result<Vec<CodecUsage>> {
    // A file of an earlier format, that cannot be written, has no such table.
    if !connection.table_exists(None, "codec_times")? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached(
        // What compressing took may be noted of entries that are all gone, or stored as they are. A
        // damaged row may have numbers that no codec has.
        "SELECT source, codec, dictionary, coalesce(entries, 0), coalesce(raw_bytes, 0),
             coalesce(stored_bytes, 0), packed, pack_nanos, kept_raw, failed, unpacked, unpack_nanos
         FROM totals FULL JOIN codec_times USING (source, codec, dictionary)
         WHERE (entries > 0 OR packed > 0 OR kept_raw > 0 OR failed > 0 OR unpacked > 0)
             AND codec BETWEEN 0 AND 255 AND dictionary BETWEEN 0 AND 4294967295
         ORDER BY source, codec, dictionary",
    )?;
    let rows = statement.query_map([], |row| {
        let sum = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.max(0));
        Ok(CodecUsage {
            of: CodecUse {
                source: row.get::<_, String>(0)?.into(),
                codec: CodecId(row.get(1)?),
                dictionary: DictionaryId(row.get(2)?),
            },
            entries: sum(3)?.cast_unsigned(),
            raw_bytes: sum(4)?.cast_unsigned(),
            stored_bytes: sum(5)?.cast_unsigned(),
            work: codec_times::read(row, 6)?,
        })
    })?;
    rows.collect()
}

#[async_trait]
impl Inspect for SqliteTier {
    async fn scan(
        &self,
        filter: &Filter,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Summary>> {
        let prefix = filter.prefix.clone();
        let source =
            prefix.as_deref().and_then(|prefix| prefix.split(':').next()).map(str::to_owned);
        let tag = filter.tag.as_ref().map(|tag| tag.as_str().to_owned());
        let after = after.map(|key| key.as_str().to_owned());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let workers = self.workers(Op::Inspect)?;
        let found = workers.read(move |connection, _| {
            let mut statement = connection.prepare_cached(
                "SELECT key, raw_len, length(value), expires_at, stale_until, tags, flags
                 FROM entries
                 WHERE (?1 IS NULL OR source = ?1
                         AND (key = ?5 OR key >= ?5 || ':' AND key < ?5 || ';'))
                     AND (?2 IS NULL OR id IN (SELECT entry FROM entry_tags WHERE tag = ?2))
                     AND (?3 IS NULL OR key > ?3)
                 ORDER BY key LIMIT ?4",
            )?;
            let rows = statement.query_map((&source, &tag, &after, limit, &prefix), |row| {
                Ok(Summary {
                    key: Key::new(row.get_ref(0)?.as_str()?),
                    raw_bytes: row.get(1)?,
                    stored_bytes: row.get(2)?,
                    expires_at: Timestamp::from_millis(row.get(3)?),
                    stale_until: Timestamp::from_millis(row.get(4)?),
                    expired: row.get::<_, i64>(6)? & rows::EXPIRED != 0,
                    tags: rows::split_tags(row.get_ref(5)?.as_str()?).flatten().collect(),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        });
        found.await.map_err(|failure| tier_error(Op::Inspect, failure))
    }

    async fn usage(&self) -> Result<Usage> {
        let workers = self.workers(Op::Inspect)?;
        let (evicted, _) = workers.shared().bound.counts();
        let capacity_bytes = workers.shared().bound.max_bytes();
        let usage = workers.read(move |connection, options| {
            let mut usage = Usage::default();
            usage.capacity_bytes = Some(capacity_bytes);
            usage.evictions = evicted.entries;
            let mut statement = connection.prepare_cached(
                "SELECT source, sum(entries), sum(raw_bytes), sum(stored_bytes) FROM totals
                 WHERE entries > 0 GROUP BY source ORDER BY source",
            )?;
            let rows = statement.query_map([], |row| {
                // A damaged sum may be less than nothing.
                let sum = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.max(0));
                Ok(SourceUsage {
                    source: row.get(0)?,
                    entries: sum(1)?.cast_unsigned(),
                    raw_bytes: sum(2)?.cast_unsigned(),
                    stored_bytes: sum(3)?.cast_unsigned(),
                })
            })?;
            usage.sources = rows.collect::<rusqlite::Result<_>>()?;
            usage.codecs = codecs(connection)?;
            let page_bytes: u64 =
                connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
            usage.free_bytes = bound::free_pages(connection)?.saturating_mul(page_bytes);
            usage.log_bytes =
                fs::metadata(beside(&options.path, "-wal")).map_or(0, |found| found.len());
            usage.occupied_bytes = bound::pages(connection)? * page_bytes + usage.log_bytes;
            Ok(usage)
        });
        let mut usage = usage.await.map_err(|failure| tier_error(Op::Inspect, failure))?;
        let bound = &workers.shared().bound;
        usage.capacity_bytes = Some(bound.max_bytes());
        usage.evictions = bound.counts().0.entries;
        Ok(usage)
    }

    async fn validate(&self, repair: bool) -> Result<Validation> {
        validate::validate(self, repair).await
    }

    async fn remove_dead(&self, now: Timestamp, key: Option<&Key>) -> Result<u64> {
        let (now, key) = (now.as_millis(), key.cloned());
        let workers = self.workers(Op::Expire)?;
        let removed = workers.write(move |batch| match &key {
            Some(key) => batch
                .connection
                .prepare_cached(
                    "DELETE FROM entries WHERE stale_until <= ?1 AND key_hash = ?2 AND key = ?3",
                )?
                .execute((now, rows::key_hash(key.as_str()), key.as_str())),
            None => batch
                .connection
                .prepare_cached("DELETE FROM entries WHERE stale_until <= ?1")?
                .execute([now]),
        });
        removed.await.map(|n| n as u64).map_err(|failure| tier_error(Op::Expire, failure))
    }
}
