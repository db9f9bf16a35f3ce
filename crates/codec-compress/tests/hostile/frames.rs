//! Frames: good ones, and what becomes of them.

use std::sync::Arc;

use bytes::Bytes;
use cache_core::{Codec, CodecId, Compression, Dictionary, DictionaryId, Form};
use codec_compress::Compressor;

use tier_testkit::Dice;

use crate::documents::{dictionary, noise, table, zlib, zstd};

/// The longest value that is read.
pub(crate) const LIMIT: u64 = 1 << 20;

/// Stored bytes, and what is said of them.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) form: Form,
    pub(crate) stored: Vec<u8>,
    /// The value that it was made of.
    pub(crate) raw: Bytes,
    /// Whether it still is as it was made.
    pub(crate) untouched: bool,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.stored[..self.stored.len().min(32)];
        write!(f, "frame of {} bytes, {start:02x?}.., as {:?}", self.stored.len(), self.form)
    }
}

/// Good frames.
pub(crate) struct Corpus {
    pub(crate) dictionary: Dictionary,
    good: Vec<Frame>,
}

impl Corpus {
    /// Of every codec, with the dictionary and without, of texts and of bombs.
    pub(crate) fn new() -> Self {
        let dictionary = dictionary("census", 1);
        let texts = [300, 1_000, 3_000, 9_000].map(|size| table(size, size as u64));
        let mixed = Bytes::from([noise(400, 1), table(2_000, 1).to_vec(), vec![0; 600]].concat());
        let bomb = Bytes::from(vec![0; LIMIT as usize]);
        let values: Vec<_> = texts.into_iter().chain([mixed, bomb]).collect();
        let codecs: [Arc<dyn Codec>; 6] = [zlib(1), zlib(6), zlib(9), zstd(1), zstd(3), zstd(19)];
        let mut good = Vec::new();
        for codec in codecs {
            for threshold in [0, usize::MAX] {
                let compressor = Compressor::new().codec(Arc::clone(&codec), threshold);
                if threshold > 0 {
                    compressor.learn(&dictionary).unwrap();
                }
                for raw in &values {
                    let Some(packed) = compressor.pack("census", raw) else { continue };
                    good.push(Frame {
                        form: packed.form,
                        stored: packed.bytes.to_vec(),
                        raw: raw.clone(),
                        untouched: true,
                    });
                }
            }
        }
        Self { dictionary, good }
    }

    fn good(&self, dice: &mut Dice) -> &Frame {
        &self.good[dice.below(self.good.len())]
    }

    /// A good one that was made with the dictionary.
    pub(crate) fn with_dictionary(&self, dice: &mut Dice) -> Frame {
        loop {
            let frame = self.good(dice);
            if frame.form.dictionary == self.dictionary.id {
                return frame.clone();
            }
        }
    }

    /// A frame: made up, or a good one that was damaged, declared wrongly, or both; seldom good.
    pub(crate) fn frame(&self, dice: &mut Dice) -> Frame {
        let mut frame = self.good(dice).clone();
        let kind = dice.below(32);
        if kind == 0 {
            return frame;
        }
        frame.untouched = false;
        match kind {
            1..4 => frame.stored = made_up(&frame, dice),
            4..20 => damage(&mut frame.stored, &self.good(dice).stored, dice),
            20..23 => edit_header(&mut frame, dice),
            23..27 => self.declare(&mut frame.form, dice),
            _ => {
                damage(&mut frame.stored, &self.good(dice).stored, dice);
                self.declare(&mut frame.form, dice);
            }
        }
        frame
    }

    /// Says something else of a frame.
    fn declare(&self, form: &mut Form, dice: &mut Dice) {
        match dice.below(8) {
            0 => form.raw_len += 1,
            1 => form.raw_len -= 1,
            2 => form.raw_len = dice.throw() % (LIMIT + 1),
            3 => form.raw_len = dice.throw() >> dice.below(64),
            4 => form.dictionary = DictionaryId(dice.throw() as u32),
            5 => {
                let none = form.dictionary == DictionaryId::NONE;
                form.dictionary = if none { self.dictionary.id } else { DictionaryId::NONE };
            }
            6 => form.codec = CodecId(dice.below(3) as u8),
            _ => form.codec = CodecId(dice.throw() as u8),
        }
    }

    /// Whether `raw` is what the frame means, or what another good frame means that it has become.
    pub(crate) fn is_right(&self, frame: &Frame, raw: &[u8]) -> bool {
        let raw_form = frame.form.codec == CodecId::RAW && frame.stored == raw;
        let became = |good: &Frame| good.stored == frame.stored && good.raw == raw;
        raw == frame.raw || raw_form || self.good.iter().any(became)
    }
}

/// Something at random, often with the start of a real frame.
fn made_up(like: &Frame, dice: &mut Dice) -> Vec<u8> {
    let start = like.stored.len().min(dice.below(24));
    let len = dice.below(400);
    [&like.stored[..start], &noise(len, dice.throw())].concat()
}

/// Changes what a header says: of Zstandard flags, sizes and dictionary, of zlib method and window.
fn edit_header(frame: &mut Frame, dice: &mut Dice) {
    let zlib = frame.form.codec == CodecId::ZLIB;
    let (from, to) = if zlib { (0, 2) } else { (4, 14) };
    let at = (from + dice.below(to - from)).min(frame.stored.len() - 1);
    match dice.below(4) {
        0 => frame.stored[at] = dice.throw() as u8,
        1 if !zlib => {
            // Without its checksum nothing would tell that it is damaged.
            frame.stored[4] &= !4;
            frame.stored.truncate(frame.stored.len() - 4);
            let at = dice.below(frame.stored.len());
            frame.stored[at] ^= 1 << dice.below(8);
        }
        2 => {
            // The content size is one to eight bytes.
            let len = 1 << dice.below(4);
            let end = (at + len).min(frame.stored.len());
            let size = dice.throw() >> dice.below(64);
            frame.stored[at..end].copy_from_slice(&size.to_le_bytes()[..end - at]);
        }
        _ => {
            frame.stored.remove(at);
        }
    }
}

/// Damages stored bytes in one to three ways.
pub(crate) fn damage(stored: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        if stored.is_empty() {
            stored.push(dice.throw() as u8);
        }
        let len = stored.len();
        let at = dice.below(len);
        let end = at + dice.below(len - at) + 1;
        match dice.below(10) {
            0..3 => stored[at] ^= 1 << dice.below(8),
            3 => stored[at] = dice.throw() as u8,
            4 => stored.truncate(at),
            5 => stored.extend(noise(1 + dice.below(20), dice.throw())),
            6 => {
                let from = dice.below(other.len());
                stored.splice(at.., other[from..].iter().copied());
            }
            7 => {
                stored.drain(at..end);
            }
            8 => {
                let part = stored[at..end.min(at + 1_000)].to_vec();
                stored.splice(at..at, part);
            }
            _ => stored[at..end].fill(if dice.below(2) == 0 { 0 } else { 0xff }),
        }
    }
}
