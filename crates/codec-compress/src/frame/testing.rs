//! What every codec must promise, as checks that each codec's tests run.

use cache_core::{Codec, CodecError};

const LIMIT: u64 = 64 << 20;

/// About `len` bytes of JSON in which little repeats exactly.
pub(crate) fn document(len: usize) -> Vec<u8> {
    let mut seed = 7_u64;
    let rows = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{{\"cbsa\":{},\"value\":{}}},", seed >> 48, seed >> 40)
    });
    rows.take(len / 30).collect::<String>().into_bytes()
}

/// Bytes in which no codec finds a pattern.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut seed = 9_u64;
    let next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// The frame of `raw`, which compresses.
pub(crate) fn frame(codec: &impl Codec, raw: &[u8]) -> Vec<u8> {
    codec.encode(raw).expect("encodes").expect("shrinks")
}

fn is_corrupt(decoded: &Result<Vec<u8>, CodecError>) -> bool {
    matches!(decoded, Err(CodecError::Corrupt { .. }))
}

/// What goes in comes out, and what is kept is at least 5 % smaller.
pub(crate) fn check_round_trip(codec: &impl Codec, raw: &[u8]) {
    let Some(stored) = codec.encode(raw).expect("encodes") else { return };
    assert!(stored.len() * 100 <= raw.len() * 95, "{} of {} bytes", stored.len(), raw.len());
    let decoded = codec.decode(&stored, raw.len() as u64, raw.len() as u64).expect("decodes");
    assert!(decoded == raw, "decoding inverts encoding");
}

/// Whatever is decoded, the answer is right or an error.
pub(crate) fn check_garbage(codec: &impl Codec, garbage: &[u8], raw_len: u64) {
    if let Ok(raw) = codec.decode(garbage, raw_len, LIMIT) {
        assert_eq!(raw.len() as u64, raw_len);
    }
}

/// Any part of a frame is corrupt, and so is a frame with something behind it.
pub(crate) fn check_truncation(codec: &impl Codec) {
    let raw = document(2_000);
    let mut stored = frame(codec, &raw);
    for len in 0..stored.len() {
        assert!(is_corrupt(&codec.decode(&stored[..len], raw.len() as u64, LIMIT)), "{len} bytes");
    }
    let second = stored.clone();
    stored.extend(&second);
    assert!(is_corrupt(&codec.decode(&stored, raw.len() as u64, LIMIT)), "two frames");
    assert!(is_corrupt(&codec.decode(&stored, 2 * raw.len() as u64, LIMIT)), "two frames");
    stored.truncate(second.len() + 1);
    assert!(is_corrupt(&codec.decode(&stored, raw.len() as u64, LIMIT)), "a byte too many");
}

/// A frame with any one bit flipped is corrupt, or still means the same.
pub(crate) fn check_flips(codec: &impl Codec) {
    let raw = document(2_000);
    let mut stored = frame(codec, &raw);
    for bit in 0..stored.len() * 8 {
        let mask = 1 << (bit % 8);
        stored[bit / 8] ^= mask;
        match codec.decode(&stored, raw.len() as u64, LIMIT) {
            Ok(decoded) => assert!(decoded == raw, "bit {bit} changed the bytes"),
            Err(err) => assert!(matches!(err, CodecError::Corrupt { .. }), "bit {bit}: {err}"),
        }
        stored[bit / 8] ^= mask;
    }
    assert_eq!(
        codec.decode(&stored, raw.len() as u64, LIMIT).unwrap(),
        raw,
        "errors leave no trace"
    );
}

/// Frames that hold more or less than declared are refused, and so are declarations above the limit.
pub(crate) fn check_bombs(codec: &impl Codec) {
    let raw = vec![0; 64 << 20];
    let stored = frame(codec, &raw);
    assert!(stored.len() < 1 << 20, "a bomb is small");
    let len = raw.len() as u64;
    for declared in [0, 1, 1_000, len - 1, len + 1] {
        assert!(is_corrupt(&codec.decode(&stored, declared, len + 1)), "declared {declared}");
    }
    let refused = codec.decode(&stored, len, len - 1);
    assert!(
        matches!(refused, Err(CodecError::TooLarge { declared, limit }) if declared == len && limit == len - 1)
    );
    assert!(codec.decode(&stored, len, len).is_ok_and(|decoded| decoded == raw));
}

/// Nothing, and what has no pattern, is not encoded.
pub(crate) fn check_incompressible(codec: &impl Codec) {
    for raw in [vec![], vec![1], noise(100), noise(1 << 16)] {
        assert_eq!(codec.encode(&raw).unwrap(), None, "{} bytes", raw.len());
    }
    assert!(is_corrupt(&codec.decode(&[], 0, LIMIT)), "nothing is no frame");
}
