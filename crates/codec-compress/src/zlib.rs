//! zlib streams, as the program that Larder replaces writes them.

use std::cell::Cell;

use cache_core::{Codec, CodecError, CodecId};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::frame::{InvalidLevel, buffer, corrupt, exactly, worthwhile};

const NAME: &str = "zlib";

thread_local! {
    static COMPRESS: Cell<Option<(u32, Compress)>> = const { Cell::new(None) };
    static DECOMPRESS: Cell<Option<Decompress>> = const { Cell::new(None) };
}

/// Writes zlib streams (RFC 1950), which every language reads.
#[derive(Debug, Clone, Copy)]
pub struct Zlib {
    level: u32,
}

impl Zlib {
    /// For reading, where the level does not matter.
    pub(crate) const READER: Self = Self { level: 6 };

    /// A codec with a compression level from 0 to 9, the slowest.
    ///
    /// Level 0 does not compress, so it never encodes anything; it can decode.
    pub fn new(level: u32) -> Result<Self, InvalidLevel> {
        match level {
            0..=9 => Ok(Self { level }),
            _ => Err(InvalidLevel { codec: NAME, level, lowest: 0, highest: 9 }),
        }
    }

    /// This thread's context at this level, or a new one.
    ///
    /// It is taken out while in use and put back by the caller, so that nothing can find it
    /// borrowed, and one that failed or did not come to its end is not used again.
    fn context(self) -> Compress {
        match COMPRESS.try_with(Cell::take).ok().flatten() {
            Some((level, mut context)) if level == self.level => {
                context.reset();
                context
            }
            _ => Compress::new(Compression::new(self.level), true),
        }
    }
}

impl Codec for Zlib {
    fn id(&self) -> CodecId {
        CodecId::ZLIB
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(&self, raw: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        // No room for more than is worth storing: compression stops where it cannot pay any more.
        let mut stored = Vec::with_capacity(worthwhile(raw.len()));
        if stored.capacity() == 0 {
            return Ok(None);
        }
        let mut context = self.context();
        let status = context
            .compress_vec(raw, &mut stored, FlushCompress::Finish)
            .map_err(|err| CodecError::Encode { codec: NAME, reason: err.to_string() })?;
        // One that was stopped is not used again: resetting it leaves its block open at level 1
        // (zlib-rs 0.6.8), and what it compressed next could not be read.
        if status != Status::StreamEnd {
            return Ok(None);
        }
        // While a thread ends there is nowhere to put it, and no need.
        COMPRESS.try_with(|kept| kept.set(Some((self.level, context)))).ok();
        // The allocator may have given more room than was asked for.
        if stored.len() > worthwhile(raw.len()) {
            return Ok(None);
        }
        stored.shrink_to_fit();
        Ok(Some(stored))
    }

    fn decode(&self, stored: &[u8], raw_len: u64, limit: u64) -> Result<Vec<u8>, CodecError> {
        // A byte to spare tells a stream that goes on from one that ends where it should.
        let mut raw = buffer(raw_len, limit, 1)?;
        let mut context = match DECOMPRESS.try_with(Cell::take).ok().flatten() {
            Some(mut context) => {
                context.reset(true);
                context
            }
            None => Decompress::new(true),
        };
        let status = context
            .decompress_vec(stored, &mut raw, FlushDecompress::Finish)
            .map_err(|err| corrupt(NAME, err.to_string()))?;
        if status != Status::StreamEnd {
            return Err(corrupt(NAME, "it does not end within the declared length"));
        }
        let consumed = context.total_in();
        DECOMPRESS.try_with(|kept| kept.set(Some(context))).ok();
        if consumed != stored.len() as u64 {
            return Err(corrupt(NAME, "something follows it"));
        }
        exactly(NAME, raw, raw_len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::frame::testing::{self, document, frame};

    fn codec() -> Zlib {
        Zlib::new(6).expect("a level")
    }

    #[test]
    fn levels_outside_the_range_are_refused() {
        assert!(Zlib::new(0).is_ok() && Zlib::new(9).is_ok());
        assert_eq!(Zlib::new(10).unwrap_err().to_string(), "zlib has levels 0 to 9, not 10");
    }

    #[test]
    fn streams_of_other_programs_are_read() {
        // `zlib.compress(b"a" * 100)` in Python, and an empty stream.
        let hundred = [0x78, 0x9c, 0x4b, 0x4c, 0xa4, 0x3d, 0x00, 0x00, 0x7a, 0x47, 0x25, 0xe5];
        assert_eq!(codec().decode(&hundred, 100, 100).unwrap(), [b'a'; 100]);
        let empty = [0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01];
        assert_eq!(codec().decode(&empty, 0, 0).unwrap(), []);
    }

    #[test]
    fn streams_that_want_a_dictionary_are_corrupt() {
        let wants = [0x78, 0xbb, 0x00, 0x00, 0x00, 0x01, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01];
        assert!(codec().decode(&wants, 0, 100).is_err());
    }

    #[test]
    fn level_zero_encodes_nothing() {
        let stored = Zlib::new(0).expect("a level").encode(&document(10_000)).unwrap();
        assert_eq!(stored, None);
    }

    #[test]
    fn each_level_gets_its_own_setting_from_the_shared_context() {
        let raw = document(50_000);
        let sizes =
            [9, 1, 9, 1].map(|level| frame(&Zlib::new(level).expect("a level"), &raw).len());
        assert_eq!(sizes[0], sizes[2]);
        assert_eq!(sizes[1], sizes[3]);
        assert!(sizes[0] < sizes[1]);
    }

    #[test]
    fn what_did_not_shrink_leaves_no_trace_in_what_follows() {
        for level in 1..=9 {
            let codec = Zlib::new(level).expect("a level");
            for len in [1_000, 131_073, 300_000] {
                assert_eq!(codec.encode(&testing::noise(len)).unwrap(), None);
                testing::check_round_trip(&codec, &vec![0; len]);
                assert_eq!(codec.encode(&testing::noise(len)).unwrap(), None);
                testing::check_round_trip(&codec, &document(len));
            }
        }
    }

    #[test]
    fn parts_of_streams_are_corrupt() {
        testing::check_truncation(&codec());
    }

    #[test]
    fn flipped_bits_never_give_wrong_bytes() {
        testing::check_flips(&codec());
    }

    #[test]
    fn bombs_are_refused() {
        testing::check_bombs(&codec());
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        testing::check_incompressible(&codec());
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding(
            chunk in vec(any::<u8>(), 0..200), times in 0_usize..40, level in 0_u32..=9,
        ) {
            testing::check_round_trip(&Zlib::new(level).expect("a level"), &chunk.repeat(times));
        }

        #[test]
        fn garbage_is_never_fatal(garbage in vec(any::<u8>(), 0..300), raw_len in 0_u64..2_000) {
            testing::check_garbage(&codec(), &garbage, raw_len);
            testing::check_garbage(&codec(), &[&[0x78, 0x9c], &garbage[..]].concat(), raw_len);
        }
    }
}
