//! Dictionaries that are trained, and those that are not since they would not pay.

use bytes::Bytes;
use cache_core::{Compression, DictionaryId, Timestamp};
use codec_compress::{TrainError, train};

use crate::documents::{compressor, dictionary, noise, small, table};

fn trained(samples: &[Bytes]) -> Result<Option<cache_core::Dictionary>, TrainError> {
    train("census", samples, 1, Timestamp::from_millis(7))
}

#[test]
fn a_dictionary_makes_unseen_documents_smaller() {
    let dictionary = dictionary("census", 1);
    assert_eq!((&*dictionary.source, dictionary.version), ("census", 1));
    assert_eq!(dictionary.created_at, Timestamp::from_millis(7));
    assert_eq!(dictionary.samples, 240, "a fifth of 300 is held back");
    assert!(dictionary.content.len() <= 16 << 10, "{} bytes", dictionary.content.len());
    let with = compressor();
    with.learn(&dictionary).unwrap();
    let without = compressor().source("census", Some((crate::documents::zstd(3), 0)));
    let stored = |compressor: &codec_compress::Compressor| -> usize {
        let unseen = (10_000..10_300).map(|seed| table(1_000, seed));
        unseen.map(|raw| compressor.pack("census", &raw).unwrap().bytes.len()).sum()
    };
    let (with, without) = (stored(&with), stored(&without));
    assert!(with * 100 < without * 90, "{with} of {without} bytes");
}

#[test]
fn the_same_samples_give_the_same_dictionary_and_sources_do_not_share_numbers() {
    let one = dictionary("census", 1);
    assert_eq!(one, dictionary("census", 1));
    assert_ne!(one.id, dictionary("census", 2).id);
    assert_ne!(one.id, dictionary("labor", 1).id);
    assert_ne!(one.id, DictionaryId::NONE);
    assert!((1 << 15..1 << 31).contains(&one.id.0), "the others are reserved");
}

#[test]
fn what_has_nothing_in_common_gives_no_dictionary() {
    let noise: Vec<_> = (0..200).map(|seed| Bytes::from(noise(1_000, seed))).collect();
    assert_eq!(trained(&noise), Ok(None));
}

#[test]
fn what_compresses_well_alone_gives_no_dictionary() {
    let alone: Vec<_> =
        (0..200).map(|seed| Bytes::from([noise(500, seed), vec![b' '; 2_000]].concat())).collect();
    assert_eq!(trained(&alone), Ok(None), "most of what is stored is noise");
}

#[test]
fn too_few_documents_of_a_fitting_size_are_refused() {
    assert_eq!(trained(&[]), Err(TrainError::TooFew { fitting: 0 }));
    let mut samples = small(49);
    samples.extend(std::iter::repeat_with(|| Bytes::from_static(b"{}")).take(1_000));
    samples.extend((0..10).map(|seed| table(100_000, seed)));
    assert_eq!(trained(&samples), Err(TrainError::TooFew { fitting: 49 }));
    assert_eq!(
        trained(&samples).unwrap_err().to_string(),
        "only 49 documents have 256 bytes to 64 KiB, and a dictionary takes 50"
    );
    samples.push(table(1_000, 49));
    assert!(trained(&samples).is_ok());
}

#[test]
fn of_many_documents_some_from_everywhere_are_looked_at() {
    let first = dictionary("census", 1);
    // The library is told of some 1.6 MB, however many there are; the last are of another kind.
    let mut many = small(3_000);
    many.extend((0..3_000).map(|n| {
        let other = format!(r#"{{"series":"SMU{n:08}","unit":"thousands of persons"}}"#);
        Bytes::from(other.repeat(12))
    }));
    let spread = trained(&many).unwrap().expect("they have much in common");
    assert!((500..2_000).contains(&spread.samples), "{}", spread.samples);
    let has = |content: &[u8], what: &[u8]| content.windows(what.len()).any(|part| part == what);
    assert!(has(&spread.content, b"persons") && has(&spread.content, b"Metro Area"));
    assert!(!has(&first.content, b"persons"));
}
