//! Zstandard frames with checksum and content size.

use std::{cell::Cell, io, num::NonZeroU32};

use cache_core::{Codec, CodecError, CodecId, DictionaryId};
use xxhash_rust::xxh64::xxh64;
use zstd::{
    bulk::Compressor,
    dict::EncoderDictionary,
    zstd_safe::{
        CDict, DCtx, DDict, DParameter, ErrorCode, compress_bound, find_frame_compressed_size,
        get_dict_id_from_frame, get_error_name, get_frame_content_size,
    },
};

use crate::frame::{InvalidLevel, buffer, corrupt, exactly, within, worthwhile};

const NAME: &str = "zstd";

/// Base-2 logarithm of the largest window a frame may ask for. Decoding in one pass writes straight
/// into the answer and needs none; this holds should it ever fall back to streaming.
const WINDOW_LOG_MAX: u32 = 27;

/// With a dictionary, level 2 takes as long as level 1 and stores 4 to 7 % less.
const LOWEST_WITH_DICTIONARY: i32 = 2;

/// Where a frame's header says that a checksum follows the content (RFC 8878, 3.1.1.1.1).
const DESCRIPTOR: usize = 4;
const HAS_CHECKSUM: u8 = 1 << 2;
/// Length of the checksum, in bytes.
const CHECKSUM: usize = 4;

/// Contexts grow with level and value, to some 80 MB at level 19. Those that are larger than this, in
/// bytes, are not kept: a new one costs little beside what they are used for.
const MAX_KEPT: usize = 8 << 20;

thread_local! {
    static COMPRESSOR: Cell<Option<(i32, Compressor<'static>)>> = const { Cell::new(None) };
    static DECOMPRESSOR: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
}

/// Writes Zstandard frames (RFC 8878), several times faster than zlib at the same ratio.
#[derive(Debug, Clone, Copy)]
pub struct Zstd {
    level: i32,
}

impl Zstd {
    /// The default, and for reading, where the level does not matter.
    pub(crate) const READER: Self = Self { level: 1 };

    /// A codec with a compression level from 1, the fastest, to 19.
    pub fn new(level: u32) -> Result<Self, InvalidLevel> {
        match level {
            1..=19 => Ok(Self { level: level.cast_signed() }),
            _ => Err(InvalidLevel { codec: NAME, level, lowest: 1, highest: 19 }),
        }
    }

    /// This thread's compressor, or a new one.
    ///
    /// It is taken out while in use and put back by the caller, so that nothing can find it
    /// borrowed, and one that failed is not used again.
    fn compressor(self) -> io::Result<Compressor<'static>> {
        match COMPRESSOR.try_with(Cell::take).ok().flatten() {
            Some((level, compressor)) if level == self.level => Ok(compressor),
            Some((_, mut compressor)) => {
                compressor.set_compression_level(self.level)?;
                Ok(compressor)
            }
            None => {
                let mut compressor = Compressor::new(self.level)?;
                compressor.include_checksum(true)?;
                compressor.include_contentsize(true)?;
                Ok(compressor)
            }
        }
    }

    /// Keeps this thread's compressor for the next value.
    fn keep(self, mut compressor: Compressor<'static>) {
        if compressor.context_mut().sizeof() <= MAX_KEPT {
            // While a thread ends there is nowhere to put it, and no need.
            COMPRESSOR.try_with(|kept| kept.set(Some((self.level, compressor)))).ok();
        }
    }

    /// Makes a dictionary ready for [`Zstd::encode_with`].
    pub(crate) fn digest(self, content: &[u8]) -> io::Result<EncoderDictionary<'static>> {
        EncoderDictionary::try_copy(content, self.level.max(LOWEST_WITH_DICTIONARY))
    }

    fn compress(self, raw: &[u8], stored: &mut Vec<u8>) -> io::Result<()> {
        let mut compressor = self.compressor()?;
        compressor.compress_to_buffer(raw, stored)?;
        self.keep(compressor);
        Ok(())
    }

    /// The library's call for digested dictionaries, which need not be tied to a context, makes no
    /// checksum: the low half of the content's XXH64 behind the last block, and a bit in the header
    /// (RFC 8878, 3.1.1).
    fn compress_with(
        self,
        raw: &[u8],
        dictionary: &CDict<'_>,
        stored: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut compressor = self.compressor()?;
        compressor
            .context_mut()
            .compress_using_cdict(stored, raw, dictionary)
            .map_err(|code| io::Error::other(get_error_name(code)))?;
        self.keep(compressor);
        let Some(flags) = stored.get_mut(DESCRIPTOR) else {
            return Err(io::Error::other("it made no frame"));
        };
        *flags |= HAS_CHECKSUM;
        stored.extend_from_slice(&(xxh64(raw, 0) as u32).to_le_bytes());
        Ok(())
    }

    /// As [`Codec::encode`], with a dictionary that this codec digested.
    pub(crate) fn encode_with(
        self,
        raw: &[u8],
        dictionary: &CDict<'_>,
    ) -> Result<Option<Vec<u8>>, CodecError> {
        frame(raw, |stored| self.compress_with(raw, dictionary, stored))
    }
}

/// The frame that `compress` makes, if it is worth storing.
fn frame(
    raw: &[u8],
    compress: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> Result<Option<Vec<u8>>, CodecError> {
    if worthwhile(raw.len()) == 0 {
        return Ok(None);
    }
    let mut stored = Vec::with_capacity(compress_bound(raw.len()) + CHECKSUM);
    compress(&mut stored)
        .map_err(|err| CodecError::Encode { codec: NAME, reason: err.to_string() })?;
    if stored.len() > worthwhile(raw.len()) {
        return Ok(None);
    }
    stored.shrink_to_fit();
    Ok(Some(stored))
}

fn new_decompressor() -> Result<DCtx<'static>, CodecError> {
    let failed = |reason: &str| corrupt(NAME, reason);
    let mut decompressor = DCtx::try_create().ok_or_else(|| failed("no memory to read it"))?;
    decompressor
        .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
        .map_err(|code| failed(get_error_name(code)))?;
    Ok(decompressor)
}

fn decompress(
    stored: &[u8],
    raw: &mut Vec<u8>,
    dictionary: Option<&DDict<'_>>,
) -> Result<(), CodecError> {
    let mut decompressor = match DECOMPRESSOR.try_with(Cell::take).ok().flatten() {
        Some(decompressor) => decompressor,
        None => new_decompressor()?,
    };
    let done = match dictionary {
        Some(dictionary) => decompressor.decompress_using_ddict(raw, stored, dictionary),
        None => decompressor.decompress(raw, stored),
    };
    done.map_err(refused)?;
    DECOMPRESSOR.try_with(|kept| kept.set(Some(decompressor))).ok();
    Ok(())
}

fn refused(code: ErrorCode) -> CodecError {
    corrupt(NAME, get_error_name(code))
}

/// As [`Codec::decode`], of a frame that was made with this dictionary, or with none.
pub(crate) fn decode(
    stored: &[u8],
    raw_len: u64,
    limit: u64,
    dictionary: Option<(DictionaryId, &DDict<'_>)>,
) -> Result<Vec<u8>, CodecError> {
    within(raw_len, limit)?;
    // The header is read before memory is taken for what it announces.
    if get_frame_content_size(stored).ok().flatten() != Some(raw_len) {
        return Err(corrupt(NAME, "its header does not announce the declared length"));
    }
    if stored.get(DESCRIPTOR).is_none_or(|flags| flags & HAS_CHECKSUM == 0) {
        return Err(corrupt(NAME, "it has no checksum"));
    }
    let declared = dictionary.map_or(DictionaryId::NONE, |(id, _)| id);
    let announced = get_dict_id_from_frame(stored).map_or(0, NonZeroU32::get);
    if DictionaryId(announced) != declared {
        return Err(corrupt(NAME, "its header does not announce the declared dictionary"));
    }
    // The decoder itself would go on to a second frame and skip over others.
    let frame_len = find_frame_compressed_size(stored).map_err(refused)?;
    if frame_len != stored.len() {
        return Err(corrupt(NAME, "something follows it"));
    }
    let mut raw = buffer(raw_len, limit, 0)?;
    decompress(stored, &mut raw, dictionary.map(|(_, dictionary)| dictionary))?;
    exactly(NAME, raw, raw_len)
}

impl Codec for Zstd {
    fn id(&self) -> CodecId {
        CodecId::ZSTD
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(&self, raw: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        frame(raw, |stored| self.compress(raw, stored))
    }

    fn decode(&self, stored: &[u8], raw_len: u64, limit: u64) -> Result<Vec<u8>, CodecError> {
        decode(stored, raw_len, limit, None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::frame::testing::{self, document, frame};

    fn codec() -> Zstd {
        Zstd::new(1).expect("a level")
    }

    #[test]
    fn levels_outside_the_range_are_refused() {
        assert!(Zstd::new(1).is_ok() && Zstd::new(19).is_ok());
        assert!(Zstd::new(0).is_err());
        let err = Zstd::new(20).unwrap_err();
        assert_eq!(err.to_string(), "zstd has levels 1 to 19, not 20");
    }

    #[test]
    fn frames_carry_size_and_checksum() {
        let raw = document(10_000);
        let stored = frame(&codec(), &raw);
        assert_eq!(get_frame_content_size(&stored).unwrap(), Some(raw.len() as u64));
        assert_ne!(stored[DESCRIPTOR] & HAS_CHECKSUM, 0);
    }

    #[test]
    fn frames_without_size_or_checksum_are_refused() {
        let raw = document(10_000);
        let mut compressor = Compressor::new(1).unwrap();
        let bare = compressor.compress(&raw).unwrap();
        assert!(codec().decode(&bare, raw.len() as u64, u64::MAX).is_err());
        compressor.include_checksum(true).unwrap();
        compressor.include_contentsize(false).unwrap();
        let unsized_frame = compressor.compress(&raw).unwrap();
        assert!(codec().decode(&unsized_frame, raw.len() as u64, u64::MAX).is_err());
    }

    #[test]
    fn each_level_gets_its_own_setting_from_the_shared_context() {
        let raw = document(50_000);
        let sizes =
            [19, 1, 19, 1].map(|level| frame(&Zstd::new(level).expect("a level"), &raw).len());
        assert_eq!(sizes[0], sizes[2]);
        assert_eq!(sizes[1], sizes[3]);
        assert!(sizes[0] < sizes[1]);
    }

    #[test]
    fn threads_do_not_keep_large_contexts() {
        let kept = || COMPRESSOR.take().is_some();
        let (fast, thorough) = (codec(), Zstd::new(19).expect("a level"));
        let large = document(100_000).repeat(40);
        for (codec, raw, expected) in [
            (fast, &large[..], true),
            (thorough, &large[..10_000], true),
            (thorough, &large[..], false),
        ] {
            testing::check_round_trip(&codec, raw);
            assert_eq!(kept(), expected, "{codec:?}, {} bytes", raw.len());
        }
    }

    #[test]
    fn parts_of_frames_are_corrupt() {
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
            chunk in vec(any::<u8>(), 0..200), times in 0_usize..40, level in 1_u32..=19,
        ) {
            testing::check_round_trip(&Zstd::new(level).expect("a level"), &chunk.repeat(times));
        }

        #[test]
        fn garbage_is_never_fatal(garbage in vec(any::<u8>(), 0..300), raw_len in 0_u64..2_000) {
            testing::check_garbage(&codec(), &garbage, raw_len);
            let magic = [0x28, 0xb5, 0x2f, 0xfd];
            testing::check_garbage(&codec(), &[&magic[..], &garbage[..]].concat(), raw_len);
        }
    }
}
