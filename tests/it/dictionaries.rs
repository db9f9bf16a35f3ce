//! Dictionaries for small values: trained by themselves or when asked, used by all that share a file,
//! and kept as long as something needs them.

use std::{fs, ops::Range, sync::Arc, time::Duration};

use larder::{
    Cache, CodecId, CodecUsage, DictionaryError, DictionaryId, Key, Loaded, ServedBy, SetOptions,
    tiers::{Compressor, SqliteOptions, SqliteTier, Zstd},
};
use tier_testkit::ManualClock;

use crate::harness::{Bench, close, key, never, within};

fn compressor() -> Compressor {
    Compressor::new().codec(Arc::new(Zstd::new(1).unwrap()), 10 << 10)
}

fn sqlite(bench: &Bench, compressor: &Arc<Compressor>) -> SqliteTier {
    let clock = Arc::<ManualClock>::clone(&bench.clock);
    let options = SqliteOptions::new(bench.path())
        .clock(clock)
        .poll_interval(Duration::from_millis(5))
        .compression(Arc::<Compressor>::clone(compressor));
    SqliteTier::new(options).unwrap()
}

/// A chain on the bench's file, as another process has it; dictionaries are trained automatically.
fn process(bench: &Bench) -> Cache {
    with(bench, compressor(), true)
}

fn with(bench: &Bench, compressor: Compressor, automatic: bool) -> Cache {
    let compressor = Arc::new(compressor);
    let tier = sqlite(bench, &compressor);
    let builder = bench.bare().tier(bench.memory()).tier(tier);
    builder.compressor(compressor).automatic_dictionaries(automatic).build().unwrap()
}

fn census(n: u32) -> Key {
    key(&format!("census:cbsa={n}"))
}

/// A small table, unlike those of other numbers in its figures only.
fn table(n: u32) -> String {
    let row = |at: u32| {
        let figure = u64::from(n * 7 + at).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        format!(r#"{{"NAME":"Metro Area {figure}","B01001_001E":"{figure}","B19013_001E":{at}}}"#)
    };
    let rows: Vec<String> = (0..10).map(row).collect();
    format!("[{}]", rows.join(","))
}

/// Stores them in all tiers.
async fn store(cache: &Cache, range: Range<u32>) {
    for n in range {
        within(cache.set(&census(n), table(n), SetOptions::default())).await.unwrap();
    }
}

/// Loads them; the file has them some time after that.
async fn load(cache: &Cache, range: Range<u32>) {
    for n in range {
        let load = move |_| async move { Ok(Loaded::new(table(n))) };
        within(cache.get_or_load(&census(n), load)).await.unwrap();
    }
}

/// Whether all of them are served from the file, undamaged.
async fn has(cache: &Cache, range: Range<u32>) {
    for n in range {
        let hit = within(cache.get_or_load(&census(n), never())).await.unwrap();
        assert_eq!(hit.value(), table(n).as_bytes(), "{n}");
    }
}

async fn usage(cache: &Cache) -> Vec<CodecUsage> {
    let all = within(cache.usage()).await.unwrap();
    let (_, usage) = all.into_iter().find(|(name, _)| *name == "sqlite").unwrap();
    usage.unwrap().codecs.into_iter().filter(|one| one.entries > 0).collect()
}

async fn entries_with_a_dictionary(cache: &Cache) -> u64 {
    let with = usage(cache).await.into_iter().filter(|one| one.of.dictionary != DictionaryId::NONE);
    with.map(|one| one.entries).sum()
}

/// Waits until the file has a dictionary.
async fn trained(cache: &Cache) -> DictionaryId {
    within(async {
        loop {
            if let Some(kept) = cache.dictionaries().await.unwrap().first() {
                return kept.dictionary.id;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_trained_once_a_source_has_enough_small_values() {
    let bench = Bench::new();
    let cache = process(&bench);
    load(&cache, 0..450).await;
    assert_eq!(within(cache.dictionaries()).await.unwrap(), []);
    assert_eq!(entries_with_a_dictionary(&cache).await, 0);
    load(&cache, 450..650).await;
    let id = trained(&cache).await;
    store(&cache, 650..700).await;
    let used = entries_with_a_dictionary(&cache).await;
    assert!(used >= 50, "{used}");
    close(cache).await;

    // What was stored before stays as it was, and all is there.
    let cache = process(&bench);
    has(&cache, 0..700).await;
    let codecs = usage(&cache).await;
    let [raw, small] = &codecs[..] else { panic!("{codecs:?}") };
    assert_eq!((raw.of.codec, small.of.codec), (CodecId::RAW, CodecId::ZSTD));
    assert_eq!(small.of.dictionary, id);
    assert_eq!(raw.raw_bytes, raw.stored_bytes);
    assert!(small.stored_bytes * 2 < small.raw_bytes, "{small:?}");
    assert!(small.work.packed >= used, "noted by the process that did it: {small:?}");
    assert!(!small.work.pack_time.is_zero());
    let kept = within(cache.dictionaries()).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((&*kept[0].dictionary.source, kept[0].dictionary.version), ("census", 1));
    assert_eq!(kept[0].entries, small.entries);
    // The next ones use it, too, without being trained again.
    store(&cache, 700..710).await;
    assert_eq!(entries_with_a_dictionary(&cache).await, small.entries + 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_by_set_counts_too() {
    let bench = Bench::new();
    let cache = process(&bench);
    store(&cache, 0..600).await;
    trained(&cache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dictionary_that_one_process_trains_is_used_by_all() {
    let bench = Bench::new();
    let (one, other) = (process(&bench), with(&bench, compressor(), false));
    store(&one, 0..100).await;
    // It has the file open, and knows of no dictionary.
    has(&other, 0..1).await;
    store(&other, 1000..1001).await;
    let made = within(one.train_dictionary("census")).await.unwrap();
    assert_eq!((made.dictionary.version, &*made.dictionary.source), (1, "census"));
    assert!(made.stored_bytes * 2 < made.raw_bytes, "{made:?}");
    store(&one, 100..110).await;
    has(&other, 100..110).await;
    within(async {
        for n in 1001.. {
            store(&other, n..n + 1).await;
            if entries_with_a_dictionary(&other).await > 10 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_ones_stay_while_an_entry_needs_them() {
    let bench = Bench::new();
    let cache = with(&bench, compressor(), false);
    store(&cache, 0..100).await;
    let first = within(cache.train_dictionary("census")).await.unwrap().dictionary;
    store(&cache, 100..110).await;
    let second = within(cache.train_dictionary("census")).await.unwrap().dictionary;
    assert_eq!((first.version, second.version), (1, 2));
    store(&cache, 110..115).await;
    let versions = async |cache: &Cache| {
        let kept = within(cache.dictionaries()).await.unwrap();
        kept.iter().map(|kept| (kept.dictionary.version, kept.entries)).collect::<Vec<_>>()
    };
    assert_eq!(versions(&cache).await, [(1, 10), (2, 5)]);
    close(cache).await;
    let cache = with(&bench, compressor(), false);
    has(&cache, 0..115).await;
    // Once nothing needs the first any more it goes, with the next training.
    for n in 100..110 {
        within(cache.invalidate(&census(n))).await.unwrap();
    }
    within(cache.train_dictionary("census")).await.unwrap();
    assert_eq!(versions(&cache).await, [(2, 5), (3, 0)]);
    has(&cache, 110..115).await;
}

/// Whether the file under the path has entries that need a dictionary, and that.
fn needs_what_it_has(bench: &Bench) -> bool {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let Ok(file) = rusqlite::Connection::open_with_flags(bench.path(), flags) else { return false };
    let count = "SELECT count(*) FROM entries JOIN dictionaries
                 ON dictionaries.id = entries.dictionary";
    file.query_row(count, [], |row| row.get::<_, u64>(0)).is_ok_and(|count| count > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_gets_the_dictionary_with_the_first_entry_that_needs_it() {
    let bench = Bench::new();
    let cache = with(&bench, compressor(), false);
    store(&cache, 0..100).await;
    within(cache.train_dictionary("census")).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        drop(fs::remove_file(bench.path().with_extension(format!("db{suffix}"))));
    }
    within(async {
        // The tier notices that its file has gone, and makes another.
        for n in 100.. {
            store(&cache, n..n + 1).await;
            if needs_what_it_has(&bench) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let stored = usage(&cache).await[0].entries;
    close(cache).await;
    let cache = with(&bench, compressor(), false);
    let keys = within(cache.list_keys(10_000)).await.unwrap();
    assert_eq!(keys.len() as u64, stored);
    for key in keys {
        let hit = within(cache.get(&key)).await.unwrap().unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier("sqlite"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_dictionary_an_entry_is_damaged_and_a_check_says_so() {
    let bench = Bench::new();
    let cache = with(&bench, compressor(), false);
    store(&cache, 0..100).await;
    within(cache.train_dictionary("census")).await.unwrap();
    store(&cache, 100..110).await;
    let kinds = |found: &larder::Validation| {
        found.problems.iter().map(|one| (one.kind.to_string(), one.count)).collect::<Vec<_>>()
    };
    let check = async |cache: &Cache, repair| {
        let all = within(cache.validate(repair)).await.unwrap();
        all.into_iter().find(|(name, _)| *name == "sqlite").unwrap().1.unwrap()
    };
    let lose = || {
        let file = rusqlite::Connection::open(bench.path()).unwrap();
        assert_eq!(file.execute("DELETE FROM dictionaries", []).unwrap(), 1);
    };
    lose();
    // This process knows it, so nothing is lost.
    let found = check(&cache, false).await;
    assert_eq!(kinds(&found), [("dictionaries".to_owned(), 1)]);
    assert!(check(&cache, true).await.is_repaired());
    assert!(check(&cache, false).await.is_sound());
    close(cache).await;

    lose();
    let cache = with(&bench, compressor(), false);
    let found = check(&cache, false).await;
    assert_eq!(kinds(&found), [("entry".to_owned(), 10)]);
    has(&cache, 0..100).await;
    assert!(within(cache.get(&census(105))).await.unwrap().is_none(), "a miss, no more");
    let stats = cache.stats();
    let sqlite = stats.tiers.iter().find(|tier| tier.name == "sqlite").unwrap();
    assert_eq!((sqlite.corrupt, sqlite.errors), (1, 0));
    assert!(check(&cache, true).await.is_repaired());
    assert!(check(&cache, false).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_one_is_as_good_as_none() {
    let bench = Bench::new();
    let cache = with(&bench, compressor(), false);
    store(&cache, 0..100).await;
    within(cache.train_dictionary("census")).await.unwrap();
    store(&cache, 100..101).await;
    close(cache).await;
    let file = rusqlite::Connection::open(bench.path()).unwrap();
    let content: Vec<u8> =
        file.query_row("SELECT content FROM dictionaries", [], |row| row.get(0)).unwrap();
    for at in [5, 100, content.len() - 1] {
        let mut flipped = content.clone();
        flipped[at] ^= 4;
        file.execute("UPDATE dictionaries SET content = ?1", [&flipped]).unwrap();
        let cache = with(&bench, compressor(), false);
        let found = within(cache.validate(false)).await.unwrap();
        let (_, found) = found.into_iter().find(|(name, _)| *name == "sqlite").unwrap();
        let kinds: Vec<_> =
            found.unwrap().problems.iter().map(|one| (one.kind.to_string(), one.count)).collect();
        assert_eq!(kinds, [("entry".to_owned(), 1), ("dictionaries".to_owned(), 1)], "byte {at}");
        close(cache).await;
    }
    let cache = with(&bench, compressor(), false);
    within(cache.validate(true)).await.unwrap();
    assert_eq!(within(cache.dictionaries()).await.unwrap(), []);
    has(&cache, 0..100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_cannot_be_says_why() {
    let bench = Bench::new();
    let cache = with(&bench, compressor().dictionaries_of("off", false), false);
    store(&cache, 0..5).await;
    let error = within(cache.train_dictionary("census")).await.unwrap_err();
    assert!(matches!(error, DictionaryError::TooFew { found: 5, .. }), "{error}");
    let error = within(cache.train_dictionary("off")).await.unwrap_err();
    assert!(matches!(error, DictionaryError::Unused { .. }), "{error}");
    // Noise has nothing in common.
    for n in 0..60_u32 {
        let mut state = u64::from(n);
        let mut dice = || {
            // xorshift* (Vigna 2016): numbers that only have to be unlike.
            state ^= 0x9E37_79B9_7F4A_7C15;
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
        };
        let noise: Vec<u8> = (0..400).map(|_| dice()).collect();
        let key = key(&format!("noise:{n}"));
        within(cache.set(&key, noise, SetOptions::default())).await.unwrap();
    }
    let error = within(cache.train_dictionary("noise")).await.unwrap_err();
    assert!(matches!(error, DictionaryError::NoGain { .. }), "{error}");
    assert_eq!(within(cache.dictionaries()).await.unwrap(), []);
    let bare = bench.bare().tier(bench.memory()).build().unwrap();
    let error = within(bare.train_dictionary("census")).await.unwrap_err();
    assert!(matches!(error, DictionaryError::NoTier), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_they_are_off_they_are_only_read() {
    let bench = Bench::new();
    let cache = with(&bench, compressor(), false);
    store(&cache, 0..100).await;
    within(cache.train_dictionary("census")).await.unwrap();
    store(&cache, 100..110).await;
    close(cache).await;
    let cache = with(&bench, compressor().dictionaries(false), true);
    has(&cache, 100..110).await;
    store(&cache, 110..120).await;
    assert_eq!(entries_with_a_dictionary(&cache).await, 10);
}
