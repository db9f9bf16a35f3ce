//! What the codecs share: when compression pays, and how large an answer may be.

use cache_core::CodecError;

/// A compression level that the codec does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{codec} has levels {lowest} to {highest}, not {level}")]
#[non_exhaustive]
pub struct InvalidLevel {
    /// Name of the codec.
    pub codec: &'static str,
    /// The level asked for.
    pub level: u32,
    /// The fastest level.
    pub lowest: u32,
    /// The level that compresses most.
    pub highest: u32,
}

/// The longest frame worth storing for `raw_len` bytes: 5 % shorter.
pub(crate) fn worthwhile(raw_len: usize) -> usize {
    raw_len - raw_len.div_ceil(20)
}

/// Refuses a declared length above the limit.
pub(crate) fn within(raw_len: u64, limit: u64) -> Result<(), CodecError> {
    if raw_len > limit { Err(CodecError::TooLarge { declared: raw_len, limit }) } else { Ok(()) }
}

/// An empty buffer for `raw_len` bytes and `spare` more.
pub(crate) fn buffer(raw_len: u64, limit: u64, spare: usize) -> Result<Vec<u8>, CodecError> {
    within(raw_len, limit)?;
    let wanted = usize::try_from(raw_len).ok().and_then(|len| len.checked_add(spare));
    let mut buffer = Vec::new();
    // A limit above what the machine has must not abort the process.
    if wanted.is_none_or(|wanted| buffer.try_reserve_exact(wanted).is_err()) {
        return Err(CodecError::TooLarge { declared: raw_len, limit });
    }
    Ok(buffer)
}

/// Refuses `raw` unless it is as long as it was declared.
pub(crate) fn exactly(
    codec: &'static str,
    raw: Vec<u8>,
    raw_len: u64,
) -> Result<Vec<u8>, CodecError> {
    if raw.len() as u64 == raw_len {
        Ok(raw)
    } else {
        Err(corrupt(codec, "its content is not as long as declared"))
    }
}

/// The error for a frame that is not what this crate wrote.
pub(crate) fn corrupt(codec: &'static str, reason: impl Into<String>) -> CodecError {
    CodecError::Corrupt { codec, reason: reason.into() }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_pays_from_five_percent() {
        assert_eq!(worthwhile(0), 0);
        assert_eq!(worthwhile(1), 0);
        assert_eq!(worthwhile(100), 95);
        assert_eq!(worthwhile(101), 95, "96 bytes would save less than 5 %");
    }

    #[test]
    fn lengths_above_the_limit_or_the_memory_are_refused() {
        assert_eq!(buffer(10, 10, 0).unwrap().capacity(), 10);
        for (raw_len, limit) in [(11, 10), (u64::MAX, u64::MAX), (u64::MAX >> 1, u64::MAX)] {
            let refused = buffer(raw_len, limit, 1);
            assert!(
                matches!(refused, Err(CodecError::TooLarge { declared, .. }) if declared == raw_len)
            );
        }
    }
}
