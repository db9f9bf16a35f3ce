//! Looking at what is stored.

use std::fs;

use async_trait::async_trait;
use cache_core::{Filter, Inspect, Key, Op, Result, SourceUsage, Summary, Timestamp, Usage};

use crate::{SqliteTier, error::tier_error, rows};

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
        let usage = workers.read(|connection, options| {
            let mut usage = Usage::default();
            let mut statement = connection.prepare_cached(
                "SELECT source, entries, raw_bytes, stored_bytes FROM totals
                 WHERE entries > 0 ORDER BY source",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(SourceUsage {
                    source: row.get(0)?,
                    entries: row.get(1)?,
                    raw_bytes: row.get(2)?,
                    stored_bytes: row.get(3)?,
                })
            })?;
            usage.sources = rows.collect::<rusqlite::Result<_>>()?;
            let pragma =
                |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
            let mut wal = options.path.as_os_str().to_owned();
            wal.push("-wal");
            let wal_bytes = fs::metadata(wal).map_or(0, |found| found.len());
            usage.occupied_bytes = pragma("page_count")? * pragma("page_size")? + wal_bytes;
            Ok(usage)
        });
        usage.await.map_err(|failure| tier_error(Op::Inspect, failure))
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
