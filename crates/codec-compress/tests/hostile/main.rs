//! Frames that are damaged, made up or declared wrongly give an error or the right bytes, in
//! bounded memory.
//!
//! One exception is zlib's own: its checksum, Adler-32, does not tell `547` from `709`. About one
//! frame in a million becomes one that every program reads as other bytes. They are counted and
//! bounded; tiers have a checksum of their own around what they store.
//!
//! `LARDER_FUZZ_FRAMES` and `LARDER_FUZZ_FIRST` say how many there are, and the seed of the first;
//! the others follow. The long form is `cargo xtask fuzz`.
#![expect(clippy::unwrap_used, reason = "what a test prepares works, or the test fails")]

#[path = "../it/documents.rs"]
mod documents;
mod frames;

use std::{
    fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

use cache_core::{CodecError, CodecId, Compression, Dictionary, DictionaryId};
use codec_compress::Compressor;

use tier_testkit::Dice;

use crate::{
    documents::compressor,
    frames::{Corpus, Frame, LIMIT},
};

/// As many as a test that is run all the time has time for.
const FRAMES: u64 = 20_000;

/// What may be allocated beside the value: zlib's state, and the words of an error.
const BESIDE: u64 = 64 << 10;

/// Every so many-th frame is read with a dictionary that is damaged.
const DAMAGED_DICTIONARY: u64 = 64;

/// How far the process may grow, which counts what the C library allocates, too: contexts of each
/// thread, and of dictionaries.
const GROWTH_KB: u64 = 64 << 10;

/// What became of the frames.
#[derive(Debug, Default)]
struct Tally {
    frames: u64,
    right: u64,
    corrupt: u64,
    too_large: u64,
    unknown: u64,
    missing: u64,
    bad_dictionaries: u64,
    /// Wrong bytes that zlib's checksum fits.
    same_adler: u64,
    /// In bytes, for one frame.
    most_allocated: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.right += other.right;
        self.corrupt += other.corrupt;
        self.too_large += other.too_large;
        self.unknown += other.unknown;
        self.missing += other.missing;
        self.bad_dictionaries += other.bad_dictionaries;
        self.same_adler += other.same_adler;
        self.most_allocated = self.most_allocated.max(other.most_allocated);
    }

    fn error(&mut self, error: &CodecError) -> Result<(), String> {
        *match error {
            CodecError::Corrupt { .. } => &mut self.corrupt,
            CodecError::TooLarge { .. } => &mut self.too_large,
            CodecError::UnknownCodec(_) => &mut self.unknown,
            CodecError::MissingDictionary(_) => &mut self.missing,
            CodecError::BadDictionary { .. } => &mut self.bad_dictionaries,
            other => return Err(format!("unexpected: {other}")),
        } += 1;
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, right, corrupt, too_large, unknown, missing, .. } = self;
        let errors = frames - right - self.same_adler;
        write!(
            f,
            "{frames} frames: {right} right, {errors} errors ({corrupt} corrupt, {too_large} too \
             large, {unknown} of an unknown codec, {missing} without their dictionary, {} with a \
             damaged one that was refused), {} wrong to which zlib's checksum fits; greatest \
             allocation {} bytes",
            self.bad_dictionaries, self.same_adler, self.most_allocated
        )
    }
}

/// Reads the frame of this seed; says what is wrong with the answer.
fn check(reader: &Compressor, corpus: &Corpus, seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let frame = corpus.frame(&mut dice);
    tally.frames += 1;
    if seed.is_multiple_of(DAMAGED_DICTIONARY) {
        return with_damaged_dictionary(corpus, &mut dice, tally);
    }
    let mut read = None;
    let allocated = allocation_counter::measure(|| {
        read = Some(reader.unpack("census", frame.form, &frame.stored, LIMIT));
    })
    .bytes_max;
    tally.most_allocated = tally.most_allocated.max(allocated);
    let bound = if frame.form.raw_len > LIMIT { 0 } else { frame.form.raw_len } + BESIDE;
    if allocated > bound {
        return Err(format!("{allocated} bytes allocated for {frame:?}"));
    }
    match read.unwrap() {
        Ok(raw) if corpus.is_right(&frame, &raw) => tally.right += 1,
        Ok(raw) if frame.form.codec == CodecId::ZLIB && adler(&raw) == adler(&frame.raw) => {
            tally.same_adler += 1;
        }
        Ok(raw) => return Err(format!("{} wrong bytes for {frame:?}", raw.len())),
        Err(error) if frame.untouched => return Err(format!("{error} for a good {frame:?}")),
        Err(error) => tally.error(&error)?,
    }
    Ok(())
}

/// A damaged dictionary is refused, or what was made with the good one cannot be read with it.
fn with_damaged_dictionary(
    corpus: &Corpus,
    dice: &mut Dice,
    tally: &mut Tally,
) -> Result<(), String> {
    let reader = compressor();
    let mut content = corpus.dictionary.content.to_vec();
    frames::damage(&mut content, &corpus.dictionary.content, dice);
    // With the right number it is looked at closely.
    if let Some(number) = content.get_mut(..8) {
        number.copy_from_slice(&corpus.dictionary.content[..8]);
    }
    let damaged = Dictionary { content: content.into(), ..corpus.dictionary.clone() };
    if let Err(error) = reader.learn(&damaged) {
        return tally.error(&error);
    }
    let Frame { form, stored, raw, .. } = corpus.with_dictionary(dice);
    match reader.unpack("census", form, &stored, LIMIT) {
        Ok(read) if read == raw => tally.right += 1,
        Ok(_) => return Err("wrong bytes by a damaged dictionary".to_owned()),
        Err(error) => tally.error(&error)?,
    }
    // Compressing with it is no better, but what is compressed can be read with it.
    let raw = documents::table(1_000, dice.throw());
    if let Some(packed) = reader.pack("census", &raw) {
        let read = reader.unpack("census", packed.form, &packed.bytes, LIMIT);
        if !matches!(&read, Ok(read) if *read == raw) {
            return Err(format!("{read:?} of what a damaged dictionary compressed"));
        }
    }
    Ok(())
}

#[test]
fn hostile_frames() {
    let frames = variable("LARDER_FUZZ_FRAMES").unwrap_or(FRAMES);
    let first = variable("LARDER_FUZZ_FIRST").unwrap_or(1);
    println!("LARDER_FUZZ_FIRST={first} LARDER_FUZZ_FRAMES={frames}");
    let corpus = Corpus::new();
    // From here on the peak counts anew, where the system can do that.
    let before = fs::write("/proc/self/clear_refs", "5").ok().and_then(|()| peak_kb());
    let next = AtomicU64::new(0);
    let work = || {
        let reader = compressor();
        reader.learn(&corpus.dictionary).unwrap();
        let mut tally = Tally::default();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= frames {
                return tally;
            }
            let seed = first.wrapping_add(n);
            let checked = catch_unwind(AssertUnwindSafe(|| {
                check(&reader, &corpus, seed, &mut tally)
                    .map_err(|wrong| format!("{seed}: {wrong}"))
            }));
            checked.unwrap_or_else(|_| panic!("seed {seed} panicked")).unwrap();
        }
    };
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            tally.add(&worker.join().unwrap());
        }
    });
    println!("{tally}");
    let bound = 1 + frames / 200_000;
    assert!(tally.same_adler <= bound, "more than chance explains: {tally:?}");
    assert_eq!(tally.frames, frames);
    if let (Some(before), Some(after)) = (before, peak_kb()) {
        let grown = after.saturating_sub(before);
        println!("the process had {before} KiB and grew by {grown} KiB at most");
        assert!(grown <= GROWTH_KB, "{grown} KiB, from {before} to {after}");
    }
    if frames >= FRAMES {
        let all = [tally.right, tally.corrupt, tally.too_large, tally.unknown, tally.missing];
        assert!(all.iter().all(|&count| count > frames / 1_000), "each kind occurs: {tally:?}");
        assert!(tally.bad_dictionaries > 0, "{tally:?}");
    }
}

#[test]
fn numbers_of_no_dictionary_are_missing_or_corrupt() {
    let corpus = Corpus::new();
    let Frame { form, stored, .. } = corpus.with_dictionary(&mut Dice::new(1));
    let stranger = compressor();
    for id in [1, form.dictionary.0 - 1, form.dictionary.0, u32::MAX] {
        let form = cache_core::Form { dictionary: DictionaryId(id), ..form };
        let read = stranger.unpack("census", form, &stored, LIMIT);
        assert!(matches!(read, Err(CodecError::MissingDictionary(missing)) if missing.0 == id));
    }
}

/// The checksum of zlib (RFC 1950, 8.2).
fn adler(raw: &[u8]) -> u32 {
    let sum = |(a, b): (u32, u32), byte: &u8| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    };
    let (a, b) = raw.iter().fold((1, 0), sum);
    b << 16 | a
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// The most memory that this process has had so far; where it can be told.
fn peak_kb() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
