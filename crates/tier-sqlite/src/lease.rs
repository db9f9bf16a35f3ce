//! Leases: who is loading a key, so that no other process does.

use std::time::Duration;

use async_trait::async_trait;
use cache_core::{Key, Lease, Op, Result};
use rusqlite::{Connection, OptionalExtension};

use crate::{SqliteTier, error::tier_error};

/// Longest time that a lease is believed to last, in milliseconds: one beyond is damaged, or of a clock
/// that was ahead.
const LONGEST: i64 = 3_600_000;

/// Whether a lease may end then, seen from `now`: all that did are as good as none.
pub(crate) const fn is_deadline(until: i64, now: i64) -> bool {
    0 <= until && until <= now.saturating_add(LONGEST)
}

/// Whether somebody else than `owner` has the lease of `key` at `now`.
fn is_taken(connection: &Connection, key: &Key, owner: i64, now: i64) -> rusqlite::Result<bool> {
    let taken = connection
        .prepare_cached(
            "SELECT 1 FROM leases WHERE key = ?1 AND owner IS NOT ?2
                 AND until > ?3 AND until <= ?4",
        )?
        .query_row((key.as_str(), owner, now, now.saturating_add(LONGEST)), |_| Ok(()))
        .optional()?;
    Ok(taken.is_some())
}

fn any_is_taken(
    connection: &Connection,
    keys: &[Key],
    owner: i64,
    now: i64,
) -> rusqlite::Result<bool> {
    for key in keys {
        if is_taken(connection, key, owner, now)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[async_trait]
impl Lease for SqliteTier {
    async fn lease(&self, keys: &[Key], owner: u64, duration: Duration) -> Result<bool> {
        let (keys, owner) = (keys.to_vec(), owner.cast_signed());
        let workers = self.workers(Op::Lease)?;
        let taken = workers.write_soon(move |batch| {
            let (connection, now) = (batch.connection, batch.now);
            if any_is_taken(connection, &keys, owner, now.as_millis())? {
                return Ok(false);
            }
            let until = now.saturating_add(duration).as_millis();
            let mut take = connection.prepare_cached(
                "INSERT INTO leases VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, until = excluded.until",
            )?;
            for key in &keys {
                take.execute((key.as_str(), owner, until))?;
            }
            // Those of owners that were killed: there are few at a time.
            connection
                .prepare_cached("DELETE FROM leases WHERE until <= ?1 OR until > ?2")?
                .execute((now.as_millis(), now.as_millis().saturating_add(LONGEST)))?;
            Ok(true)
        });
        taken.await.map_err(|failure| tier_error(Op::Lease, failure))
    }

    async fn renew(&self, keys: &[Key], owner: u64, duration: Duration) -> Result<()> {
        let (keys, owner) = (keys.to_vec(), owner.cast_signed());
        let workers = self.workers(Op::Lease)?;
        let renewed = workers.write_soon(move |batch| {
            let until = batch.now.saturating_add(duration).as_millis();
            let mut renew = batch
                .connection
                .prepare_cached("UPDATE leases SET until = ?3 WHERE key = ?1 AND owner = ?2")?;
            keys.iter().try_for_each(|key| renew.execute((key.as_str(), owner, until)).map(drop))
        });
        renewed.await.map_err(|failure| tier_error(Op::Lease, failure))
    }

    async fn is_free(&self, keys: &[Key], owner: u64) -> Result<bool> {
        let workers = self.workers(Op::Lease)?;
        let (now, owner) = (self.options.clock.now().as_millis(), owner.cast_signed());
        let quick = |connection: &Connection| {
            any_is_taken(connection, keys, owner, now).map(|taken| Some(!taken))
        };
        if let Some(free) = workers.read_here(quick) {
            return Ok(free);
        }
        let keys = keys.to_vec();
        let free = workers
            .read(move |connection, _| Ok(!any_is_taken(connection, &keys, owner, now)?))
            .await;
        free.map_err(|failure| tier_error(Op::Lease, failure))
    }

    async fn release(&self, keys: &[Key], owner: u64) -> Result<()> {
        let (keys, owner) = (keys.to_vec(), owner.cast_signed());
        let workers = self.workers(Op::Lease)?;
        let released = workers.write_soon(move |batch| {
            let mut release = batch
                .connection
                .prepare_cached("DELETE FROM leases WHERE key = ?1 AND owner = ?2")?;
            keys.iter().try_for_each(|key| release.execute((key.as_str(), owner)).map(drop))
        });
        released.await.map_err(|failure| tier_error(Op::Lease, failure))
    }
}
