//! Looks at what a killed process left behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use larder::{Cache, Filter, Key, ReadOptions, SetOptions, Summary};
use rusqlite::{Connection, OpenFlags};

use crate::{
    Result,
    history::{State, States},
    names::{Id, Name, sources, tags},
    writer,
};

/// What is in the file; fails if it is not sound, or not consistent.
pub(crate) async fn look(path: &Path, seed: u64) -> Result<States> {
    let rows = if path.exists() { rows(path)? } else { None };
    let cache = writer::open(path)?;
    let found = states(&cache, seed).await?;
    let stored = consistent(&cache, &found, seed).await?;
    if rows.is_some_and(|rows| rows != stored) {
        return Err(format!("{rows:?} rows, of which a scan finds {stored}").into());
    }
    writer::close(&cache).await?;
    Ok(found)
}

/// Sets something in what was left behind, and reads it.
pub(crate) async fn goes_on(path: &Path) -> Result<()> {
    let cache = writer::open(path)?;
    let key = Key::new("after:k");
    cache.set(&key, "v", SetOptions::default()).await?;
    if cache.get(&key).await?.is_none() {
        return Err("what is set after a kill is not there".into());
    }
    writer::close(&cache).await
}

/// Lets SQLite check the file; how many entries it has, if it has come so far.
fn rows(path: &Path) -> Result<Option<usize>> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut check = connection.prepare("PRAGMA integrity_check")?;
    let said: Vec<String> =
        check.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    if said != ["ok"] {
        return Err(format!("CORRUPT, integrity_check says: {}", said.join("; ")).into());
    }
    let made = "SELECT count(*) FROM sqlite_schema WHERE name = 'entries'";
    if connection.query_row(made, [], |row| row.get::<_, u64>(0))? == 0 {
        return Ok(None);
    }
    let count = connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?;
    Ok(Some(count))
}

/// Reads every key that there may be.
async fn states(cache: &Cache, seed: u64) -> Result<States> {
    let mut found = States::new();
    let options = ReadOptions::default().allow_stale();
    for name in Name::all() {
        let Some(hit) = cache.get_with(&name.key(), options.clone()).await? else { continue };
        let id = Id::of(seed, name, hit.value())?;
        found.insert(name, State { value: Some(id), stale: hit.is_stale() });
    }
    let corrupt: u64 = cache.stats().tiers.iter().map(|tier| tier.corrupt).sum();
    if corrupt > 0 { Err(format!("{corrupt} rows are damaged").into()) } else { Ok(found) }
}

/// Compares what reads found with what scans find and what is counted; how many entries there are.
async fn consistent(cache: &Cache, found: &States, seed: u64) -> Result<usize> {
    let scan = async |filter: Filter| cache.scan(&filter, None, usize::MAX).await;
    let all = scan(Filter::all()).await?;
    let scanned: Vec<&str> = all.iter().map(|summary| summary.key.as_str()).collect();
    let read: BTreeSet<String> = found.keys().map(Name::to_string).collect();
    if !read.iter().eq(&scanned) {
        return Err(format!("reads find {read:?}, a scan finds {scanned:?}").into());
    }
    for summary in &all {
        described(summary, found, seed)?;
    }
    for tag in tags()? {
        let by_tag = scan(Filter::tag(tag.clone())).await?;
        let with = |summary: &&Summary| summary.tags.contains(&tag);
        if !by_tag.iter().map(|one| &one.key).eq(all.iter().filter(with).map(|one| &one.key)) {
            return Err(format!("a scan by tag {tag} does not find the entries with it").into());
        }
    }
    let mut sums: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for summary in &all {
        let (entries, raw, stored) = sums.entry(summary.key.source()).or_default();
        *entries += 1;
        *raw += summary.raw_bytes;
        *stored += summary.stored_bytes;
    }
    for (_, usage) in cache.usage().await? {
        let usage = usage?;
        for source in sources() {
            let counted = usage.sources.iter().find(|one| one.source == source);
            let counted = counted.map(|one| (one.entries, one.raw_bytes, one.stored_bytes));
            let (counted, sum) = (counted.unwrap_or_default(), sums.get(source).copied());
            if counted != sum.unwrap_or_default() {
                return Err(format!("of {source} {counted:?} is counted, {sum:?} is there").into());
            }
        }
    }
    Ok(all.len())
}

/// What a scan says of an entry is what was read.
fn described(summary: &Summary, found: &States, seed: u64) -> Result<()> {
    let name: Name = summary.key.as_str().parse()?;
    let state = found.get(&name).copied().unwrap_or_default();
    let id = state.value.ok_or_else(|| format!("{name} is scanned, not read"))?;
    let len = id.value(seed, name).len() as u64;
    let mut tags = summary.tags.clone();
    tags.sort_unstable();
    if tags != id.tags(name)? || summary.raw_bytes != len || summary.expired != state.stale {
        return Err(format!("{name} was read as {state:?}, and is scanned as {summary:?}").into());
    }
    Ok(())
}
