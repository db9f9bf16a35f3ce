//! Frames that were written once and are read for ever.
//!
//! A change that makes a test here fail makes what users have stored unreadable: the change is
//! wrong, not the fixture.

use std::{fs, fs::File, io::Write, path::PathBuf, sync::Arc};

use cache_core::{Codec, CodecId, Compression, Dictionary, DictionaryId, Form};
use codec_compress::Compressor;

use crate::documents::{compressor, dictionary, table, zlib, zstd};

/// The number of the dictionary in `dictionary`.
const DICTIONARY: DictionaryId = DictionaryId(0x3b49_a827);

/// Each frame, and the codec and dictionary that made it.
const FRAMES: [(&str, CodecId, DictionaryId); 8] = [
    ("zlib-1.frame", CodecId::ZLIB, DictionaryId::NONE),
    ("zlib-6.frame", CodecId::ZLIB, DictionaryId::NONE),
    ("zlib-9.frame", CodecId::ZLIB, DictionaryId::NONE),
    ("zstd-1.frame", CodecId::ZSTD, DictionaryId::NONE),
    ("zstd-3.frame", CodecId::ZSTD, DictionaryId::NONE),
    ("zstd-19.frame", CodecId::ZSTD, DictionaryId::NONE),
    ("zstd-1-dictionary.frame", CodecId::ZSTD, DICTIONARY),
    ("zstd-19-dictionary.frame", CodecId::ZSTD, DICTIONARY),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

fn stored_dictionary() -> Dictionary {
    Dictionary { id: DICTIONARY, content: bytes("dictionary").into(), ..dictionary("census", 1) }
}

#[test]
fn frames_of_old_are_read() {
    let raw = bytes("value.json");
    let reader = Compressor::new();
    reader.learn(&stored_dictionary()).unwrap();
    for (name, codec, dictionary) in FRAMES {
        let form = Form { codec, dictionary, raw_len: raw.len() as u64 };
        let read = reader.unpack("census", form, &bytes(name), raw.len() as u64);
        assert_eq!(read.unwrap_or_else(|error| panic!("{name}: {error}")), raw, "{name}");
    }
}

/// Writes what is not there yet; for new kinds of frames.
#[test]
#[ignore = "writes the fixtures"]
fn write() {
    let new = |name: &str, bytes: &[u8]| match File::create_new(path(name)) {
        Ok(mut file) => file.write_all(bytes).unwrap(),
        Err(error) => println!("{name} stays: {error}"),
    };
    let trained = dictionary("census", 1);
    new("value.json", &table(3_000, 77));
    new("dictionary", &trained.content);
    println!("number of the dictionary, if it is new: {:#x}", trained.id.0);
    let raw = bytes("value.json");
    for (name, id, with) in FRAMES {
        let level = name.split(['-', '.']).nth(1).unwrap().parse().unwrap();
        let codec: Arc<dyn Codec> = if id == CodecId::ZLIB { zlib(level) } else { zstd(level) };
        let threshold = if with == DictionaryId::NONE { 0 } else { usize::MAX };
        let writer = compressor().codec(codec, threshold);
        if threshold > 0 {
            writer.learn(&stored_dictionary()).unwrap();
        }
        new(name, &writer.pack("census", &raw).unwrap().bytes);
    }
}
