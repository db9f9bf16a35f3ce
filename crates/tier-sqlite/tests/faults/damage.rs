//! Bytes that are not what was written: each answer is right or a miss.

use std::{collections::BTreeMap, fs, ops::Range, path::Path};

use cache_core::{Inspect, Key, Tier};

use tier_testkit::Dice;

use crate::support::{
    asides, assert_no_panics, beside, cause, clear, entry, file_in_memory, fill, key, make, open,
    plain, right, works,
};

/// Rows of a file: few, since each round opens one and reads all of it. There are many files.
const ROWS: u64 = 30;
const FILES: u64 = 10;

/// What was seen of damage, in how many rounds.
#[derive(Default, Debug)]
struct Seen {
    rounds: u32,
    /// With a row that was missed, or a file set aside.
    noticed: u32,
    set_aside: u32,
    damaged_rows: u64,
    errors: BTreeMap<String, u32>,
}

impl Seen {
    /// Opens the file as it is now, which had these entries, and reads all of it.
    async fn look(&mut self, path: &Path, of: Range<u64>, what: &str) {
        self.rounds += 1;
        let tier = open(path);
        let mut numbers: Vec<u64> = of.collect();
        // Not always from the same end: the first damage that is met may set the file aside.
        let by = self.rounds as usize % numbers.len();
        numbers.rotate_left(by);
        let keys: Vec<Key> = numbers.iter().copied().map(key).collect();
        let mut missed = false;
        match tier.get_many(&keys).await {
            Ok(found) => {
                for (n, found) in numbers.into_iter().zip(found) {
                    match found {
                        Some(found) => assert_eq!(found, entry(n), "row {n} after {what}"),
                        None => missed = true,
                    }
                }
            }
            Err(error) => self.error("get", what, &error),
        }
        // Every now and then also what writes, or looks at other tables.
        if self.rounds.is_multiple_of(4) {
            let (new, put) = (key(1_000_000), entry(1_000_000));
            match tier.put(&new, &put).await {
                // What is done after the answer may find the damage, and set the file aside.
                Ok(_) => match tier.get(&new).await {
                    Ok(found) => assert!(found.is_none_or(|found| found == put), "{what}"),
                    Err(error) => self.error("get", what, &error),
                },
                Err(error) => self.error("put", what, &error),
            }
            if let Err(error) = tier.usage().await {
                self.error("usage", what, &error);
            }
        }
        tier.close().await.unwrap();
        let set_aside = !asides(path).is_empty();
        self.damaged_rows += tier.corrupt_rows();
        self.set_aside += u32::from(set_aside);
        self.noticed += u32::from(missed || set_aside || tier.corrupt_rows() > 0);
        clear(path);
    }

    fn error(&mut self, op: &str, what: &str, error: &cache_core::Error) {
        let text = format!("{op}: {}: {}: {what}", error.kind(), cause(error));
        *self.errors.entry(text).or_default() += 1;
    }
}

/// What a sound file has in it, and which entries those are.
async fn files(path: &Path) -> Vec<(Vec<u8>, Range<u64>)> {
    let mut files = Vec::new();
    for n in 0..FILES {
        let rows = n * ROWS..(n + 1) * ROWS;
        make(path, rows.clone()).await;
        files.push((fs::read(path).unwrap(), rows));
        clear(path);
    }
    files
}

/// Half as many flipped bits as are to be tried: two tests share them, to use two processors.
const FLIPS: u32 = 5_000;
const PAGE: usize = 8_192;

/// Flips one bit at a time, mostly of bytes that are in use.
async fn flips(start: u64) -> Seen {
    let (_dir, path) = file_in_memory();
    let files = files(&path).await;
    let (mut dice, mut seen) = (Dice::new(start), Seen::default());
    for round in 0..FLIPS {
        let (sound, rows) = &files[dice.below(FILES as usize)];
        let mut at = dice.below(sound.len());
        while !round.is_multiple_of(4) && sound[at] == 0 {
            at = dice.below(sound.len());
        }
        let bit = dice.below(8);
        let mut flipped = sound.clone();
        flipped[at] ^= 1 << bit;
        fs::write(&path, &flipped).unwrap();
        seen.look(&path, rows.clone(), &format!("bit {bit} of byte {at} of {}", sound.len())).await;
    }
    seen
}

impl Seen {
    /// That most damage was noticed, and nothing failed or panicked.
    fn check(&self, noticed: u32, set_aside: u32) {
        // Who cannot tell a damaged file from one of a newer format reads on, and does not write.
        assert!(self.errors.keys().all(|error| error.starts_with("put: refused:")), "{self:#?}");
        assert!(self.noticed >= noticed && self.set_aside >= set_aside, "{self:#?}");
        assert_no_panics();
    }
}

#[tokio::test]
async fn five_thousand_flipped_bits_give_right_answers_or_misses() {
    flips(1).await.check(FLIPS / 2, FLIPS / 100);
}

#[tokio::test]
async fn another_five_thousand_flipped_bits_do_so_too() {
    flips(2).await.check(FLIPS / 2, FLIPS / 100);
}

/// What no single bit of 10,000 need hit.
#[tokio::test]
async fn every_bit_of_the_header_gives_right_answers_or_misses() {
    let (_dir, path) = file_in_memory();
    make(&path, 0..ROWS).await;
    let sound = fs::read(&path).unwrap();
    let mut seen = Seen::default();
    for bit in 0..100 * 8 {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        seen.look(&path, 0..ROWS, &format!("bit {} of byte {}", bit % 8, bit / 8)).await;
    }
    seen.check(200, 200);
}

#[tokio::test]
async fn seven_hundred_zeroed_pages_give_right_answers_or_misses() {
    let (_dir, path) = file_in_memory();
    let files = files(&path).await;
    let (mut dice, mut seen) = (Dice::new(3), Seen::default());
    for _ in 0..700 {
        let (sound, rows) = &files[dice.below(FILES as usize)];
        let page = dice.below(sound.len() / PAGE);
        let mut zeroed = sound.clone();
        zeroed[page * PAGE..(page + 1) * PAGE].fill(0);
        fs::write(&path, &zeroed).unwrap();
        seen.look(&path, rows.clone(), &format!("zeroed page {page}")).await;
    }
    seen.check(200, 100);
}

#[tokio::test]
async fn three_hundred_zeroed_pages_of_a_log_give_right_answers_or_misses() {
    let (_dir, path) = file_in_memory();
    let mut files = Vec::new();
    for n in 0..FILES {
        let rows = n * ROWS..(n + 1) * ROWS;
        let tier = open(&path);
        for n in rows.clone() {
            assert!(tier.put(&key(n), &entry(n)).await.unwrap().is_stored());
        }
        // As after a crash: nothing was moved from the log to the file.
        let (file, log) = (fs::read(&path).unwrap(), fs::read(beside(&path, "-wal")).unwrap());
        assert!(log.len() > 20 * PAGE, "{}", log.len());
        tier.close().await.unwrap();
        files.push((file, log, rows));
        clear(&path);
    }
    let (mut dice, mut seen) = (Dice::new(4), Seen::default());
    for _ in 0..300 {
        let (file, log, rows) = &files[dice.below(FILES as usize)];
        let page = dice.below(log.len() / PAGE);
        let mut zeroed = log.clone();
        zeroed[page * PAGE..(page + 1) * PAGE].fill(0);
        fs::write(&path, file).unwrap();
        fs::write(beside(&path, "-wal"), &zeroed).unwrap();
        seen.look(&path, rows.clone(), &format!("zeroed piece {page} of the log")).await;
    }
    // A log counts up to the first frame that is not sound.
    seen.check(200, 0);
}

/// What is swapped between two rows; their numbers stay.
const SWAPS: [&str; 10] = [
    "value",
    "value, codec, raw_len",
    "value, checksum, codec, raw_len",
    "checksum",
    "expires_at, stale_until",
    "version, etag",
    "tags",
    "flags, as_of, loaded_at",
    "key",
    "content_type, source_last_modified, source",
];

#[tokio::test]
async fn a_thousand_swapped_rows_give_right_answers_or_misses() {
    let (_dir, path) = file_in_memory();
    let tier = open(&path);
    fill(&tier, 0..300).await;
    let (mut dice, mut misses) = (Dice::new(5), 0);
    let other = plain(&path);
    for round in 0..1_000 {
        let a = dice.throw() % 300;
        let b = (a + 1 + dice.throw() % 299) % 300;
        let columns = dice.pick(&SWAPS);
        let (of_a, of_b) = (key(a), key(b));
        other
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS temp.old;
                 CREATE TEMP TABLE old AS SELECT * FROM entries WHERE key IN ('{of_a}', '{of_b}');
                 UPDATE entries SET ({columns}) =
                     (SELECT {columns} FROM temp.old WHERE old.id <> entries.id)
                 WHERE id IN (SELECT id FROM temp.old)"
            ))
            .unwrap();
        misses += 2 - right(&tier, [a, b]).await;
        // The damaged ones are removed, behind what is queued; a row whose key is another's is not.
        tier.remove_many(&[of_a.clone(), of_b.clone()]).await.unwrap();
        other
            .execute("DELETE FROM entries WHERE key IN (?1, ?2)", (of_a.as_str(), of_b.as_str()))
            .unwrap();
        fill(&tier, [a, b]).await;
        if round % 100 == 0 {
            assert_eq!(right(&tier, 0..300).await, 300);
            works(&tier, 1_000 + round).await.unwrap();
        }
    }
    assert!(misses > 1_000, "{misses}");
    assert!(tier.corrupt_rows() > 1_000, "{}", tier.corrupt_rows());
    assert_eq!(asides(&path), Vec::<std::path::PathBuf>::new(), "the file is sound");
    assert_no_panics();
}
