//! The file truncated, replaced, removed, or its log: noticed, set aside at most once an hour, and
//! never at the cost of somebody else's file.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cache_core::{Changes, ErrorKind, Inspect, Journal, Tier};
use tier_sqlite::SqliteTier;
use tracing::Level;

use crate::child::{Place, given_file};
use crate::support::{
    asides, assert_no_panics, beside, cause, clear, entry, file, fill, keeps, key, logged, make,
    open, options, plain, right, told, until, works, works_again,
};

const ROWS: u64 = 60;

/// What is done to a file, and how.
type Damage = (&'static str, fn(&Path));

/// Writes over a piece of the file.
fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn truncate(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// Has what was set aside look as if that were long ago.
fn age(path: &Path) {
    for aside in asides(path) {
        let name = aside.file_name().unwrap().to_str().unwrap();
        let (start, time) = name.rsplit_once('-').unwrap();
        let time = time.parse::<u64>().unwrap() - 3_601;
        for suffix in ["", "-wal", "-shm"] {
            let old = aside.with_file_name(format!("{start}-{time}{suffix}"));
            let moved = fs::rename(beside(&aside, suffix), old);
            assert!(moved.is_ok() || !suffix.is_empty(), "{moved:?}");
        }
    }
}

fn errors(path: &Path) -> Vec<String> {
    logged(Level::ERROR, path.to_str().unwrap())
}

/// A damaged file is set aside, said so once, and the tier goes on.
async fn is_set_aside(path: &Path, tier: &SqliteTier, what: &str) {
    right(tier, 0..ROWS).await;
    works(tier, 500).await.unwrap_or_else(|error| panic!("{what}: {:?}", told(&error)));
    let asides = asides(path);
    assert_eq!(asides.len(), 1, "{what}: {asides:?}");
    let errors = errors(path);
    assert_eq!(errors.len(), 1, "{what}: {errors:?}");
    assert!(errors[0].contains("the file is damaged and was set aside"), "{errors:?}");
    assert!(errors[0].contains(asides[0].to_str().unwrap()), "{errors:?}");
    let time: u64 = asides[0].to_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(time) < 300, "{what}: {time} is about {now}");
    assert_no_panics();
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_when_it_is_opened() {
    let damages: [Damage; 8] = [
        ("magic", |path| overwrite(path, 3, b"X")),
        ("page size", |path| overwrite(path, 16, &[0x10, 0x01])),
        ("first page", |path| overwrite(path, 0, &[0; 8_192])),
        ("100 bytes", |path| truncate(path, 100)),
        ("half", |path| truncate(path, fs::metadata(path).unwrap().len() / 2)),
        ("minus 4096", |path| truncate(path, fs::metadata(path).unwrap().len() - 4_096)),
        ("format", |path| overwrite(path, 60, &[0; 4])),
        ("application", |path| overwrite(path, 68, b"Mine")),
    ];
    for (what, damage) in damages {
        let (_dir, path) = file();
        make(&path, 0..ROWS).await;
        damage(&path);
        let bytes = fs::read(&path).unwrap();
        let tier = open(&path);
        is_set_aside(&path, &tier, what).await;
        assert_eq!(fs::read(&asides(&path)[0]).unwrap(), bytes, "{what}: kept as it was");
        tier.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_of_next_to_no_bytes_is_new() {
    for len in [0, 1] {
        let (_dir, path) = file();
        make(&path, 0..ROWS).await;
        truncate(&path, len);
        let tier = open(&path);
        assert_eq!(right(&tier, 0..ROWS).await, 0);
        works(&tier, 500).await.unwrap_or_else(|error| panic!("{len}: {:?}", told(&error)));
        assert_eq!(errors(&path), Vec::<String>::new());
        tier.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_without_its_last_byte_loses_what_was_there_at_most() {
    let (_dir, path) = file();
    make(&path, 0..ROWS).await;
    truncate(&path, fs::metadata(&path).unwrap().len() - 1);
    let tier = open(&path);
    right(&tier, 0..ROWS).await;
    works_again(&tier, 500).await;
    assert_eq!(right(&tier, [500]).await, 1);
    tier.close().await.unwrap();
    assert_no_panics();
}

#[tokio::test]
async fn a_file_truncated_under_an_open_tier_is_replaced_by_a_new_one() {
    for part in [0_u64, 1, 100, 8_192, 50_000] {
        let (_dir, path) = file();
        make(&path, 0..ROWS).await;
        let tier = open(&path);
        assert_eq!(right(&tier, 0..ROWS).await, 60);
        truncate(&path, part);
        works_again(&tier, 500).await;
        until("all is read, or missed, and more can be written", async || {
            tier.get_many(&(0..ROWS).map(key).collect::<Vec<_>>()).await.is_ok()
                && keeps(&tier, 501 + part).await.is_ok_and(|kept| kept)
        })
        .await;
        tier.close().await.unwrap();
        let tier = open(&path);
        right(&tier, 0..ROWS).await;
        works(&tier, 600).await.unwrap();
        assert!(asides(&path).len() <= 1, "{part}: {:?}", asides(&path));
        tier.close().await.unwrap();
    }
    assert_no_panics();
}

#[tokio::test]
async fn a_file_unlinked_under_an_open_tier_is_made_anew_within_the_poll_interval() {
    let (_dir, path) = file();
    let tier = open(&path);
    fill(&tier, 0..ROWS).await;
    assert_eq!(right(&tier, 0..ROWS).await, 60);
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(beside(&path, suffix)).unwrap();
    }
    until("it is noticed", async || right(&tier, 0..ROWS).await == 0).await;
    works_again(&tier, 500).await;
    assert!(path.exists());
    tier.close().await.unwrap();
    assert_eq!(errors(&path), Vec::<String>::new());
    let tier = open(&path);
    assert_eq!(right(&tier, 0..1_000).await, 1, "what was put then is in the new file");
    tier.close().await.unwrap();
}

#[tokio::test]
async fn a_file_replaced_by_another_of_ours_is_used_and_followers_are_told() {
    let (dir, path) = file();
    let new = dir.path().join("new.db");
    make(&new, 100..110).await;
    let tier = open(&path);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    tier.follow(Box::new(move |changes| heard.lock().unwrap().push(changes)));
    fill(&tier, 0..ROWS).await;
    // The keeper has looked at the first file.
    let other = open(&path);
    let mut n = 900;
    until("a change of another's is told", async || {
        n += 1;
        fill(&other, [n]).await;
        let told = told.lock().unwrap();
        told.iter().any(|changes| matches!(changes, Changes::Known(_)))
    })
    .await;
    other.close().await.unwrap();

    // As a program does that restores a backup.
    fs::remove_file(beside(&path, "-wal")).unwrap();
    fs::rename(&new, &path).unwrap();
    until("the new file is read", async || right(&tier, 100..110).await == 10).await;
    assert_eq!(right(&tier, 0..ROWS).await, 0);
    works(&tier, 500).await.unwrap();
    until("followers are told", async || told.lock().unwrap().contains(&Changes::Unknown)).await;
    tier.close().await.unwrap();
    assert_eq!(asides(&path), Vec::<PathBuf>::new());
}

/// Files that are not ours: text, another program's, with and without an application's number.
fn foreign(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let text = dir.join("text");
    fs::write(&text, "a diary, not a database. ".repeat(4_000)).unwrap();
    let short = dir.join("short");
    fs::write(&short, "short").unwrap();
    let tables = dir.join("tables");
    plain(&tables)
        .execute_batch("CREATE TABLE cache (key TEXT); INSERT INTO cache VALUES (1)")
        .unwrap();
    let numbered = dir.join("numbered");
    let number = "PRAGMA application_id = 77; CREATE TABLE entries (key TEXT)";
    plain(&numbered).execute_batch(number).unwrap();
    let damaged = dir.join("damaged");
    fs::copy(&numbered, &damaged).unwrap();
    overwrite(&damaged, 4_096, &[0; 4_096]);
    overwrite(&damaged, 100, &[7; 100]);
    // As a crash of that program leaves it: all of the table is in its log.
    let (live, crashed) = (dir.join("live"), dir.join("crashed"));
    let connection = plain(&live);
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch("CREATE TABLE theirs (key TEXT)").unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(beside(&live, suffix), beside(&crashed, suffix)).unwrap();
    }
    let files = [text, short, tables, numbered, damaged, crashed];
    files.into_iter().map(|file| (file.clone(), fs::read(&file).unwrap())).collect()
}

#[tokio::test]
async fn the_file_of_another_program_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    for (path, before) in foreign(dir.path()) {
        let log = fs::read(beside(&path, "-wal")).ok();
        let tier = open(&path);
        for _ in 0..3 {
            let error = tier.put(&key(1), &entry(1)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable, "{:?}", told(&error));
            assert!(cause(&error).contains("is left untouched"), "{:?}", told(&error));
            assert!(tier.get(&key(1)).await.is_err());
        }
        tier.close().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), before, "{}", path.display());
        assert_eq!(asides(&path), Vec::<PathBuf>::new());
        assert_eq!(fs::read(beside(&path, "-wal")).ok(), log, "{}", path.display());
        for suffix in ["-journal", ".healing"] {
            assert!(!beside(&path, suffix).exists(), "{}{suffix}", path.display());
        }
    }
}

#[tokio::test]
async fn a_file_replaced_by_another_programs_turns_the_tier_off() {
    let dir = tempfile::tempdir().unwrap();
    for (foreign, before) in foreign(dir.path()) {
        let path = dir.path().join("cache.db");
        let tier = open(&path);
        fill(&tier, 0..ROWS).await;
        fs::remove_file(beside(&path, "-wal")).unwrap();
        if beside(&foreign, "-wal").exists() {
            fs::rename(beside(&foreign, "-wal"), beside(&path, "-wal")).unwrap();
        }
        fs::rename(&foreign, &path).unwrap();
        let mut n = 500;
        until("it is noticed", async || {
            n += 1;
            let put = tier.put(&key(n), &entry(n)).await;
            put.is_err_and(|error| error.kind() == ErrorKind::Unusable)
        })
        .await;
        tier.close().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), before, "{}", foreign.display());
        assert_eq!(asides(&path), Vec::<PathBuf>::new());
        clear(&path);
    }
}

#[tokio::test]
async fn a_log_removed_under_an_open_tier_costs_what_was_in_it() {
    for removed in [&["-wal"][..], &["-wal", "-shm"], &["-shm"]] {
        let (_dir, path) = file();
        make(&path, 0..ROWS).await;
        let tier = open(&path);
        fill(&tier, 100..160).await;
        let warned = || logged(Level::WARN, path.to_str().unwrap()).len();
        // Who tells of others' changes has looked at the log before.
        let heard = Arc::new(Mutex::new(false));
        let note = Arc::clone(&heard);
        tier.follow(Box::new(move |_| *note.lock().unwrap() = true));
        let (other, mut n) = (open(&path), 700);
        until("a change of another's is told", async || {
            n += 1;
            fill(&other, [n]).await;
            *heard.lock().unwrap()
        })
        .await;
        other.close().await.unwrap();
        assert_eq!(right(&tier, 0..160).await, 120);
        for suffix in removed {
            fs::remove_file(beside(&path, suffix)).unwrap();
        }
        until("it is noticed", async || warned() > 0 || !asides(&path).is_empty()).await;
        until("what is put is in the file that others see", async || {
            let other = open(&path);
            let seen =
                keeps(&tier, 500).await.is_ok_and(|kept| kept) && right(&other, [500]).await == 1;
            other.close().await.unwrap();
            tier.remove(&key(500)).await.ok();
            seen
        })
        .await;
        let there = right(&tier, 0..160).await;
        assert!(there == 120 || removed.contains(&"-wal"), "an index is made anew: {there}");
        tier.close().await.unwrap();
        let tier = open(&path);
        right(&tier, 0..160).await;
        works(&tier, 600).await.unwrap();
        tier.close().await.unwrap();
    }
    assert_no_panics();
}

#[tokio::test]
async fn a_log_that_is_damaged_while_the_tier_is_closed_costs_what_was_in_it() {
    let damages: [Damage; 5] = [
        ("removed", |log| fs::remove_file(log).unwrap()),
        ("half", |log| truncate(log, fs::metadata(log).unwrap().len() / 2)),
        ("to its header", |log| truncate(log, 32)),
        ("garbled header", |log| overwrite(log, 0, &[0x55; 32])),
        ("garbled", |log| overwrite(log, 9_000, &[0x55; 9_000])),
    ];
    for (what, damage) in damages {
        for shm in [false, true] {
            let (dir, path) = file();
            make(&path, 0..ROWS).await;
            let tier = open(&path);
            fill(&tier, 100..160).await;
            // As a crash leaves them.
            let crashed = dir.path().join("crashed.db");
            for suffix in ["", "-wal", "-shm"] {
                if suffix != "-shm" || shm {
                    fs::copy(beside(&path, suffix), beside(&crashed, suffix)).unwrap();
                }
            }
            tier.close().await.unwrap();
            damage(&beside(&crashed, "-wal"));
            let tier = open(&crashed);
            assert_eq!(right(&tier, 0..ROWS).await, 60, "{what}");
            right(&tier, 100..160).await;
            works(&tier, 500).await.unwrap();
            tier.close().await.unwrap();
            assert_eq!(asides(&crashed), Vec::<PathBuf>::new(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_file_is_set_aside_at_most_once_an_hour() {
    let (_dir, path) = file();
    make(&path, 0..ROWS).await;
    overwrite(&path, 0, &[0; 8_192]);
    let tier = open(&path);
    is_set_aside(&path, &tier, "first").await;
    tier.close().await.unwrap();

    overwrite(&path, 0, &[0; 8_192]);
    let again = fs::read(&path).unwrap();
    let tier = open(&path);
    for _ in 0..3 {
        let error = tier.put(&key(1), &entry(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable, "{:?}", told(&error));
        let expected = "one like it was set aside as ";
        assert!(cause(&error).contains(expected), "{:?}", told(&error));
        assert!(cause(&error).contains("less than an hour ago"), "{:?}", told(&error));
        assert!(tier.get(&key(1)).await.is_err());
    }
    assert_eq!(asides(&path).len(), 1);
    assert_eq!(fs::read(&path).unwrap(), again, "it is left as it is");
    assert_eq!(errors(&path).len(), 1, "{:?}", errors(&path));

    age(&path);
    works(&tier, 500).await.unwrap();
    tier.close().await.unwrap();
    assert_eq!(asides(&path).len(), 2);
    assert_eq!(errors(&path).len(), 2, "{:?}", errors(&path));
}

#[tokio::test]
async fn tiers_that_meet_one_damaged_file_set_it_aside_once_and_go_on() {
    for round in 0..10 {
        let (_dir, path) = file();
        make(&path, 0..ROWS).await;
        let tiers: Vec<_> = (0..4).map(|_| open(&path)).collect();
        // Some have it open already.
        assert_eq!(right(&tiers[0], 0..ROWS).await, 60);
        assert_eq!(right(&tiers[1], 0..ROWS).await, 60);
        overwrite(&path, 8_192 * (round % 3), &vec![0x5A; 24_576]);
        std::thread::scope(|scope| {
            for (n, tier) in (0..).zip(&tiers) {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread();
                    let runtime = { runtime }.enable_all().build().unwrap();
                    runtime.block_on(works_again(tier, 500 + n));
                });
            }
        });
        for (n, tier) in (0..).zip(&tiers) {
            works_again(tier, 600 + n).await;
        }
        until("all see what any has put", async || {
            let mut all = true;
            for tier in &tiers {
                all &= right(tier, 600..604).await == 4;
            }
            all
        })
        .await;
        for tier in tiers {
            tier.close().await.unwrap();
        }
        assert!(asides(&path).len() <= 1, "{:?}", asides(&path));
        assert_eq!(errors(&path).len(), asides(&path).len());
    }
    assert_no_panics();
}

#[tokio::test]
#[ignore = "another test runs it several times at once"]
async fn child_goes_on() {
    let Some(path) = given_file() else { return };
    let (tier, n) = (open(&path), 10_000 + u64::from(std::process::id()));
    works_again(&tier, n).await;
    until("what is put stays", async || {
        right(&tier, [n]).await == 1 || {
            works_again(&tier, n).await;
            false
        }
    })
    .await;
    tier.close().await.unwrap();
    assert_no_panics();
}

#[tokio::test]
async fn processes_that_meet_one_damaged_file_set_it_aside_once_and_go_on() {
    let place = Place::new();
    let path = place.file();
    make(&path, 0..ROWS).await;
    let tier = open(&path);
    assert_eq!(right(&tier, 0..ROWS).await, 60);
    overwrite(&path, 0, &[0x5A; 8_192]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| place.run_beside("file::child_goes_on"));
        }
    });
    works_again(&tier, 500).await;
    let entries = tier.usage().await.unwrap().total().entries;
    assert_eq!(entries, 5, "all have put into one file");
    assert_eq!(asides(&path).len(), 1);
    tier.close().await.unwrap();
}

#[tokio::test]
async fn the_log_is_set_aside_with_its_file() {
    let (_dir, path) = file();
    let tier = open(&path);
    fill(&tier, 0..ROWS).await;
    let log = fs::read(beside(&path, "-wal")).unwrap();
    let file = fs::read(&path).unwrap();
    tier.close().await.unwrap();
    let mut damaged = file;
    damaged[..100].fill(0xA5);
    // All that says whose the file is was in the log, whose header is damaged, too.
    let mut garbled = log;
    garbled[..32].fill(0xA5);
    fs::write(&path, &damaged).unwrap();
    fs::write(beside(&path, "-wal"), &garbled).unwrap();
    let tier = SqliteTier::new(options(&path).poll_interval(Duration::from_hours(1))).unwrap();
    works_again(&tier, 500).await;
    let aside = asides(&path).pop().unwrap();
    assert_eq!(fs::read(&aside).unwrap(), damaged);
    assert_eq!(fs::read(beside(&aside, "-wal")).unwrap(), garbled);
    tier.close().await.unwrap();
}
