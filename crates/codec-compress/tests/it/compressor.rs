//! Which value is compressed how, what is read back, and what is counted.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use cache_core::{
    Codec, CodecError, CodecId, CodecStats, Compression, Dictionary, DictionaryId, Form, Packed,
};
use codec_compress::{Compressor, DICTIONARY_THRESHOLD};
use tracing::span;

use crate::documents::{compressor, dictionary, noise, table, zlib, zstd};

const LIMIT: u64 = 64 << 20;

/// The form in which a value is stored, which is read back on the way.
fn packed(compressor: &Compressor, source: &str, raw: &[u8]) -> Option<Packed> {
    let packed = compressor.pack(source, raw)?;
    assert!(packed.bytes.len() * 100 <= raw.len() * 95);
    assert_eq!(packed.form.raw_len, raw.len() as u64);
    assert_eq!(compressor.unpack(source, packed.form, &packed.bytes, LIMIT).unwrap(), raw);
    Some(packed)
}

fn codec(compressor: &Compressor, source: &str, raw: &[u8]) -> CodecId {
    packed(compressor, source, raw).map_or(CodecId::RAW, |packed| packed.form.codec)
}

fn used(compressor: &Compressor, source: &str, raw: &[u8]) -> Option<DictionaryId> {
    packed(compressor, source, raw).map(|packed| packed.form.dictionary)
}

/// Statistics of a source and dictionary.
fn stats(compressor: &Compressor, source: &str, dictionary: DictionaryId) -> CodecStats {
    let found = |(with, _): &(cache_core::CodecUse, _)| {
        &*with.source == source && with.dictionary == dictionary
    };
    compressor.stats().into_iter().find(found).map(|(_, stats)| stats).unwrap_or_default()
}

#[test]
fn a_new_one_compresses_nothing_and_reads_everything() {
    let new = Compressor::default();
    let raw = table(20_000, 1);
    assert_eq!(new.pack("census", &raw), None);
    assert!(!new.uses_dictionaries("census"));
    for codec in [zlib(9) as Arc<dyn Codec>, zstd(19)] {
        let written = Compressor::new().codec(codec, 0).pack("census", &raw).unwrap();
        assert_eq!(new.unpack("census", written.form, &written.bytes, LIMIT).unwrap(), raw);
    }
}

#[test]
fn values_are_compressed_from_the_threshold_on_by_their_sources_codec() {
    let compressor = Compressor::new()
        .codec(zstd(1), 1_000)
        .source("old", Some((zlib(6), 2_000)))
        .source("images", None);
    let all: &[u8] = &table(5_000, 1);
    for (source, threshold, id) in [("census", 1_000, CodecId::ZSTD), ("old", 2_000, CodecId::ZLIB)]
    {
        assert_eq!(codec(&compressor, source, &all[..threshold - 1]), CodecId::RAW);
        assert_eq!(codec(&compressor, source, &all[..threshold]), id);
    }
    assert_eq!(codec(&compressor, "images", all), CodecId::RAW);
    assert!(compressor.uses_dictionaries("census"));
    assert!(!compressor.uses_dictionaries("old") && !compressor.uses_dictionaries("images"));
}

#[test]
fn small_values_are_compressed_with_the_sources_dictionary() {
    let dictionary = dictionary("census", 1);
    let compressor = compressor().source("old", Some((zlib(6), 100)));
    let raw = table(1_000, 999);
    assert_eq!(used(&compressor, "census", &raw), None, "below the threshold");
    compressor.learn(&dictionary).unwrap();
    assert_eq!(used(&compressor, "census", &raw), Some(dictionary.id));
    assert_eq!(used(&compressor, "census", &raw[..DICTIONARY_THRESHOLD]), Some(dictionary.id));
    assert_eq!(used(&compressor, "census", &raw[..DICTIONARY_THRESHOLD - 1]), None);
    assert_eq!(used(&compressor, "labor", &raw), None, "it is another source's");
    assert_eq!(used(&compressor, "old", &raw), Some(DictionaryId::NONE), "zlib has none");
    let large = table(40_000, 1);
    assert_eq!(used(&compressor, "census", &large[..16 << 10]), Some(dictionary.id));
    assert_eq!(used(&compressor, "census", &large[..=16 << 10]), Some(DictionaryId::NONE));
    let none_larger = Compressor::new().codec(zstd(1), 30_000);
    none_larger.learn(&dictionary).unwrap();
    assert_eq!(used(&none_larger, "census", &large[..29_999]), Some(dictionary.id));
    assert_eq!(used(&none_larger, "census", &large[..30_000]), Some(DictionaryId::NONE));
    assert_eq!(compressor.dictionary(dictionary.id), Some(dictionary));
}

#[test]
fn dictionaries_may_be_off_and_are_still_read() {
    let dictionary = dictionary("census", 1);
    let on = compressor();
    on.learn(&dictionary).unwrap();
    let raw = table(1_000, 999);
    let written = packed(&on, "census", &raw).unwrap();
    let off = compressor().dictionaries(false);
    assert!(!off.uses_dictionaries("census"));
    off.learn(&dictionary).unwrap();
    assert_eq!(off.pack("census", &raw), None);
    assert_eq!(off.unpack("census", written.form, &written.bytes, LIMIT).unwrap(), raw);
}

#[test]
fn the_last_version_is_written_with_and_all_are_read_with() {
    let [one, two, three] = [1, 2, 3].map(|version| dictionary("census", version));
    let compressor = compressor();
    let raw = table(1_000, 999);
    let mut written = Vec::new();
    for (learnt, expected) in [(&two, &two), (&one, &two), (&three, &three), (&two, &three)] {
        compressor.learn(learnt).unwrap();
        let packed = packed(&compressor, "census", &raw).unwrap();
        assert_eq!(packed.form.dictionary, expected.id);
        written.push(packed);
    }
    for packed in written {
        assert_eq!(compressor.unpack("census", packed.form, &packed.bytes, LIMIT).unwrap(), raw);
    }
}

#[test]
fn a_level_chosen_after_a_dictionary_was_used_holds() {
    let dictionary = dictionary("census", 1);
    let fast = compressor();
    fast.learn(&dictionary).unwrap();
    let raw = table(8_000, 999);
    let fast_len = packed(&fast, "census", &raw).unwrap().bytes.len();
    let thorough = fast.codec(zstd(19), 10 << 10);
    let thorough_len = packed(&thorough, "census", &raw).unwrap().bytes.len();
    assert!(thorough_len < fast_len, "{thorough_len} of {fast_len}");
}

#[test]
fn dictionaries_that_are_none_are_refused() {
    let good = dictionary("census", 1);
    let compressor = compressor();
    let refused = |dictionary: &Dictionary| match compressor.learn(dictionary).unwrap_err() {
        CodecError::BadDictionary { id, reason } => {
            assert_eq!(id, dictionary.id);
            reason
        }
        other => panic!("{other}"),
    };
    let with = |content: Vec<u8>| Dictionary { content: content.into(), ..good.clone() };
    assert!(refused(&with(Vec::new())).contains("no dictionary"));
    assert!(refused(&with(b"Metro Area".repeat(100))).contains("no dictionary"));
    assert!(refused(&with(good.content[..60].to_vec())).contains("could not load"));
    assert!(refused(&with([good.content.to_vec(), vec![0; 1 << 20]].concat())).contains("1 MiB"));
    let other = Dictionary { id: DictionaryId(good.id.0 + 1), ..good.clone() };
    assert!(refused(&other).contains("another number"));
    assert!(refused(&Dictionary { id: DictionaryId::NONE, ..good.clone() }).contains("another"));
    assert_eq!(compressor.dictionary(good.id), None, "nothing of these stayed");

    compressor.learn(&good).unwrap();
    compressor.learn(&good).unwrap();
    let longer = with([&good.content[..], b"..."].concat());
    assert!(refused(&longer).contains("another one of its number"));
    assert_eq!(compressor.dictionary(good.id), Some(good));
}

#[test]
fn what_cannot_be_read_says_why() {
    let dictionary = dictionary("census", 1);
    let writer = compressor();
    writer.learn(&dictionary).unwrap();
    let small = packed(&writer, "census", &table(1_000, 999)).unwrap();
    let large = packed(&writer, "census", &table(1 << 20, 1)).unwrap();

    let reader = compressor();
    let missing = reader.unpack("census", small.form, &small.bytes, LIMIT);
    assert!(matches!(missing, Err(CodecError::MissingDictionary(id)) if id == dictionary.id));
    let unknown = Form { codec: CodecId(77), ..large.form };
    let unknown = reader.unpack("census", unknown, &large.bytes, LIMIT);
    assert!(matches!(unknown, Err(CodecError::UnknownCodec(CodecId(77)))));

    reader.learn(&dictionary).unwrap();
    let corrupt = |form: Form, stored: &[u8]| {
        let read = reader.unpack("census", form, stored, LIMIT);
        assert!(matches!(read, Err(CodecError::Corrupt { .. })), "{form:?}: {read:?}");
    };
    let with = dictionary.id;
    let without = DictionaryId::NONE;
    corrupt(Form { dictionary: without, ..small.form }, &small.bytes);
    corrupt(Form { dictionary: with, ..large.form }, &large.bytes);
    corrupt(Form { codec: CodecId::ZLIB, ..small.form }, &small.bytes);
    corrupt(Form { codec: CodecId::RAW, ..small.form }, &small.bytes);
    corrupt(Form { codec: CodecId::ZLIB, ..large.form }, &large.bytes);
    corrupt(Form { codec: CodecId::RAW, ..large.form }, &large.bytes);
    for raw_len in [0, 1, small.form.raw_len - 1, small.form.raw_len + 1, LIMIT] {
        corrupt(Form { raw_len, ..small.form }, &small.bytes);
    }
    for end in 0..small.bytes.len() {
        corrupt(small.form, &small.bytes[..end]);
    }
    corrupt(small.form, &small.bytes.repeat(2));
    for codec in [CodecId::RAW, CodecId::ZLIB, CodecId::ZSTD, CodecId(77)] {
        for dictionary in [with, without] {
            let form = Form { codec, dictionary, raw_len: LIMIT + 1 };
            let refused = reader.unpack("census", form, &small.bytes, LIMIT);
            assert!(
                matches!(refused, Err(CodecError::TooLarge { declared, .. }) if declared == LIMIT + 1)
            );
        }
    }
}

#[test]
fn stored_raw_is_read_raw() {
    let form = Form { codec: CodecId::RAW, dictionary: DictionaryId::NONE, raw_len: 3 };
    assert_eq!(compressor().unpack("census", form, b"raw", 3).unwrap(), "raw");
}

#[test]
fn what_is_done_is_counted_by_source_codec_and_dictionary() {
    let dictionary = dictionary("census", 1);
    let compressor = compressor().source("old", Some((zlib(6), 100)));
    compressor.learn(&dictionary).unwrap();
    let (small, large) = (table(1_000, 1), table(1 << 20, 1));
    let mut stored = 0;
    for _ in 0..3 {
        stored += packed(&compressor, "census", &small).unwrap().bytes.len() as u64;
    }
    packed(&compressor, "census", &large).unwrap();
    packed(&compressor, "old", &small).unwrap();
    assert_eq!(compressor.pack("census", &noise(1_000, 1)), None);
    assert_eq!(compressor.pack("census", &noise(100, 1)), None, "not tried, not counted");

    let uses: Vec<_> = compressor.stats().into_iter().map(|(with, _)| with).collect();
    assert_eq!(uses.len(), 3);
    assert!(uses.is_sorted());
    let with = stats(&compressor, "census", dictionary.id);
    assert_eq!((with.packed, with.unpacked, with.kept_raw, with.failed), (3, 3, 1, 0));
    assert_eq!((with.raw_bytes, with.stored_bytes), (3 * small.len() as u64, stored));
    assert!(!with.pack_time.is_zero() && !with.unpack_time.is_zero());
    let without = stats(&compressor, "census", DictionaryId::NONE);
    assert_eq!((without.packed, without.raw_bytes), (1, large.len() as u64));
    assert_eq!(stats(&compressor, "old", DictionaryId::NONE).packed, 1);
}

/// Fails, and is not one of Larder's own.
#[derive(Debug)]
struct Foreign;

impl Codec for Foreign {
    fn id(&self) -> CodecId {
        CodecId(200)
    }

    fn name(&self) -> &'static str {
        "foreign"
    }

    fn encode(&self, raw: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        let half = raw.len() / 2;
        if raw[..half] == raw[half..] {
            Ok(Some(raw[..half].to_vec()))
        } else {
            Err(CodecError::Encode { codec: "foreign", reason: "no half".to_owned() })
        }
    }

    fn decode(&self, stored: &[u8], _: u64, _: u64) -> Result<Vec<u8>, CodecError> {
        Ok(stored.repeat(2))
    }
}

#[test]
fn a_codec_that_fails_leaves_values_as_they_are_and_says_so_once() {
    let log = Log::default();
    let compressor = Compressor::new().codec(Arc::new(Foreign), 0);
    tracing::subscriber::with_default(log.clone(), || {
        for source in ["census", "census", "labor", "census", "labor"] {
            assert_eq!(compressor.pack(source, b"not the same"), None);
        }
    });
    assert_eq!(stats(&compressor, "census", DictionaryId::NONE).failed, 3);
    assert_eq!(stats(&compressor, "labor", DictionaryId::NONE).failed, 2);
    let lines = log.0.lock().unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, source) in lines.iter().zip(["census", "labor"]) {
        assert!(line.contains("WARN") && line.contains(source), "{line}");
        assert!(line.contains("no half") && line.contains("codec 200"), "{line}");
    }
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
            write!(line, " {field}={value:?}").unwrap();
        });
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn foreign_codecs_write_and_are_read_where_they_are_known() {
    let raw = Bytes::from_static(b"same same ").repeat(20);
    let writer = Compressor::new().source("census", Some((Arc::new(Foreign), 0)));
    let written = packed(&writer, "census", &raw).unwrap();
    assert!(!writer.uses_dictionaries("census"));
    let read = |reader: &Compressor| reader.unpack("x", written.form, &written.bytes, LIMIT);
    assert!(matches!(read(&Compressor::new()), Err(CodecError::UnknownCodec(CodecId(200)))));
    assert_eq!(read(&Compressor::new().decoder(Arc::new(Foreign))).unwrap(), raw);
}
