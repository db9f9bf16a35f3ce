//! Dictionaries where Zstandard was not compiled in: none.

#![expect(clippy::unused_self, reason = "the same methods as where Zstandard is")]

use std::convert::Infallible;

use cache_core::{Codec, CodecError, CodecId, Dictionary, DictionaryId, Form};

/// The dictionaries known.
#[derive(Debug, Default)]
pub(crate) struct Dictionaries {}

/// A dictionary, ready to compress with.
#[derive(Debug)]
pub(crate) struct Encoder(Infallible);

impl Encoder {
    pub(crate) fn id(&self) -> DictionaryId {
        match self.0 {}
    }

    pub(crate) fn encode(&self, _: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        match self.0 {}
    }
}

impl Dictionaries {
    pub(crate) fn usable_by(_: &dyn Codec) -> bool {
        false
    }

    pub(crate) fn encoder(&self, _: &str, _: &dyn Codec) -> Option<Encoder> {
        None
    }

    pub(crate) fn decode(&self, form: Form, _: &[u8], _: u64) -> Result<Vec<u8>, CodecError> {
        Err(CodecError::UnknownCodec(form.codec))
    }

    pub(crate) fn learn(&self, _: &Dictionary) -> Result<(), CodecError> {
        Err(CodecError::UnknownCodec(CodecId::ZSTD))
    }

    pub(crate) fn get(&self, _: DictionaryId) -> Option<Dictionary> {
        None
    }

    pub(crate) fn forget_encoders(&mut self) {}
}
